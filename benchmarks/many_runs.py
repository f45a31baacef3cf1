"""What many runs cost: a run's parts and its folder, the engine's share, the tables of 10,000 runs, and 8 runs by 2.

usage: python benchmarks/many_runs.py [--quick] [--steps N] [--slurm]     (an idle machine; --slurm on a cluster)
Prints a Markdown table; docs/scale.md has one, and what follows from it.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from latent_prior.cli import sweep
from latent_prior.runs.sweep import loop
from latent_prior.runs.sweep.engine import Local, Slurm, environment
from latent_prior.runs.sweep.jobs import Job, Task
from latent_prior.runs.sweep.work import Record

PROMPTS = (
    "a red mug",
    "a golden duck",
    "a blue house",
    "a green cone",
    "a white table",
    "a pink torus",
    "a black boat",
)
PROMPTS += ("a yellow bird",)
MANY = 10_000
SHORT = 60  # steps of the eight runs
FEW = 20  # steps of the run that tells what a run costs beside them


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, help="of the runs (default: the main job's)")
    parser.add_argument("--quick", action="store_true", help="leave out the eight runs")
    parser.add_argument("--slurm", action="store_true", help="measure SLURM's share too, where there is one")
    args = parser.parse_args()
    steps = [] if args.steps is None else [f"trainer.max_steps={args.steps}"]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        print("| what | measured |\n| :-- | --: |")
        for line, figure in _figures(folder, steps, args):
            print(f"| {line} | {figure} |", flush=True)


def _figures(folder: Path, steps: list[str], args: argparse.Namespace) -> Iterator[tuple[str, str]]:
    whole = _one_run(folder / "whole", steps)
    yield "a run, from launch to textured mesh and turntable", f"{whole.seconds:.0f} s"
    yield "its peak memory", f"{whole.peak_bytes / 1e6:,.0f} MB"
    files = [path for path in (folder / "whole" / "runs").rglob("*") if path.is_file()]
    yield "its folder", f"{_megabytes(files):.1f} MB in {len(files)} files"
    yield "the same with --drop-checkpoints", f"{_megabytes([path for path in files if path.suffix != '.ckpt']):.1f} MB"
    short = _one_run(folder / "short", [f"trainer.max_steps={FEW}"])
    made = args.steps or config_steps()
    step = (whole.seconds - short.seconds) / (made - FEW)
    yield f"one of its {made} steps, on the mean", f"{step:.3f} s"
    yield "what it costs beside its steps", f"{short.seconds - FEW * step:.1f} s"
    here = Local(folder / "local" / "launches", 1)
    yield "the engine's share of a run, one at a time here", f"{_share(here, folder / 'local'):.2f} s"
    if args.slurm:
        engine = Slurm(folder / "slurm" / "launches", time=10, cpus_per_task=1)
        yield "SLURM's share of a run, in an array of 8", f"{_share(engine, folder / 'slurm'):.2f} s"
    found, written = _tables(folder / "tables")
    yield f"looking up {MANY:,} runs that have ended", f"{found:.1f} s"
    yield f"writing runs.csv and summary.json of {MANY:,} runs", f"{written:.1f} s"
    if not args.quick:
        wall, own = _eight(folder / "eight", [f"trainer.max_steps={SHORT}"])
        yield f"8 runs of {SHORT} steps, 2 at a time, from launch to exit", f"{wall:.0f} s"
        yield "half of the sum of their own seconds", f"{own / 2:.0f} s"
        yield "throughput", f"{own / 2 / wall:.3f}"


def _one_run(folder: Path, overrides: list[str]) -> Record:
    """The record of a run, made by a sweep."""
    _sweep(folder, ["a red mug", *overrides, "--jobs", "1"])
    (path,) = folder.glob("launches/*/*.json")
    return Record.read(path)


def config_steps() -> int:
    """The main job's steps."""
    from latent_prior import host
    from latent_prior.runs.folder import config_path

    return host.select(host.read_config(config_path("latent_prior")), "trainer.max_steps")


def _megabytes(files: list[Path]) -> float:
    return sum(path.stat().st_size for path in files) / 1e6


def _sweep(out: Path, words: list[str]) -> float:
    """Seconds of a sweep, from launch to exit."""
    begun = time.monotonic()
    with environment() as env:
        command = [sys.executable, "-m", "latent_prior", "sweep", *words, "--out", str(out)]
        done = subprocess.run(command, env=env, capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stdout + done.stderr)
    return time.monotonic() - begun


def _share(engine: Local | Slurm, folder: Path, runs: int = 8) -> float:
    """Seconds of each of some runs that do nothing."""
    jobs = []
    for i in range(runs):
        record = folder / "launches" / "nothing" / f"{i}.json"
        jobs.append(Job("x", Task("x"), i, folder / "runs" / f"{i}", folder / "none", record, ("this",)))
    begun = time.monotonic()
    if any(record.exit_code for _, record in loop.stream(jobs, engine)):
        sys.exit("a run that does nothing failed")
    return (time.monotonic() - begun) / runs


def _tables(folder: Path) -> tuple[float, float]:
    """Seconds to find that runs have ended, and to write their tables."""
    jobs, records = [], {}
    for i in range(MANY):
        run, record = folder / "runs" / f"{i}", folder / "launches" / "x" / f"{i}.json"
        run.mkdir(parents=True)
        record.parent.mkdir(parents=True, exist_ok=True)
        record.write_text(json.dumps({"exit_code": 0, "seconds": 1.0, "peak_bytes": 1, "error": None}))
        jobs.append(Job("x", Task(f"prompt {i}"), 0, run, folder / "none", record, ("this",)))
    begun = time.monotonic()
    for job in jobs:
        records[job] = loop.ended_before(job)
    found = time.monotonic()
    sweep.write_tables(jobs, records, folder, 1)
    return found - begun, time.monotonic() - found


def _eight(folder: Path, overrides: list[str]) -> tuple[float, float]:
    """Seconds of a sweep of eight runs, two at a time, and the sum of the runs' own."""
    wall = _sweep(folder, [*PROMPTS, *overrides, "--jobs", "2"])
    return wall, sum(Record.read(path).seconds for path in folder.glob("launches/*/*.json"))


if __name__ == "__main__":
    main()
