"""`latent-prior sweep PROMPT ...`: many runs, on this machine or on a cluster."""

import argparse
import hashlib
import json
import math
import re
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from latent_prior import OptionError
from latent_prior.files import lock, remove_partial, slug, write_text
from latent_prior.runs.sweep import arguments

LAYOUT = 1  # of a sweep's folder
TABLES_EVERY = 20.0  # seconds at least: ten thousand rows take some to write
HELP = """Make many runs: every prompt with every seed under every config and every combination of the grids.

Each run is a process of its own, on this machine or a job of a SLURM cluster. Runs that have ended are not repeated:
the same command continues from where it stopped, and a run that was interrupted resumes from its newest checkpoint.
Runs that failed or were killed are repeated with --again. A run is known by the digest of its whole config, so other
settings make other runs beside these."""

EXAMPLES = """examples:
  latent-prior sweep "a red mug" "a golden duck" --seeds 0 1 2
  latent-prior sweep --prompts-file prompts.txt trainer.max_steps=400 --out outputs/many
  latent-prior sweep "a red mug" --grid system.loss.lambda_fm=0,0.1,0.3 --grid system.guidance.guidance_scale=10,30
  latent-prior sweep "a red mug" --config latent_prior --config "LSD alone=pocket_dreamfusion"
  latent-prior sweep --prompts-file prompts.txt --config sd_dreamfusion --gpu 0,1,2,3
  latent-prior sweep --prompts-file prompts.txt --config sd_dreamfusion --on slurm --partition gpu --gpus-per-node 1 \\
      --time 2:00:00 --array-parallelism 64

written to --out:
  runs/ (the run folders), launches/ (how each run went, and its log), runs.csv, summary.json, report.html (the gallery)
"""
OVERRIDE = re.compile(r"[A-Za-z_][\w.]*=")


def add_arguments(p: argparse.ArgumentParser) -> None:
    """The command's flags."""
    p.set_defaults(action=sweep, overrides=[])
    p.description, p.epilog = HELP, EXAMPLES
    p.add_argument(
        "words", nargs="*", metavar="PROMPT | key=value", help="prompts, and config values to override in every run"
    )
    p.add_argument("--prompts-file", metavar="FILE", help="one prompt per line; lines that begin with # are skipped")
    p.add_argument(
        "--config",
        nargs="+",
        action="append",
        metavar=("[LABEL=]NAME", "key=value"),
        help="YAML file or name of a shipped config (default: latent_prior), with its own overrides; repeatable",
    )
    p.add_argument("--grid", action="append", metavar="KEY=V1,V2", help="values of a config key; repeatable")
    p.add_argument("--seeds", nargs="+", type=int, default=[0], metavar="N", help="seeds of the runs (default: 0)")
    p.add_argument("--out", default="outputs/sweep", metavar="DIR", help="default: outputs/sweep")
    p.add_argument(
        "--drop-checkpoints", action="store_true", help="remove the checkpoints of runs that ended well, to save room"
    )
    arguments.add_arguments(p, "default: one per GPU, without a GPU one per core")


def sweep(args: argparse.Namespace) -> None:
    """The command. OptionErrors for bad input name the flag."""
    out = Path(args.out)
    if out.exists() and not out.is_dir():
        raise OptionError.because(f"{out} is a file; expected a folder", "--out")
    prompts, overrides = _prompts(args)
    arguments.require_once(args.seeds, "--seeds")
    _require_layout(out)
    with lock.owned(out, "--out"):
        remove_partial(out, below=False)
        remove_partial(out / "launches")
        engine = arguments.engine(args, out, jobs=None)
        _run(_planned(args, prompts, overrides, out), out, engine, args.again, args.drop_checkpoints)


def _prompts(args: argparse.Namespace) -> tuple[list[str], list[str]]:
    """The prompts and the overrides; a config's own prompt is "" here."""
    overrides = [word for word in args.words if OVERRIDE.match(word)] + args.overrides
    prompts = [word for word in args.words if not OVERRIDE.match(word)]
    if args.prompts_file:
        prompts += arguments.read_prompts(Path(args.prompts_file))
    for prompt in prompts:
        if not prompt.strip():
            raise OptionError.because("an empty prompt; leave it out for the config's own", "PROMPT")
    arguments.require_once(prompts, "--prompts-file" if args.prompts_file else "PROMPT")
    return prompts or [""], overrides


