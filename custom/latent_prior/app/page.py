"""The page: a tab for each use, the history, and beside them the run that is looked at."""

from pathlib import Path
from typing import Any

import gradio as gr

from latent_prior import OptionError
from latent_prior.app import history, uploads
from latent_prior.app.desk import Desk
from latent_prior.app.run_view import WORDS, RunView, queue_line
from latent_prior.app.tabs import LABELS, LAYER, MASKED, Form, Tab, number

TITLE = "latent_prior"
COLUMNS = ("Prompt", "State", "What", "When", "Run")
CSS = """
.lp-title h1 { margin: 0; font-size: 1.5rem; } .lp-queue { opacity: .8; }
.lp-head { display: flex; gap: .75rem; align-items: center; flex-wrap: wrap; }
.lp-head h2 { margin: 0; font-size: 1.25rem; overflow-wrap: anywhere; }
.lp-run p { margin: .4rem 0; overflow-wrap: anywhere; }
.lp-run progress { width: 100%; height: .8rem; accent-color: #6d4aff; }
.lp-badge { padding: .1rem .6rem; border-radius: 1rem; font-size: .85rem; color: #fff; background: #5b5f6b; }
.lp-running, .lp-stopping { background: #5a37e0; } .lp-done { background: #1b7a3d; } .lp-failed { background: #b3261e; }
.lp-error { color: #b3261e; } .dark .lp-error { color: #ff8a80; }
.lp-empty { padding: 3rem 1rem; text-align: center; border: 1px dashed #8888; border-radius: .75rem; }
#files ul { columns: 16rem; padding-left: 1.2rem; margin: .3rem 0; } #files li { overflow-wrap: anywhere; }
#files a { text-decoration: underline; }
@media (max-width: 900px) {
  #forms .tab-container button { padding: 0 .4rem; font-size: .85rem; }
  #files ul { columns: auto; }
}
"""
# on a narrow screen the run is below the form
TO_RUN = "() => { if (innerWidth < 900) document.getElementById('run').scrollIntoView({behavior: 'smooth'}) }"
CLOSED = {"api_visibility": "private"}  # of every event: nothing is offered to other programs


def theme() -> Any:
    """With fonts of the system, since others would come from another host."""
    fonts = ["system-ui", "sans-serif"]
    return gr.themes.Soft(primary_hue="violet", font=fonts, font_mono=["ui-monospace", "monospace"])


def build(desk: Desk, tabs: tuple[Tab, ...]) -> gr.Blocks:
    """The page of a desk."""
    with gr.Blocks(title=TITLE, analytics_enabled=False, delete_cache=(3600, 24 * 3600)) as page:
        viewed, sent = gr.State(""), gr.State({})
        with gr.Row(elem_classes="lp-title"):
            gr.HTML("<h1>latent_prior</h1>")
            line = gr.HTML(queue_line(desk), elem_id="queue")
        with gr.Row(equal_height=False):
            with gr.Column(scale=5, min_width=320), gr.Tabs(elem_id="forms"):
                forms = [_Form(desk, tab) for tab in tabs]
                table = _history()
            view = RunView(desk)
        outputs = [sent, line, table, *view.outputs]

        def tick(viewed: str, sent: dict[str, Any]) -> list[Any]:
            values, now = view.updates(viewed, sent)
            now["line"], now["table"] = queue_line(desk), _rows(desk)
            head = [gr.skip() if sent.get(name) == now[name] else now[name] for name in ("line", "table")]
            return [now, *head, *values]

        def opened() -> str:
            newest = desk.newest()
            return "" if newest is None else str(newest.relative_to(desk.out))

        quiet: dict[str, Any] = {"show_progress": "hidden", "queue": False, **CLOSED}
        page.load(opened, None, viewed, **quiet).then(tick, [viewed, sent], outputs, **quiet)
        gr.Timer(1.0).tick(tick, [viewed, sent], outputs, **quiet)
        for form in forms:
            started = form.start.click(form.started, form.inputs, viewed, show_progress="hidden", **CLOSED)
            started.success(tick, [viewed, sent], outputs, js=None, **quiet).then(None, js=TO_RUN, **CLOSED)

        def stop(viewed: str) -> None:
            job = desk.queue.of(desk.out / viewed) if viewed else None
            if job is not None:
                desk.queue.stop(job)

        def resume(viewed: str) -> None:
            with _Told():
                desk.resume(desk.out / viewed)

        def choose(event: gr.SelectData) -> Any:
            chosen = str(event.row_value[-1])
            # what a browser names is looked up among the runs, and never opened
            known = {str(past.folder.relative_to(desk.out)) for past in desk.past()}
            return chosen if chosen in known else gr.skip()

        view.stop.click(stop, viewed, None, **quiet).then(tick, [viewed, sent], outputs, **quiet)
        view.resume.click(resume, viewed, None, **quiet).then(tick, [viewed, sent], outputs, **quiet)
        chosen = table.select(choose, None, viewed, **quiet).then(tick, [viewed, sent], outputs, **quiet)
        chosen.then(None, js=TO_RUN, **CLOSED)
    return page


class _Told:
    """In the block, what a user can mend becomes a message on the page."""

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if isinstance(error, OptionError):
            raise gr.Error(str(error), duration=None, print_exception=False) from None


