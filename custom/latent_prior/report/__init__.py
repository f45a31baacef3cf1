"""What people look at: a page for a run, a gallery for many; each one file that opens from disk, without a network."""

from pathlib import Path

NAME = "report.html"


def write(folder: Path) -> Path:
    """Write the page of a run, or the gallery of the runs in a folder; returns its path.

    OptionError if the folder is not a run and holds none.
    """
    from latent_prior.report import run_page

    if run_page.is_run(folder):
        return run_page.write(folder)
    from latent_prior.report import gallery

    return gallery.write(folder)