def _require_layout(out: Path) -> None:
    """OptionError for the folder of another version, or of an evaluation."""
    summary = out / "summary.json"
    if not summary.is_file():
        return
    try:
        found = json.loads(summary.read_text())
        found = found.get("sweep") if isinstance(found, dict) else None
    except (ValueError, RecursionError):
        found = None
    if found != LAYOUT:
        was = "not of a sweep" if found is None else f"of a sweep of version {found}, and this is {LAYOUT}"
        raise OptionError.because(f"{out} is {was}: choose another folder", "--out")


def _planned(args: argparse.Namespace, prompts: Sequence[str], overrides: Sequence[str], out: Path) -> list[Any]:
    from latent_prior import host
    from latent_prior.runs.sweep import grid, jobs

    configs = args.config or [["latent_prior"]]
    variants = jobs.variants(configs, overrides)
    if args.grid:
        variants = grid.spread(variants, args.grid)
    if prompts == [""]:
        own = {str(host.select(variant.settings, "system.prompt_processor.prompt") or "") for variant in variants}
        if len(own) != 1 or own == {""}:
            raise OptionError.because("the configs have no common prompt: give one, or --prompts-file", "PROMPT")
        prompts = list(own)
    return jobs.planned(variants, [jobs.Task(prompt, name=_name(prompt)) for prompt in prompts], args.seeds, out)


def _name(prompt: str) -> str:
    """A prompt as a name for files that no other prompt has."""
    short = slug(prompt)
    digest = hashlib.sha256(prompt.encode()).hexdigest()[:6]
    return short if short.replace("_", " ") == prompt else f"{short}-{digest}"


def _run(planned: Sequence[Any], out: Path, engine: Any, again: bool, drop_checkpoints: bool) -> None:
    from latent_prior import report
    from latent_prior.runs.sweep import loop
    from latent_prior.runs.sweep.work import Record

    records: dict[Any, Record] = {}
    for job in planned:
        record = loop.ended_before(job, again)
        if record is not None:
            records[job] = record
    written = -math.inf

    def ended(job: Any, record: Record) -> str:
        nonlocal written
        records[job] = record
        if time.monotonic() - written > TABLES_EVERY:
            write_tables(planned, records, out, engine.at_once)
            written = time.monotonic()
        return f"{job.prompt} [{job.label}, seed {job.seed}]: {record.error or _seconds(record)}"

    left = [job for job in planned if job not in records]
    try:
        loop.run(left, len(records), engine, out, ended, "sweep", again, drop_checkpoints)
    finally:
        write_tables(planned, records, out, engine.at_once)
    gallery = report.write(out)
    failed = [job for job in planned if records[job].failed]
    unfinished = [job for job in planned if not records[job].finished]
    done = len(planned) - len(failed) - len(unfinished)
    print(f"\n{done} of {len(planned)} runs are done; {len(left)} were started now.")
    for job in failed:
        log = job.record.with_suffix(".log")
        print(f"failed: {job.prompt} [{job.label}, seed {job.seed}]: {records[job].error} ({log})")
    if failed:
        print("Repeat what failed with the same command and --again.")
    if unfinished:
        print(f"{len(unfinished)} runs were stopped before their end: the same command continues them.")
    print("\n" + "\n".join(str(path) for path in (out / "runs.csv", out / "summary.json", gallery)))
    if failed or unfinished:
        raise SystemExit(1)


def _seconds(record: Any) -> str:
    if not record.finished:
        return "stopped before its end"
    return "done" if record.seconds is None else f"done in {record.seconds:.0f} s"


def write_tables(planned: Sequence[Any], records: dict[Any, Any], out: Path, at_once: int) -> None:
    """runs.csv and summary.json: a row per run, whatever its state."""
    from dataclasses import asdict

    from latent_prior.files.csv_files import to_csv
    from latent_prior.runs.folder import made_with

    rows = [
        {
            "label": job.label,
            "prompt": job.prompt,
            "seed": job.seed,
            "state": _state(records.get(job)),
            **(asdict(records[job]) if job in records else {}),
            "run": str(job.run),
        }
        for job in planned
    ]
    counts = {state: sum(row["state"] == state for row in rows) for state in ("done", "failed", "stopped", "to do")}
    write_text(out / "runs.csv", to_csv(rows))
    summary = {"sweep": LAYOUT, **counts, "at_once": at_once, "runs": rows, **made_with()}
    write_text(out / "summary.json", json.dumps(summary, indent=2, allow_nan=False) + "\n")


def _state(record: Any) -> str:
    if record is None:
        return "to do"
    return "stopped" if not record.finished else "failed" if record.failed else "done"
