"""The tabs of the app, as data, and the command that each makes of what its form holds."""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from latent_prior import OptionError
from latent_prior.app import history
from latent_prior.files import slug
from latent_prior.runs.folder import config_path

LAYER, MASKED = "A layer over the picture", "Only inside the mask"
PREVIEWS = 12  # of a run on its way
PLAIN = re.compile(r"[\w./@+-]*[A-Za-z_/][\w./@+-]*")  # a value that YAML reads as this very text
MOST = 2**32  # of a number in a form


@dataclass(frozen=True)
class Form:
    """What is filled in. None and "" stand for the config's own.

    config: the shipped one's name, or the file of an edited one. upload: the mesh, picture or generator.
    """

    prompt: str
    negative: str = ""
    steps: int | None = None
    seed: int | None = None
    scale: float | None = None
    checkpoint: str = ""
    config: str = ""
    edited: bool = False
    upload: Path | None = None
    z_dim: int | None = None
    mask: Path | None = None
    mode: str = LAYER


@dataclass(frozen=True)
class Tab:
    """One tab. steps: of its config. upload: what is uploaded, and for what; needed: without it nothing starts."""

    kind: str
    label: str
    intro: str
    config: str
    steps: int
    examples: tuple[str, ...]
    command: Callable[["Tab", Form, Path, str], list[str]]
    upload: str = ""
    hint: str = ""
    needed: bool = False

    @property
    def name(self) -> str:
        """Of the folder that its runs lie in."""
        return Path(self.config).stem

    def settings(self) -> str:
        """The text of its config."""
        return config_path(self.config).read_text(encoding="utf-8")

    def of_form(self, form: Form, out: Path, name: str) -> tuple[tuple[str, ...], Path]:
        """The command for a form, as after `python -m`, and the folder of its run. OptionError for what is missing."""
        if not form.prompt.strip():
            raise OptionError.because("the prompt is empty: say what to make")
        if self.needed and form.upload is None:
            raise OptionError.because(f"there is no {self.upload} yet: upload one first")
        if form.steps == 0:
            raise OptionError("steps", 0, "at least 1")
        masked = self.kind == history.EDIT and form.mode == MASKED
        folder = out / ("edit_masked" if masked else self.name) / name
        make = _masked if masked else self.command
        return ("latent_prior", *make(self, form, out, name)), folder


def run_name(prompt: str, stamp: str) -> str:
    """The name of a run's folder."""
    return f"{slug(prompt)}@{stamp}"


def number(name: str, text: str, kind: type[int] | type[float]) -> Any:
    """A number as it was typed; None for an empty text. OptionError for anything else."""
    if not text.strip():
        return None
    try:
        found = kind(text)
    except ValueError:
        found = None
    if found is None or not 0 <= found < MOST:
        raise OptionError(name, text, f"{'a whole number' if kind is int else 'a number'} of at least 0, or nothing")
    return found


