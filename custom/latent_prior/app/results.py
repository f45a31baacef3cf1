"""What a run leaves to look at and to download."""

from dataclasses import dataclass
from pathlib import Path

from latent_prior.runs import folder as run_folder

EDIT_FILES = ("composite.png", "before_after.png", "samples.png", "samples.csv")
MESHES = (".stl", ".ply", ".obj", ".glb")  # the last is shown rather than those before it


@dataclass(frozen=True)
class Results:
    """Files of a run."""

    mesh: Path | None
    video: Path | None
    before_after: tuple[Path, Path] | None
    files: tuple[Path, ...]

    @property
    def stamp(self) -> tuple:
        """Changes whenever a file does."""
        return tuple((str(path), path.stat().st_mtime_ns) for path in self.files if path.exists())


def of(run: Path) -> Results:
    """The results of a run's folder; all empty before the first is written."""
    save = run / "save"
    if (run / run_folder.ORIGIN).is_file():  # a masked edit
        files = [run / name for name in EDIT_FILES if (run / name).is_file()]
    else:
        files = run_folder.results(run)
    files += [path for path in [run / "report.html"] if files and path.is_file()]
    videos = sorted(save.glob("[!.]*.mp4"), key=lambda path: path.stat().st_mtime)
    meshes = [path for path in files if path.suffix in MESHES]
    mesh = max(meshes, key=lambda path: (MESHES.index(path.suffix), path.stat().st_mtime), default=None)
    return Results(mesh, videos[-1] if videos else None, run_folder.before_after(run), tuple(files))
