"""How long a run took: `configs/launches.json`, a record for every time it was started."""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from latent_prior import OptionError
from latent_prior.files import write_text

NAME = "launches.json"


class Launch:
    """One start of a run, and the seconds that each of its modes took."""

    def __init__(self) -> None:
        self._began = time.strftime("%Y-%m-%d %H:%M:%S")
        self._seconds: dict[str, float] = {}

    @contextmanager
    def part(self, mode: str, counts: Callable[[], bool] = lambda: False) -> Iterator[None]:
        """Times the block. One that an error or a signal ends changed nothing, unless it `counts` all the same."""
        start = time.monotonic()
        whole = False
        try:
            yield
            whole = True
        finally:
            if whole or counts():
                self._seconds[mode] = round(time.monotonic() - start, 2)

    def write(self, run: Path) -> None:
        """Append this launch to the run's record, if it did anything.

        What keeps it from being written is not an error: it would hide how the run itself ended.
        """
        if not self._seconds or not (run / "configs").is_dir():
            return
        record = {"began": self._began, "seconds": self._seconds}
        with suppress(OSError, OptionError):
            write_text(run / "configs" / NAME, json.dumps([*read(run), record], indent=2) + "\n")


def read(run: Path) -> list[dict[str, Any]]:
    """The launches of a run, in their order; none where they are not recorded."""
    try:
        found = json.loads((run / "configs" / NAME).read_text())
    except (OSError, ValueError, RecursionError):
        return []
    return [launch for launch in found if isinstance(launch, dict)] if isinstance(found, list) else []


def seconds(run: Path) -> dict[str, float]:
    """Seconds of each mode of a run, summed over its launches."""
    total: dict[str, float] = {}
    for launch in read(run):
        parts = launch.get("seconds")
        for name, value in parts.items() if isinstance(parts, dict) else ():
            if isinstance(value, int | float):
                total[name] = total.get(name, 0.0) + value
    return total
