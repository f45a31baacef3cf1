"""The processes of a run on several GPUs or machines: how they start, meet, and end together.

Each runs the same command. torchrun or srun may have started them; otherwise the command starts itself once for each GPU
by torch's launcher, and ends as they do. They meet before the run's folder is claimed. When one ends early, all do: what
the others wait for fails, or the launcher ends them. Only training uses several; then the first goes on alone.
"""

import contextlib
import logging
import os
import re
import signal
import sys
import tempfile
import warnings
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import NoReturn

import torch
import torch.distributed as dist
from pytorch_lightning.plugins.environments import SLURMEnvironment

from latent_prior import OptionError
from latent_prior.host import ranks
from latent_prior.runs.folder import Interrupted, Stopped

PLACE = ("RANK", "LOCAL_RANK", "NODE_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")  # as torchrun sets them
GRACE = 3.0  # seconds between two looks of the launcher: for the others to notice that one has ended, and to say so
FAREWELL = 3.0  # seconds to ask what ended another process
TOLD = "latent_prior/error"  # where a process leaves what ended it, for the first one to say
# What gloo and NCCL say where another process has gone; they raise plain RuntimeErrors too.
GONE = re.compile(r"gloo/|NCCL|Connection (closed|reset) by peer|Broken pipe")


class Lost(Stopped):
    """Another process of this run has ended."""


class Done(BaseException):
    """Training is over, and this is not the process that goes on."""


@contextlib.contextmanager
def together(devices: int, nodes: int, on_gpu: bool) -> Iterator[None]:
    """The block in all processes of a run with `devices` of them on each of `nodes` machines.

    Others than the first never leave it but by SystemExit: they print no user error, but leave it for the first to say.
    Nor does the process that launches them. OptionError where processes cannot start.
    """
    if devices * nodes == 1:
        yield
        return
    before = {name: os.environ.get(name) for name in PLACE}
    try:
        if not _find_place(devices, nodes):
            _launch(devices)
        if os.environ["RANK"] != "0":  # the first one speaks
            logging.disable(logging.WARNING)
            warnings.simplefilter("ignore")
        _meet(on_gpu)
        yield
        part()
    except BaseException as error:
        if os.environ.get("RANK", "0") == "0" or not (code := _code(error)):  # or it could not start the others
            raise
        if isinstance(error, OptionError) and not isinstance(error, Lost):
            _tell(error)
        raise SystemExit(code % 256) from None
    finally:
        for name, value in before.items():
            os.environ.pop(name, None) if value is None else os.environ.update({name: value})


def part() -> None:
    """The end of what all do together: the first goes on alone, and Done is raised in the others."""
    if ranks.world() == 1:
        return
    first = ranks.is_first()
    dist.barrier()
    dist.destroy_process_group()
    if not first:
        raise Done


def is_loss(error: BaseException) -> bool:
    """Whether an error shows that another process has gone."""
    return ranks.world() > 1 and (
        isinstance(error, dist.DistError) or (isinstance(error, RuntimeError) and bool(GONE.search(str(error))))
    )


def loss() -> str:
    """That another process has ended, and why if it could tell."""
    why = ""
    with contextlib.suppress(Exception):
        store = _store()
        why = f" ({store.get(TOLD).decode()})" if store.check([TOLD]) else ""
    return f"another process of this run has ended{why}"


def _tell(error: BaseException) -> None:
    with contextlib.suppress(Exception):
        _store().compare_set(TOLD, "", str(error))  # the first of them is the cause


def _store() -> dist.TCPStore:
    """A connection of its own: the group's may be in use by a thread that waits."""
    address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    return dist.TCPStore(address, port, is_master=False, timeout=timedelta(seconds=FAREWELL))


def _code(error: BaseException) -> int:
    """The exit code of a process that is not the first and has nothing to print; 0 for a bug, whose traceback it shows.

    256 stands for a good end.
    """
    if isinstance(error, Done):
        return 256
    if isinstance(error, KeyboardInterrupt | Interrupted):
        return 130
    return 1 if isinstance(error, OptionError | SystemExit) or is_loss(error) else 0


def _find_place(devices: int, nodes: int) -> bool:
    """Put this process's place into the environment; False if nobody has started the processes yet."""
    environment, count = os.environ, devices * nodes
    if "LOCAL_RANK" in environment:  # torchrun's, or our launcher's
        _require_count(int(environment.get("WORLD_SIZE", 1)), count, "WORLD_SIZE")
        environment.setdefault("NODE_RANK", environment.get("GROUP_RANK", "0"))
        return True
    tasks = int(environment.get("SLURM_STEP_NUM_TASKS", 1))
    if tasks == 1:
        if nodes > 1:
            raise OptionError.because(
                f"{nodes} machines: start the command on each of them, by srun or torchrun", "trainer.num_nodes"
            )
        return False
    _require_count(tasks, count, "srun --ntasks")
    local, node = int(environment["SLURM_LOCALID"]), int(environment["SLURM_NODEID"])
    environment.setdefault(
        "MASTER_ADDR", SLURMEnvironment.resolve_root_node_address(environment["SLURM_STEP_NODELIST"])
    )
    environment.setdefault("MASTER_PORT", str(15000 + int(environment["SLURM_JOB_ID"]) % 10000))
    place = {"RANK": node * devices + local, "LOCAL_RANK": local, "NODE_RANK": node, "WORLD_SIZE": count}
    environment.update({name: str(value) for name, value in place.items()})
    return True


def _require_count(there: int, count: int, name: str) -> None:
    if there != count:
        raise OptionError.because(f"{name} is {there}; expected {count}, the GPUs of --gpu times trainer.num_nodes")


def _launch(devices: int) -> NoReturn:
    """Run this command once for each GPU by torch's launcher, and end as they do."""
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    spec = getattr(sys.modules["__main__"], "__spec__", None)
    program = ["-m", spec.name] if spec is not None else [os.path.abspath(sys.argv[0])]
    if spec is None and not Path(sys.argv[0]).is_file():
        raise OptionError.because("several processes need a program that is a file or a module, to start it", "--gpu")
    for name in ("torch.distributed", "torch.distributed.elastic"):  # they say at length what we say in a line
        logging.getLogger(name).setLevel(logging.CRITICAL)
    try:
        with tempfile.TemporaryDirectory() as logs:  # to which nothing is written
            config = LaunchConfig(
                min_nodes=1,
                max_nodes=1,
                nproc_per_node=devices,
                run_id=str(os.getpid()),
                rdzv_backend="c10d",
                rdzv_endpoint="localhost:0",
                max_restarts=0,
                monitor_interval=GRACE,
                logs_specs=DefaultLogsSpecs(logs),
            )
            elastic_launch(config, sys.executable)(*program, *sys.argv[1:])
    except SignalException:
        raise SystemExit(130) from None
    except ChildFailedError as failed:
        codes = {rank: failure.exitcode for rank, failure in failed.failures.items()}
        if 130 in codes.values() or codes.get(0, -1) > 0:  # the first one has said why
            raise SystemExit(130 if 130 in codes.values() else codes[0]) from None
        rank, code = next(iter(codes.items()))
        how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        raise Lost.because(f"process {rank} of this run {how}") from None
    raise SystemExit(0)


def _meet(on_gpu: bool) -> None:
    if on_gpu:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    # decisions and objects go by gloo also where gradients go by NCCL, so that no GPU has to be waited for
    dist.init_process_group("cpu:gloo,cuda:nccl" if on_gpu else "gloo")
