"""The part of the page that shows one run: its progress and previews, then its results."""

import html
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import gradio as gr

from latent_prior.app import history, progress, results
from latent_prior.app.desk import Desk
from latent_prior.app.queue import DONE, FAILED, RUNNING, STOPPED, STOPPING, WAITING, Job, shown_command
from latent_prior.app.tabs import LABELS
from latent_prior.files.refusals import shown_size

EMPTY = """<div class="lp-empty"><h2>Nothing to show yet</h2><p>Say what to make and press <b>Start</b>. Pictures appear
here while it runs, then the result to look at and to download. An earlier run is under <b>History</b>.</p></div>"""
WORDS = {history.INTERRUPTED: "stopped"}
HIDDEN = "hidden"  # of a Model3D: one that is not on the page stays empty when it comes
LOADING = "Loading"
FINISHING = "Writing the results"


class RunView:
    """The components, and what they show of the run in a folder."""

    def __init__(self, desk: Desk):
        self.desk = desk
        with gr.Column(scale=6, min_width=320, elem_id="run"):
            self.status = gr.HTML(EMPTY, elem_id="status")
            with gr.Row():
                self.stop = gr.Button("Stop", variant="stop", visible=False, size="sm")
                self.resume = gr.Button("Resume", variant="primary", visible=False, size="sm")
            self.preview = gr.Image(
                label="Preview", visible=False, interactive=False, height=320, buttons=["fullscreen"], elem_id="preview"
            )
            with gr.Row():
                self.mesh = gr.Model3D(
                    label="The mesh: drag to turn", visible=HIDDEN, interactive=False, height=380, min_width=280
                )
                self.video = gr.Video(
                    label="Video", visible=False, interactive=False, height=380, loop=True, autoplay=True, min_width=280
                )
            self.slider = gr.ImageSlider(
                label="Before | after", visible=False, interactive=False, max_height=420, type="filepath", format="png"
            )
            self.files = gr.HTML(visible=False, elem_id="files")
            with gr.Accordion("Command and log", open=False, visible=False) as self.details:
                self.command = gr.Code(
                    label="This command does the same in a terminal",
                    language="shell",
                    interactive=False,
                    wrap_lines=True,
                )
                self.log = gr.Textbox(label="Log", lines=8, max_lines=8, interactive=False)
        self.outputs = [
            self.status, self.stop, self.resume, self.preview, self.mesh, self.video, self.slider, self.files,
            self.details, self.command, self.log,
        ]  # fmt: skip

    def updates(self, viewed: str, sent: dict[str, Any]) -> tuple[list[Any], dict[str, Any]]:
        """New values for `outputs`, and what has been sent then; what this page has already stays as it is."""
        values, now = [], {}

        def send(name: str, stamp: Any, value: Callable[[], Any]) -> None:
            now[name] = (viewed, stamp)
            values.append(gr.skip() if sent.get(name) == now[name] else value())

        folder = self.desk.out / viewed if viewed else None
        job = self.desk.queue.of(folder) if folder else None
        past = history.read(folder) if folder else None
        made = results.of(folder) if folder else results.Results(None, None, None, ())
        active = job is not None and job.active
        if active or (past is not None and past.state == history.RUNNING):
            made = results.Results(None, None, None, ())  # of an earlier part, or half of them
        status = _status(self.desk, folder, job, past)
        can_resume = not active and past is not None and past.can_resume
        preview = progress.preview(folder) if folder and not made.files else None
        log = self.desk.log_of(folder) if folder else None
        said = progress.said(log) if log else ""
        command = shown_command(job.command) if job else ""

        send("status", status, lambda: status)
        stopping = job is not None and job.state == STOPPING
        send("stop", (active, stopping), lambda: gr.update(visible=active, value="Stop now" if stopping else "Stop"))
        send("resume", can_resume, lambda: gr.update(visible=can_resume))
        send("preview", _stamp(preview), lambda: _shown(preview))
        send("mesh", _stamp(made.mesh), lambda: _shown(made.mesh, HIDDEN))
        send("video", _stamp(made.video), lambda: _shown(made.video))
        send("slider", made.before_after and tuple(map(_stamp, made.before_after)), lambda: _slider(made.before_after))
        send("files", made.stamp, lambda: gr.update(value=_links(made.files), visible=bool(made.files)))
        send("details", bool(folder), lambda: gr.update(visible=bool(folder)))
        send("command", command, lambda: gr.update(value=command, visible=bool(command)))
        send("log", said, lambda: said)
        return values, now


