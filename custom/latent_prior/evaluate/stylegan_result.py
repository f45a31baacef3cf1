"""An adapted generator's figures as they are kept between evaluations: one JSON file a run."""

from dataclasses import dataclass
from pathlib import Path

from latent_prior.evaluate.results import read_record, write_record

SOURCE, TRUTH = "source", "truth"  # labels of what is no run: the generator that runs start from, and the true pictures
REFERENCES = (SOURCE, TRUTH)


@dataclass(frozen=True)
class Result:
    """Figures (see stylegan_measure.py), None where there are none. The source and the truth have no seed."""

    label: str
    prompt: str
    seed: int | None
    held_out: bool | None = None  # from the prior's training; None outside the pocket world
    frechet: float | None = None
    clip_score: float | None = None
    diversity: float | None = None
    psnr: float | None = None  # dB
    recognised: float | None = None
    seconds: float | None = None
    peak_bytes: int | None = None
    error: str | None = None
    run: str = ""  # the run folder
    state: str = ""  # of the run's generator when it was measured
    settings: str = ""  # digest of what it was measured with

    def write(self, path: Path) -> None:
        """Write the file at once or not at all."""
        write_record(self, path)

    @staticmethod
    def read(path: Path) -> "Result | None":
        """None if the file is not there, or is of another version."""
        return read_record(Result, path)