def _run(tab: Tab, form: Form, out: Path, name: str, command: list[str], more: dict[str, object]) -> list[str]:
    """A command that runs a config: its flags, its own positional arguments, and overrides."""
    config = form.config or tab.config
    flags = [] if (command[0], config) in DEFAULTS else ["--config", config]
    if form.negative.strip():
        flags.append(f"--negative-prompt={form.negative}")
    steps = form.steps or tab.steps
    values: dict[str, object] = {"exp_root_dir": out, "name": tab.name, "tag": name, "use_timestamp": False, **more}
    if not form.edited or form.steps is not None:
        values |= {"trainer.max_steps": steps, "trainer.val_check_interval": max(1, steps // PREVIEWS)}
    if form.seed is not None:
        values["seed"] = form.seed
    if form.scale is not None:
        values["system.guidance.guidance_scale"] = form.scale
    if form.checkpoint.strip():
        for owner in ("guidance", "prompt_processor"):
            values[f"system.{owner}.pretrained_model_name_or_path"] = form.checkpoint.strip()
    overrides = [f"{key}={_value(value)}" for key, value in values.items()]
    # what begins with a dash would be a flag
    positional = [*(["--"] if form.prompt.startswith("-") else []), *command[1:], form.prompt]
    return [command[0], *flags, *positional, *overrides]


def _value(value: object) -> str:
    """A value as an override of a config holds it."""
    if isinstance(value, bool | int | float):
        return json.dumps(value)
    text = str(value)
    return text if PLAIN.fullmatch(text) else json.dumps(text.replace("${", "\\${"), ensure_ascii=False)


DEFAULTS = {("generate", "latent_prior"), ("texture", "pocket_mesh_texture")}


def _text(tab: Tab, form: Form, out: Path, name: str) -> list[str]:
    return _run(tab, form, out, name, ["generate"], {})


def _texture(tab: Tab, form: Form, out: Path, name: str) -> list[str]:
    return _run(tab, form, out, name, ["texture", str(form.upload)], {})


def _layer(tab: Tab, form: Form, out: Path, name: str) -> list[str]:
    pictures: dict[str, object] = {"data.image": form.upload}
    if form.mask is not None:
        pictures["data.mask"] = form.mask
    return _run(tab, form, out, name, ["generate"], pictures)


def _stylegan(tab: Tab, form: Form, out: Path, name: str) -> list[str]:
    generator: dict[str, object] = {}
    if form.upload is not None:
        generator = {"system.pretrained_generator": form.upload, "data.z_dim": form.z_dim or 512}
    return _run(tab, form, out, name, ["generate"], generator)


def _masked(tab: Tab, form: Form, out: Path, name: str) -> list[str]:
    """`edit-masked`, which reads no config."""
    if form.mask is None:
        raise OptionError.because("there is no mask yet: paint where the edit goes, or choose a layer over the picture")
    flags = {
        "--mask": form.mask,
        "--negative-prompt": form.negative.strip() or None,
        "--steps": form.steps,
        "--seed": form.seed,
        "--guidance-scale": form.scale,
        "--checkpoint": form.checkpoint.strip() or None,
        "--clip": "none" if form.checkpoint.strip() else None,  # pocket's CLIP knows the pocket world alone
        "--out": out / "edit_masked" / name,
    }
    given = [f"{flag}={value}" for flag, value in flags.items() if value is not None]
    return ["edit-masked", str(form.upload), f"--prompt={form.prompt}", *given]


TABS = (
    Tab(
        history.TEXT,
        "Text to 3D",
        "A coloured mesh from a prompt.",
        "latent_prior",
        250,
        ("a red mug", "a golden duck", "a striped blue mug", "a checkered green chair", "a purple rocket"),
        _text,
    ),
    Tab(
        history.TEXTURE,
        "Texture",
        "New colours for a mesh of yours; its shape stays as it is.",
        "pocket_mesh_texture",
        200,
        ("a striped red mug", "a golden duck", "a checkered blue chair"),
        _texture,
        upload="mesh",
        hint="GLB, glTF, OBJ, PLY, STL or OFF, in one file",
        needed=True,
    ),
    Tab(
        history.EDIT,
        "Edit",
        "Changes what a picture shows: by a layer painted over it, or only inside a mask.",
        "pocket_layered_editing",
        400,
        ("a golden mug", "a red mug", "a striped blue duck"),
        _layer,
        upload="picture",
        hint="PNG, JPEG, WebP, TIFF, BMP, GIF, AVIF or PPM",
        needed=True,
    ),
    Tab(
        history.STYLEGAN,
        "StyleGAN",
        "Turns a generator of pictures into one of something else. Without an upload it starts from the pocket StyleGAN, "
        "which draws mugs.",
        "pocket_stylegan",
        300,
        ("a golden mug", "a turquoise mug", "a striped red mug"),
        _stylegan,
        upload="generator",
        hint="StyleGAN2: .safetensors, NVIDIA's .pkl or rosinality's .pt. Leave empty for the pocket StyleGAN",
    ),
)
LABELS = {tab.kind: tab.label for tab in TABS} | {history.OTHER: "Run"}
