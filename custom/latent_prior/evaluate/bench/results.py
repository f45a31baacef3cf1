"""A run's figures as stored between evaluations: one JSON file per run."""

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from latent_prior.files import write_text


@dataclass(frozen=True)
class Result:
    """One run's figures by name, as declared by the evaluation; empty if it could not be measured."""

    label: str
    prompt: str
    seed: int | None  # None for a reference
    held_out: bool | None = None  # of the prior's training; None outside the pocket world
    figures: Mapping[str, Any] = field(default_factory=dict)
    seconds: float | None = None
    peak_bytes: int | None = None
    error: str | None = None
    run: str = ""  # the run folder
    state: str = ""  # fingerprint of the measured output
    settings: str = ""  # digest of the measurement settings

    def figure(self, name: str) -> Any:
        """A figure, or a measurement of the launch, by name; None if there is none."""
        return self.figures.get(name, getattr(self, name, None))

    def record(self) -> dict[str, Any]:
        """As one flat row."""
        row = {}
        for name, value in dataclasses.asdict(self).items():
            row |= value if name == "figures" else {name: value}
        return row

    def write(self, path: Path) -> None:
        """Write the file atomically."""
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, json.dumps(dataclasses.asdict(self), indent=2, allow_nan=False) + "\n")

    @staticmethod
    def read(path: Path) -> "Result | None":
        """None if the file does not exist, is broken or has another version."""
        if not path.is_file():
            return None
        try:
            values = json.loads(path.read_text())
        except (ValueError, RecursionError):  # what is not JSON, or not text
            return None
        known = isinstance(values, dict) and set(values) == {part.name for part in dataclasses.fields(Result)}
        return Result(**values) if known and isinstance(values["figures"], dict) else None
