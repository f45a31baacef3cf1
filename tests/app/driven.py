"""The app with tiny systems, in a process of its own, and a page as its user sees it."""

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import browser

PROGRAM = Path(__file__).with_name("tiny_app.py")


class App:
    """A server that runs: its address and its outputs folder."""

    def __init__(self, process: subprocess.Popen, port: int, out: Path):
        self.process, self.port, self.out = process, port, out
        self.url = f"http://127.0.0.1:{port}"

    def interrupt(self) -> str:
        """Ctrl-C; what it said until its end."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
        said, _ = self.process.communicate(timeout=300)
        return said


@contextmanager
def serving(tiny: Path, out: Path, *flags: str) -> Iterator[App]:
    """The app on a free port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = subprocess.Popen(
        [sys.executable, str(PROGRAM), str(tiny), "--port", str(port), "--out", str(out), *flags],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    app = App(process, port, out)
    try:
        while "The app runs at" not in (line := process.stdout.readline()):
            assert line, f"the app did not start: exit code {process.wait()}"
        yield app
    finally:
        app.interrupt()


class Page:
    """A browser's page of the app, as its user sees it."""

    def __init__(self, page, app: App):
        from playwright.sync_api import expect

        self.page, self.app, self.expect = page, app, expect
        page.goto(app.url)
        expect(self.panel.get_by_role("button", name="Start")).to_be_visible()

    @property
    def panel(self):
        """The tab that is open."""
        return self.page.get_by_role("tabpanel").locator("visible=true").first

    @property
    def status(self):
        return self.page.locator("#status")

    def tab(self, name: str) -> None:
        self.page.get_by_role("tab", name=name, exact=True).click()

    def upload(self, file) -> None:
        self.panel.locator("input[type=file]").first.set_input_files(file)

    def start(self, prompt: str, steps: int | None = None) -> None:
        self.panel.get_by_label("Prompt", exact=True).fill(prompt)
        if steps is not None:
            self.panel.get_by_label("Steps").fill(str(steps))
        self.panel.get_by_role("button", name="Start").click()

    def shows(self, text: str | re.Pattern) -> None:
        """Wait until the status of the run says so."""
        self.expect(self.status).to_contain_text(text)

    def finished(self) -> None:
        self.expect(self.status.locator(".lp-done, .lp-failed")).to_be_visible(timeout=3 * browser.PATIENCE)
        self.shows("finished")

    def download(self, name: str, to: Path) -> Path:
        with self.page.expect_download() as begun:
            self.page.locator("#files").get_by_role("link", name=name).click()
        begun.value.save_as(to / name)
        return to / name

    def run(self) -> Path:
        """The folder of the newest run."""
        runs = [path.parent.parent for path in self.app.out.glob("*/*/configs/parsed.yaml")]
        return max(runs, key=lambda path: path.stat().st_mtime)
