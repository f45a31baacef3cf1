"""The flags of every command that makes many runs: where, how many at a time, and what of a cluster they want."""

import argparse
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from latent_prior import OptionError
from latent_prior.runs.gpus import gpus

A_DAY = 24 * 60  # minutes
CLUSTER = (
    "partition",
    "time",
    "gpus_per_node",
    "cpus_per_task",
    "mem",
    "array_parallelism",
    "account",
    "qos",
    "sbatch",
)


def add_arguments(parser: argparse.ArgumentParser, jobs: str) -> None:
    """The flags. jobs: the default number of runs at a time, in words."""
    parser.add_argument(
        "--on", choices=("local", "slurm"), default="local", help="where (default: local, this machine)"
    )
    parser.add_argument("--jobs", type=int, metavar="N", help=f"local: runs at a time, sharing the cores; {jobs}")
    parser.add_argument("--gpu", metavar="LIST", help="local: GPUs to use, such as 0,1; a run gets one (default: all)")
    parser.set_defaults(check_gpu=lambda given: given is None or gpus(given))
    parser.add_argument("--again", action="store_true", help="repeat runs that failed or were killed")
    cluster = parser.add_argument_group("slurm")
    cluster.add_argument("--partition", metavar="NAME", help="default: the cluster's")
    cluster.add_argument(
        "--time", metavar="TIME", help="limit for a run: minutes, or [DAYS-]HH:MM:SS (default: a day); one that reaches "
        "it saves, and continues in a new job"
    )  # fmt: skip
    cluster.add_argument("--gpus-per-node", type=int, metavar="N", choices=(0, 1), help="GPUs of a run: 0 or 1")
    cluster.add_argument("--cpus-per-task", type=int, metavar="N", help="cores, and threads, of a run")
    cluster.add_argument("--mem", metavar="SIZE", help="memory of a run, such as 8G")
    cluster.add_argument("--array-parallelism", type=int, metavar="N", help="runs at a time (default: 256)")
    cluster.add_argument("--account", metavar="NAME")
    cluster.add_argument("--qos", metavar="NAME")
    cluster.add_argument(
        "--sbatch", action="append", metavar="KEY=VALUE", help="any other option of sbatch, such as constraint=a100"
    )


def engine(args: argparse.Namespace, out: Path, jobs: int | None) -> Any:
    """The engine that the flags ask for, with files in `out`. jobs: runs at a time by default; None: as many as fit."""
    from latent_prior.runs.sweep.engine import Local, Slurm, cores

    for flag in ("jobs", "array_parallelism", "cpus_per_task"):
        value = getattr(args, flag)
        if value is not None and value < 1:
            raise OptionError(f"--{flag.replace('_', '-')}", value, "at least 1")
    if args.on == "slurm":
        return Slurm(out / "launches", **_parameters(args))
    for flag in (
        "partition",
        "time",
        "gpus_per_node",
        "cpus_per_task",
        "mem",
        "array_parallelism",
        "account",
        "qos",
        "sbatch",
    ):
        if getattr(args, flag) is not None:
            raise OptionError.because("is for --on slurm", f"--{flag.replace('_', '-')}")
    shared = _visible_gpus(args.gpu)
    return Local(out / "launches", args.jobs or jobs or len(shared) or cores(), shared)


def _parameters(args: argparse.Namespace) -> dict[str, Any]:
    """Those of submitit's SlurmExecutor; minutes for `time`, from which submitit tells a time limit from preemption."""
    given = {
        name: getattr(args, name)
        for name in CLUSTER
        if name not in ("time", "sbatch") and getattr(args, name) is not None
    }
    more = dict(_pair(word) for word in args.sbatch or [])
    return {**given, "time": minutes(args.time) if args.time else A_DAY, "additional_parameters": more}


def _pair(word: str) -> tuple[str, str]:
    key, equals, value = word.partition("=")
    if not equals or not key:
        raise OptionError("--sbatch", word, "KEY=VALUE, such as constraint=a100")
    return key.lstrip("-"), value


def minutes(text: str) -> int:
    """SLURM's forms of a time, in minutes, rounded up; OptionError for another."""
    if text.isdecimal() and int(text):
        return int(text)
    found = re.fullmatch(r"(?:(\d+)-)?(\d+):(\d\d)(?::(\d\d))?", text)
    if found is None:
        raise OptionError("--time", text, "minutes, HH:MM:SS or DAYS-HH:MM:SS")
    days, first, second, third = found.groups()
    hours, mins, seconds = (first, second, third) if third or days else ("0", first, second)
    total = ((int(days or 0) * 24 + int(hours)) * 60 + int(mins)) * 60 + int(seconds or 0)
    if not total:
        raise OptionError("--time", text, "more than 0")
    return -(-total // 60)


def _visible_gpus(given: str | None) -> list[int]:
    """The GPUs to share out; none without a GPU."""
    import torch

    if not torch.cuda.is_available():
        return []
    given = os.environ.get("CUDA_VISIBLE_DEVICES") if given is None else given
    if given is None:
        return list(range(torch.cuda.device_count()))
    names = gpus(given)
    if not all(name.isdecimal() for name in names):
        raise OptionError("--gpu", given, "numbers of GPUs, such as 0,1")
    return [int(name) for name in names]


def require_once(values: Sequence[object], flag: str) -> None:
    """OptionError, naming the flag, for a duplicated value."""
    if twice := [value for value in values if list(values).count(value) > 1]:
        raise OptionError.because(f"{twice[0]!r} is duplicated", flag)


def read_prompts(path: Path) -> list[str]:
    """The prompts of --prompts-file, one per line; OptionError, naming the flag, if there are none."""
    if not path.is_file():
        raise OptionError.because(f"there is no file {path}", "--prompts-file")
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    except UnicodeDecodeError as error:
        raise OptionError.because(f"{path} is not text in UTF-8", "--prompts-file") from error
    found = [line for line in lines if line and not line.startswith("#")]
    if not found:
        raise OptionError.because(f"{path} holds no prompt", "--prompts-file")
    return found
