"""The page of a run: what came out, how it came about, and how to repeat it."""

import json
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from latent_prior import OptionError
from latent_prior.report import NAME, embedding, viewer
from latent_prior.runs import curves, launches
from latent_prior.runs import folder as run_folder

MOST_STEPS = 24  # pictures on the way; of more, these many evenly spread
FILM_BYTES = 1_500_000
MODES = {"train": "training", "validate": "validation"}  # in words
ON_THE_WAY = re.compile(r"it(\d+)-.*\.png")
# what a run writes of its end: file in save/, and what it shows
FINAL = {
    "edit.rgba.png": "the layer",
    "alpha.png": "its alpha",
    "screen.png": "the layer over green",
    "samples.png": "samples, best first",
    "gradients.png": "what each term pulls at",
    "variants.png": "the variants",
}


@dataclass(frozen=True)
class Picture:
    """A picture as a data URI, and what it shows."""

    source: str
    caption: str


@dataclass(frozen=True)
class Page:
    """Everything that the template shows; what is empty is left out."""

    title: str
    kind: str  # the run's name
    mesh: str | None = None  # the viewer's page
    mesh_file: str = ""  # where the mesh lies, relative to the page
    film: str | None = None
    film_file: str = ""
    before: Picture | None = None
    after: Picture | None = None
    final: list[Picture] = field(default_factory=list)
    steps: list[Picture] = field(default_factory=list)
    curves: str | None = None  # SVG
    settings: list[tuple[str, str, str]] = field(default_factory=list)  # key, the config's value, the run's
    facts: list[tuple[str, str]] = field(default_factory=list)
    versions: list[tuple[str, str]] = field(default_factory=list)
    command: str = ""
    files: list[str] = field(default_factory=list)  # relative to the page


def is_run(folder: Path) -> bool:
    """Whether the folder is that of one run: of an experiment, or of an editor's command with its origin.json."""
    return (folder / "configs" / run_folder.PARSED).is_file() or (folder / run_folder.ORIGIN).is_file()


def write(folder: Path) -> Path:
    """Write the run's page into its folder; returns its path."""
    page = _of_experiment(folder) if (folder / "configs").is_dir() else _of_editor(folder)
    return embedding.write_page(folder / NAME, "run.html.j2", {"page": page})


def _of_experiment(folder: Path) -> Page:
    from latent_prior import host

    cfg = host.read_config(folder / "configs" / run_folder.PARSED)
    origin = _read_origin(folder / "configs" / run_folder.ORIGIN)
    save = folder / "save"
    return Page(
        title=str(host.select(cfg, "system.prompt_processor.prompt") or folder.name),
        kind=_config_name(folder) or str(host.select(cfg, "name") or ""),
        **_pictures(folder, save),
        steps=list(_on_the_way(save)),
        curves=curves.svg(folder / "csv_logs"),
        settings=_settings(folder),
        facts=[
            *(("Started", str(launch.get("began", "–"))) for launch in launches.read(folder)[:1]),
            ("Steps", _steps(folder, host.select(cfg, "trainer.max_steps"))),
            ("Seed", str(origin.get("seed", "–"))),
            *((f"Time of {MODES.get(mode, mode)}", _minutes(time)) for mode, time in launches.seconds(folder).items()),
            ("Host", str(origin.get("host", "–"))),
            ("Threads", str(origin.get("threads", "–"))),
        ],
        **_provenance(origin),
        files=[str(path.relative_to(folder)) for path in run_folder.products(folder)],
    )


def _of_editor(folder: Path) -> Page:
    origin = _read_origin(folder / run_folder.ORIGIN)
    arguments = origin.get("arguments") or {}
    shown = ((str(key).replace("_", " ").capitalize(), value) for key, value in arguments.items())
    return Page(
        title=str(arguments.get("prompt") or folder.name),
        kind=folder.parent.name,
        **_pictures(folder, folder),
        facts=[(key, str(value)) for key, value in shown if value not in (None, "", False) and key != "Prompt"],
        **_provenance(origin),
        files=[str(path.relative_to(folder)) for path in sorted(folder.rglob("[!.]*")) if path.is_file()],
    )


