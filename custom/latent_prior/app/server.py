"""The app's server: from its start to Ctrl-C."""

import ipaddress
import os
import socket
import sys
import threading
from pathlib import Path
from typing import Any

from latent_prior import OptionError
from latent_prior.app import tabs
from latent_prior.app.desk import Desk
from latent_prior.app.queue import Queue, shown_command


def serve(listen: str, port: int, out: Path, jobs: int, most: int) -> None:
    """Serve until Ctrl-C, which stops and saves the runs in progress.

    most: bytes of an upload. OptionErrors name the flag.
    """
    local = is_local(listen)
    _require_port(listen, port)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OptionError.because(f"cannot make the folder {out}: {error.strerror}", "--out") from error
    desk = Desk(out, Queue(jobs), most, local)
    page = launch(desk, listen, port)
    address = f"http://{f'[{listen}]' if ':' in listen else listen}:{port}"
    print(f"The app runs at {address}; outputs are in {desk.out}. Ctrl-C stops it.", flush=True)
    if not local:
        print("Everyone who reaches this address can start runs and see their results.", file=sys.stderr, flush=True)
    try:
        threading.Event().wait()
    finally:
        _end(desk, page)


def launch(desk: Desk, listen: str, port: int) -> Any:
    """Start serving in threads; returns gradio's page."""
    # read by gradio as it is imported: no calls home, and its copies of files in the outputs folder
    os.environ |= {"GRADIO_ANALYTICS_ENABLED": "False", "GRADIO_TEMP_DIR": str(desk.out / "app" / "cache")}
    # it looks whether it answers, which is not for a proxy
    os.environ["no_proxy"] = ",".join(filter(None, [os.environ.get("no_proxy"), "127.0.0.1,localhost,::1"]))
    try:
        import gradio  # noqa: F401
    except ImportError as error:
        raise OptionError.because("latent-prior app needs gradio: pip install 'latent_prior[app]'") from error
    from starlette.middleware import Middleware

    from latent_prior.app import page as pages
    from latent_prior.app.guard import Guard

    page = pages.build(desk, tabs.TABS)
    page.launch(
        server_name=listen,
        server_port=port,
        share=False,
        prevent_thread_lock=True,
        quiet=True,
        allowed_paths=[str(desk.out)],
        max_file_size=desk.uploads.most,
        app_kwargs={
            "middleware": [Middleware(Guard, out=desk.out, most=desk.uploads.most, local=desk.local)],
            "docs_url": None,
            "redoc_url": None,
            "openapi_url": None,
        },
        footer_links=[],
        run_history=False,
        enable_monitoring=False,
        mcp_server=False,
        pwa=False,
        ssr_mode=False,
        theme=pages.theme(),
        css=pages.CSS,
    )
    return page


def is_local(listen: str) -> bool:
    """Whether an address is reached from this machine alone. OptionError for one that is no address."""
    if listen == "localhost":
        return True
    try:
        return ipaddress.ip_address(listen).is_loopback
    except ValueError as error:
        raise OptionError("--listen", listen, "an address of this machine, such as 127.0.0.1 or 0.0.0.0") from error


def _require_port(listen: str, port: int) -> None:
    """OptionError if something else listens there."""
    with socket.socket(socket.AF_INET6 if ":" in listen else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((listen, port))
        except OSError as error:
            raise OptionError.because(
                f"cannot listen on {listen}:{port}: {(error.strerror or str(error)).lower()}; choose another --port"
            ) from error


def _end(desk: Desk, page: Any) -> None:
    running = [job for job in desk.queue.jobs if job.active]
    if running:
        print("\nStopping the runs in progress; they save first ...", file=sys.stderr, flush=True)
    stopped = desk.queue.close()
    page.close()
    for job in stopped:
        resumable = any(job.folder.glob("ckpts/[!.]*.ckpt"))
        command = ("latent_prior", "resume", str(job.folder)) if resumable else job.command
        print(f"Continue with: {shown_command(command)}", file=sys.stderr, flush=True)
