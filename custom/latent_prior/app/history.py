"""The runs below the outputs folder, whoever made them, read from their folders alone."""

import functools
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import yaml

from latent_prior.app import progress
from latent_prior.files import lock, shown
from latent_prior.runs import folder as run_folder

TEXT, TEXTURE, EDIT, STYLEGAN, OTHER = "text", "texture", "edit", "stylegan", "other"
LARGEST = 1 << 20  # bytes of a config
# a run's last results, by its system
LAST = {
    "latent-prior-system": "save/it*-export/[!.]*",
    "stylegan-adaptation-system": "save/generator.safetensors",
    "layered-editing-system": "save/composite.png",
}
DONE, RUNNING, INTERRUPTED = "done", "running", "interrupted"


@dataclass(frozen=True)
class Past:
    """A run of which there is a folder.

    steps: taken, and of how many; 0, 0 where a command has none.
    """

    folder: Path
    kind: str
    prompt: str
    when: float  # seconds since the epoch
    state: str
    steps: tuple[int, int] = (0, 0)

    @property
    def can_resume(self) -> bool:
        """Whether `latent-prior resume` has something to go on from."""
        return self.state == INTERRUPTED and any(self.folder.glob("ckpts/[!.]*.ckpt"))


def below(out: Path, most: int = 200) -> list[Past]:
    """The newest runs in `out`/<experiment>/<run>, newest first."""
    marks = [*out.glob(f"*/*/configs/{run_folder.PARSED}"), *out.glob(f"*/*/{run_folder.ORIGIN}")]
    dated = []
    for mark in marks:
        try:
            dated.append((mark.stat().st_mtime, mark))
        except OSError:  # removed meanwhile
            continue
    found = [read(mark.parent.parent if mark.name == run_folder.PARSED else mark.parent) for _, mark in sorted(dated)]
    return [past for past in reversed(found) if past is not None][:most]


def read(folder: Path) -> Past | None:
    """The run in a folder; None if there is none, or its config cannot be read."""
    config = folder / "configs" / run_folder.PARSED
    try:
        if config.is_file():
            return _experiment(folder, config, _parsed(config, config.stat().st_mtime_ns))
        return _by_a_command(folder)
    except (OSError, ValueError, TypeError, AttributeError, KeyError, yaml.YAMLError, RecursionError):
        return None


def _experiment(folder: Path, config: Path, cfg: dict[str, Any]) -> Past:
    system = cfg["system"]
    prompt = (system.get("prompt_processor") or {}).get("prompt")
    kinds = {"stylegan-adaptation-system": STYLEGAN, "layered-editing-system": EDIT, "latent-prior-system": TEXT}
    kind = kinds.get(cfg["system_type"], OTHER)
    if system.get("geometry_type") == "textured-mesh":
        kind = TEXTURE
    taken, total = progress.steps_logged(folder), int((cfg.get("trainer") or {}).get("max_steps") or 0)
    last = LAST.get(cfg["system_type"])
    ended = any(folder.glob(last)) if last else 0 < total <= taken
    state = RUNNING if _in_use(folder) else DONE if ended else INTERRUPTED
    title = shown(str(prompt or folder.name), 200)
    return Past(folder, kind, title, config.stat().st_mtime, state, (taken, total))


def _by_a_command(folder: Path) -> Past:
    """Of `edit-masked` or `paint`, which write their origin once there is something to see."""
    origin = folder / run_folder.ORIGIN
    with origin.open() as file:
        given = json.loads(file.read(LARGEST))["arguments"]
    state = RUNNING if _in_use(folder) else DONE
    kind = EDIT if "mask" in given else OTHER
    return Past(folder, kind, shown(str(given["prompt"]), 200), origin.stat().st_mtime, state)


@functools.lru_cache(maxsize=512)
def _parsed(config: Path, changed: int) -> dict[str, Any]:
    """The config, as of the time of its last change."""
    with config.open(encoding="utf-8") as file:
        return yaml.load(file.read(LARGEST), getattr(yaml, "CSafeLoader", yaml.SafeLoader))


def _in_use(folder: Path) -> bool:
    """Whether a process on this machine holds the folder's lock. Only looked at: taking it could refuse a run."""
    try:
        owner = json.loads((folder / lock.NAME).read_text()[:LARGEST])
        since = time.mktime(time.strptime(owner["since"], "%Y-%m-%d %H:%M:%S"))
        # a later process may have the number of one that was killed
        return psutil.Process(int(owner["process"])).create_time() < since + 2
    except (OSError, ValueError, KeyError, TypeError, psutil.Error):
        return False


def ago(when: float) -> str:
    """A time as a day and a minute."""
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(when))