def _pictures(folder: Path, save: Path) -> dict[str, Any]:
    """The mesh, the film, before and after, and the pictures of the end."""
    from latent_prior.meshes.files import newest_mesh

    mesh = newest_mesh(folder, (".glb",))
    films = sorted(save.glob("[!.]*.mp4"), key=lambda path: path.stat().st_mtime)
    pair = dict(zip(("before", "after"), run_folder.before_after(folder) or (), strict=False))
    return {
        "mesh": mesh and viewer.page(mesh),
        "mesh_file": str(mesh.relative_to(folder)) if mesh else "",
        "film": embedding.film(films[-1], FILM_BYTES) if films else None,
        "film_file": str(films[-1].relative_to(folder)) if films else "",
        **{name: Picture(embedding.picture(path), name) for name, path in pair.items()},
        "final": [
            Picture(embedding.picture(save / name), caption)
            for name, caption in FINAL.items()
            if (save / name).is_file()
        ],
    }


def _on_the_way(save: Path) -> Iterator[Picture]:
    """The pictures of validations, in the order of their steps."""
    found = [(int(match[1]), path) for path in save.glob("it*-*.png") if (match := ON_THE_WAY.fullmatch(path.name))]
    found.sort(key=lambda item: (item[0], item[1].name))
    count = min(MOST_STEPS, len(found))
    for i in range(count):
        step, path = found[round(i * (len(found) - 1) / max(1, count - 1))]
        yield Picture(embedding.picture(path, 640), f"step {step:,}")


def _config_name(folder: Path) -> str:
    return ", ".join(path.stem.removeprefix("raw-") for path in sorted((folder / "configs").glob("raw-*.yaml")))


def _settings(folder: Path) -> list[tuple[str, str, str]]:
    """What differs from the config that the run was started with: key, the config's value, the run's."""
    from latent_prior import host

    raw = sorted((folder / "configs").glob("raw-*.yaml"))
    if not raw:
        return []
    try:
        given = _flat(host.config_to_primitive(host.merge_config(*map(str, raw)), resolve=False))
    except OptionError:  # a config of another version
        return []
    own = _flat(host.config_to_primitive(host.read_config(run_folder.config_of(folder)), resolve=False))
    ignored = ("exp_root_dir", "tag", "timestamp", "use_timestamp", "name", "n_gpus", "resume")
    keys = [key for key in dict.fromkeys([*given, *own]) if key not in ignored and given.get(key) != own.get(key)]
    return [(key, _shown(given.get(key)), _shown(own.get(key))) for key in keys]


def _flat(values: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(values, dict) or not values:
        return {prefix: values}
    found: dict[str, Any] = {}
    for key, value in values.items():
        found |= _flat(value, f"{prefix}.{key}" if prefix else str(key))
    return found


def _shown(value: Any) -> str:
    return "–" if value is None else value if isinstance(value, str) else json.dumps(value)


def _steps(folder: Path, most: Any) -> str:
    done = run_folder.last_step(folder)
    return f"{done:,} of {most:,}" if isinstance(most, int) and done else "–" if not done else f"{done:,}"


def _minutes(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.1f} min"


def _read_origin(path: Path) -> dict[str, Any]:
    try:
        origin = json.loads(path.read_text())
    except (OSError, ValueError, RecursionError):
        return {}
    return origin if isinstance(origin, dict) else {}


def _provenance(origin: dict[str, Any]) -> dict[str, Any]:
    versions, command = origin.get("versions"), origin.get("command")
    words = [str(word) for word in command] if isinstance(command, list) else []
    return {
        "versions": [(name, version or "–") for name, version in versions.items()]
        if isinstance(versions, dict)
        else [],
        "command": _repeating(words),
    }


def _repeating(words: list[str]) -> str:
    """The command line of a run, with the program by the name that it is called by."""
    if not words:
        return ""
    program = Path(words[0])
    if program.name == "__main__.py":
        start = "python -m latent_prior"
    elif program.name == "launch.py":
        start = "python launch.py"
    else:
        start = program.name
    return " ".join([start, *map(shlex.quote, words[1:])])