class _Form:
    """The form of a tab."""

    def __init__(self, desk: Desk, tab: Tab):
        self.desk, self.tab = desk, tab
        is_edit = tab.kind == history.EDIT
        with gr.Tab(tab.label, id=tab.kind):
            gr.Markdown(tab.intro)
            self.kept = gr.State({})
            self.mode, self.canvas = gr.State(LAYER), None
            if tab.upload:
                self._upload()
            if is_edit:
                self.mode = gr.Radio([LAYER, MASKED], value=LAYER, label="How", info="Only the second needs a mask")
            self.prompt = gr.Textbox(
                label="Prompt", lines=1, max_lines=4, placeholder=f"for example: {tab.examples[0]}"
            )
            gr.Examples([[text] for text in tab.examples], self.prompt, label="Examples", api_visibility="private")
            with gr.Row():
                own = f"{tab.steps}, or 50" if is_edit else str(tab.steps)
                self.steps = gr.Textbox(label="Steps", placeholder=own, min_width=90)
                self.seed = gr.Textbox(label="Seed", placeholder="0", min_width=90)
                self.scale = gr.Textbox(label="Guidance", placeholder="default", min_width=90)
            self.start = gr.Button("Start", variant="primary")
            with gr.Accordion("All settings", open=False):
                self.negative = gr.Textbox(label="Negative prompt", placeholder="what not to make")
                self.checkpoint = gr.Textbox(
                    label="Checkpoint",
                    placeholder="pocket, or a diffusers folder, a .safetensors file, a hub id",
                    info=None if desk.local else "Only in an app that listens on this machine alone",
                    interactive=desk.local,
                )
                self.settings = gr.Code(
                    tab.settings(),
                    language="yaml",
                    label=f"The config {tab.name}.yaml" + (": edit it as you like" if desk.local else ""),
                    interactive=desk.local,
                    max_lines=24,
                )
        self.inputs = [
            self.prompt, self.negative, self.steps, self.seed, self.scale, self.checkpoint, self.settings, self.kept,
            self.mode, *([self.canvas] if self.canvas else []),
        ]  # fmt: skip

    def _upload(self) -> None:
        label = f"{self.tab.upload.capitalize()}{'' if self.tab.needed else ' (optional)'}"
        file = gr.File(label=label, height=150, elem_id=f"{self.tab.kind}-file")
        # with the name that the client gave it, which is looked at and not used
        file.preprocess = lambda sent: None if sent is None else {"path": sent.path, "name": sent.orig_name or ""}
        note = gr.Markdown(self.tab.hint)
        outputs = [self.kept, note]
        if self.tab.kind == history.EDIT:
            # hidden with its column: gradio makes a component anew whose own properties change, without our preprocess
            with gr.Column(visible=False) as self.around:
                self.canvas = gr.ImageEditor(
                    type="filepath",
                    sources=(),
                    transforms=(),
                    layers=False,
                    brush=gr.Brush(colors=["#ff2d87"], default_color="#ff2d87", color_mode="fixed"),
                    label="Mask: paint where to edit",
                    height=360,
                    buttons=[],
                    elem_id="canvas",
                )
                self.canvas.preprocess = uploads.raw_layers(self.canvas)
            outputs += [self.canvas, self.around]
        file.upload(self._keep, file, outputs, show_progress="minimal", **CLOSED)
        file.clear(self._forget, None, outputs, show_progress="hidden", **CLOSED)

    def _keep(self, sent: dict[str, str]) -> list[Any]:
        more: dict[str, Any] = {}
        try:
            source, name = Path(sent["path"]), sent["name"]
            if self.tab.upload == "generator":
                path, line, more["z_dim"] = self.desk.uploads.generator(source, name)
            else:
                path, line = getattr(self.desk.uploads, self.tab.upload)(source, name)
        except OptionError as error:
            gr.Warning(str(error), duration=None, title="Refused")
            return [{}, f"**Refused:** {error}", *self._forget()[2:]]
        canvas = []
        if self.canvas is not None:
            under = str(self.desk.uploads.canvas(path))
            canvas = [{"background": under, "layers": [], "composite": None}, gr.update(visible=True)]
        return [{"path": str(path), **more}, f"Ready: {line}", *canvas]

    def _forget(self) -> list[Any]:
        canvas = [] if self.canvas is None else [None, gr.update(visible=False)]
        return [{}, self.tab.hint, *canvas]

    def started(self, *given: Any) -> str:
        """Queue the run of `inputs`; returns its folder, below the outputs folder."""
        *texts, kept, mode = given[:9]
        prompt, negative, steps, seed, scale, checkpoint, settings = (text or "" for text in texts)
        layers = given[9] if self.canvas else []
        with _Told():
            upload = Path(kept["path"]) if kept else None
            mask = self.desk.uploads.mask(layers, upload) if layers and upload else None
            numbers = number("steps", steps, int), number("seed", seed, int), number("guidance", scale, float)
            files = {"upload": upload, "z_dim": kept.get("z_dim"), "mask": mask}
            form = Form(prompt, negative, *numbers, checkpoint, mode=mode, **files)
            job = self.desk.start(self.tab, form, settings)
        return str(job.folder.relative_to(self.desk.out))


def _history() -> gr.Dataframe:
    with gr.Tab("History", id="history"):
        gr.Markdown("All runs in the outputs folder, the newest first. Click one to look at it or to resume it.")
        return gr.Dataframe(
            headers=list(COLUMNS), datatype="str", interactive=False, wrap=True, show_label=False, max_height=600,
            buttons=[], elem_id="history", column_widths=["150px", "90px", "100px", "140px", "220px"],
        )  # fmt: skip


def _rows(desk: Desk) -> list[list[str]]:
    states = {job.folder: job.state for job in desk.queue.jobs}
    return [
        [
            past.prompt,
            states.get(past.folder, WORDS.get(past.state, past.state)),
            LABELS[past.kind],
            history.ago(past.when),
            str(past.folder.relative_to(desk.out)),
        ]
        for past in desk.past()
    ]