def queue_line(desk: Desk) -> str:
    """What the server is doing, for the head of the page."""
    active = [job for job in desk.queue.jobs if job.active]
    if not active:
        return '<span class="lp-queue">No run in progress</span>'
    waiting = sum(job.state == WAITING for job in active)
    running = ", ".join(f"“{html.escape(job.title[:60])}”" for job in active if job.state != WAITING)
    return f'<span class="lp-queue">In progress: {running or "none"}; {waiting} waiting</span>'


def _status(desk: Desk, folder: Path | None, job: Job | None, past: history.Past | None) -> str:
    if folder is None or (job is None and past is None):
        return EMPTY
    kind, title = (job.kind, job.title) if job else (past.kind, past.prompt)
    state = job.state if job else WORDS.get(past.state, past.state)
    line, bar = _line(desk, state, folder, job, past)
    head = f'<h2>{html.escape(title)}</h2><span class="lp-badge lp-{state}">{state}</span>'
    return f'<div class="lp-run"><div class="lp-head">{head}</div><p>{LABELS[kind]}: {line}</p>{bar}</div>'


def _line(desk: Desk, state: str, folder: Path, job: Job | None, past: history.Past | None) -> tuple[str, str]:
    """What the run is doing, in words, and its bar."""
    taken, total = past.steps if past else (0, 0)
    if state == WAITING:
        ahead = desk.queue.before(job)
        return f"waits for {ahead} {'run' if ahead == 1 else 'runs'} before it", "<progress></progress>"
    if state in (RUNNING, STOPPING):
        now = progress.of_log(desk.log_of(folder), job.offset if job else 0)
        if now is None and total and job is None:  # of a run from elsewhere, whose bar is not seen
            now = progress.Progress("Training", taken, total, None)
        if state == STOPPING:
            return "stops and saves after this step", "<progress></progress>"
        if now is None:
            return f"{LOADING} …", "<progress></progress>"
        stage = FINISHING if now.done == now.total else f"{now.stage}, {now.done} of {now.total}"
        left = "" if now.left is None or now.done == now.total else f", about {_duration(now.left)} left"
        bar = f'<progress value="{now.done}" max="{now.total}" aria-label="Progress"></progress>'
        return f"{html.escape(stage)}{left}", bar
    if state == FAILED:
        return f'<strong class="lp-error" role="alert">{html.escape(job.error or "it failed")}</strong>', ""
    if state == DONE:
        return "finished" + (f", {total} steps" if total else ""), ""
    if state == STOPPED and past is None:
        return "stopped before its first step; nothing was saved", ""
    bar = progress.of_log(desk.log_of(folder))
    if bar is not None and bar.stage == progress.STAGES["train"]:  # the table has every fifth step
        taken = max(taken, bar.done)
    at = f"step {taken} of {total}" if total else ""
    saved = "saved; Resume continues it" if past is not None and past.can_resume else "what was made so far is kept"
    return f"stopped at {at}, {saved}" if at else f"stopped, {saved}", ""


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"


def _stamp(path: Path | None) -> tuple | None:
    return None if path is None else (str(path), path.stat().st_mtime_ns)


def _shown(path: Path | None, hidden: Any = False) -> Any:
    return gr.update(value=None if path is None else str(path), visible=hidden if path is None else True)


def _slider(pair: tuple[Path, Path] | None) -> Any:
    return gr.update(value=None if pair is None else tuple(map(str, pair)), visible=pair is not None)


def _links(files: tuple[Path, ...]) -> str:
    rows = [
        f'<li><a href="/gradio_api/file={quote(str(path))}" download="{html.escape(path.name)}">'
        f"{html.escape(path.name)}</a> <small>{shown_size(path.stat().st_size)}</small></li>"
        for path in files
        if path.exists()
    ]
    return f"<h3>Download</h3><ul>{''.join(rows)}</ul>"
