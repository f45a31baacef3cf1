"""The commands that forms make, read by the parsers of the commands themselves."""

import dataclasses
from pathlib import Path

import pytest
from latent_prior import OptionError, cli
from latent_prior.app.desk import Desk
from latent_prior.app.queue import Queue
from latent_prior.app.tabs import LAYER, MASKED, TABS, Form, number

TEXT, TEXTURE, EDIT, STYLEGAN = TABS
OUT = Path("/some where/out")


def parsed(tab, form):
    """The command's own reading of what the form makes: its arguments, and its overrides as a dict."""
    from latent_prior import host

    command, folder = tab.of_form(form, OUT, "name@1")
    args = cli.parser(command[1:]).parse_args(list(command[1:]))
    overrides = getattr(args, "overrides", [])
    cfg = host.merge_config(cli_args=overrides) if overrides else None
    return args, cfg, folder


@pytest.mark.parametrize("prompt", ["a red mug", "--help", "a=b", "-x", 'it\'s "quoted" ${seed} #1'])
def test_any_prompt(prompt):
    args, cfg, folder = parsed(TEXT, Form(prompt, "--negative", 10, 3, 2.5, "my prior: 1"))
    assert (args.prompt, args.negative_prompt, args.config) == (prompt, "--negative", "latent_prior")
    assert (cfg.trainer.max_steps, cfg.seed, cfg.system.guidance.guidance_scale) == (10, 3, 2.5)
    assert cfg.system.guidance.pretrained_model_name_or_path == "my prior: 1"
    assert cfg.system.prompt_processor.pretrained_model_name_or_path == "my prior: 1"
    assert folder == Path(cfg.exp_root_dir, cfg.name, cfg.tag) == OUT / "latent_prior" / "name@1"


def test_texture_and_stylegan():
    args, cfg, _ = parsed(TEXTURE, Form("a red mug", upload=OUT / "mesh.glb"))
    assert (args.mesh, args.prompt, args.config) == (OUT / "mesh.glb", "a red mug", "pocket_mesh_texture")
    args, cfg, _ = parsed(STYLEGAN, Form("a red mug", upload=OUT / "generator.pt", z_dim=64))
    assert (cfg.system.pretrained_generator, cfg.data.z_dim) == (str(OUT / "generator.pt"), 64)
    assert "pretrained_generator" not in parsed(STYLEGAN, Form("a red mug"))[1].get("system", {})


def test_edits():
    form = Form("a red mug", upload=OUT / "picture.png")
    args, cfg, _ = parsed(EDIT, form)
    assert cfg.data == {"image": str(OUT / "picture.png")}
    masked = dataclasses.replace(form, mask=OUT / "mask.png")
    assert parsed(EDIT, masked)[1].data.mask == str(OUT / "mask.png")
    args, _, folder = parsed(EDIT, dataclasses.replace(masked, mode=MASKED, steps=20, checkpoint="mine"))
    assert (args.image, args.mask, args.steps, args.checkpoint, args.clip) == (
        str(OUT / "picture.png"),
        str(OUT / "mask.png"),
        20,
        "mine",
        "none",
    )
    assert Path(args.out) == folder == OUT / "edit_masked" / "name@1"


@pytest.mark.parametrize(
    ("tab", "form", "message"),
    [
        (TEXT, Form("  "), "the prompt is empty"),
        (TEXT, Form("a", steps=0), "steps"),
        (TEXTURE, Form("a"), "no mesh yet"),
        (EDIT, Form("a", mode=LAYER), "no picture yet"),
        (EDIT, Form("a", mode=MASKED, upload=OUT), "paint where the edit goes"),
    ],
)
def test_what_is_missing(tab, form, message):
    with pytest.raises(OptionError, match=message):
        tab.of_form(form, OUT, "name")


def test_numbers():
    assert (number("seed", "", int), number("seed", " 7 ", int), number("scale", "2.5", float)) == (None, 7, 2.5)
    for text in ("-1", "1.5", "many", "nan", "inf", "99999999999"):
        with pytest.raises(OptionError, match="seed"):
            number("seed", text, int)


@pytest.fixture
def desk(tmp_path):
    """A desk whose queue starts nothing."""
    queue = Queue()
    queue.close()
    return Desk(tmp_path, queue, 1_000_000)


def test_settings_that_are_edited_are_kept_and_used(desk):
    text = TEXT.settings() + "\n# changed\n"
    job = desk.start(TEXT, Form("a red mug"), text)
    args = cli.parser(job.command[1:]).parse_args(list(job.command[1:]))
    assert Path(args.config).read_text() == text and Path(args.config).is_relative_to(desk.uploads.folder)
    assert not [word for word in args.overrides if word.startswith("trainer.")]  # the text's own
    plain = desk.start(TEXT, Form("a red mug"), TEXT.settings())
    assert "--config" not in plain.command and plain.folder != job.folder


def test_others_than_this_machine_name_no_paths(desk):
    desk.local = False
    for form, text in ((Form("a", checkpoint="/etc/passwd"), ""), (Form("a"), "exp_root_dir: /etc")):
        with pytest.raises(OptionError, match="listens on this machine alone"):
            desk.start(TEXT, form, text)
    assert desk.start(TEXT, Form("a red mug"), TEXT.settings()).title == "a red mug"


def test_resume_needs_something_to_go_on_from(desk, tmp_path):
    with pytest.raises(OptionError, match="nothing to continue"):
        desk.resume(tmp_path)


def test_steps_are_those_of_the_configs():
    from omegaconf import OmegaConf

    for tab in TABS:
        assert OmegaConf.create(tab.settings()).trainer.max_steps == tab.steps
