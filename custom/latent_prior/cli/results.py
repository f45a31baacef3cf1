"""What a command leaves: the page to look at, and the names of the files."""

from pathlib import Path


def show(folder: Path) -> None:
    """Write a run's page, and print its path and those of the run's products.

    What was exported to another place than its run has no page there.
    """
    from latent_prior import report
    from latent_prior.report import run_page
    from latent_prior.runs.folder import products

    print(f"\nRun folder: {folder}")
    for path in [*([report.write(folder)] if run_page.is_run(folder) else []), *products(folder)]:
        print(f"  {path}")
