"""A real SLURM of one node, which is this machine: for tests, as root, where slurm-wlm and munge are installed."""

import contextlib
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scancel", "sinfo")
CONFIG = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CryptoType=crypto/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
SlurmctldPort={port}
SlurmdPort={next_port}
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=defer,sched_interval=1,bf_interval=1
JobRequeue=1
MpiDefault=none
ReturnToService=2
KillWait=20
NodeName={host} NodeAddr=127.0.0.1 CPUs={cores} State=UNKNOWN
PartitionName=main Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""


def missing() -> str:
    """Why there can be none here; empty if there can."""
    if os.name != "posix" or os.geteuid() != 0:
        return "slurmd needs root"
    absent = [name for name in PROGRAMS if shutil.which(name) is None]
    return f"needs {', '.join(absent)} (Debian: slurm-wlm, munge)" if absent else ""


@contextlib.contextmanager
def cluster(folder: Path, cores: int, port: int = 16817) -> Iterator[dict[str, str]]:
    """The cluster in the block, with its files in `folder`; yields the variables that its clients need."""
    host = subprocess.run(["hostname", "-s"], capture_output=True, text=True, check=True).stdout.strip()
    for name in ("state", "spool", "keys"):
        (folder / name).mkdir(parents=True)
    for parent in [folder, *folder.parents]:
        if parent.stat().st_uid == os.geteuid():  # munged and its clients look at every folder above
            parent.chmod(0o755)
    key = folder / "keys" / "munge.key"
    key.write_bytes(os.urandom(128))
    key.chmod(0o400)
    (folder / "keys").chmod(0o700)
    conf = folder / "slurm.conf"
    conf.write_text(CONFIG.format(host=host, folder=folder, port=port, next_port=port + 1, cores=cores))
    environment = {**os.environ, "SLURM_CONF": str(conf)}
    munged = ["munged", "--foreground", "--force", f"--key-file={key}", f"--socket={folder}/munge.socket"]
    munged += [f"--pid-file={folder}/munged.pid", f"--log-file={folder}/munged.log", f"--seed-file={folder}/keys/seed"]
    commands = [munged, ["slurmctld", "-D", "-c", "-f", str(conf)], ["slurmd", "-D", "-f", str(conf), "-N", host]]
    running = []
    try:
        for command in commands:
            with (folder / "said").open("ab") as said:
                running.append(subprocess.Popen(command, env=environment, stdout=said, stderr=said))
            if command is munged:
                _until(lambda: (folder / "munge.socket").exists(), folder)
        _until(lambda: "idle" in _states(environment), folder)
        yield {"SLURM_CONF": str(conf)}
    finally:
        subprocess.run(["scancel", "--user=root", "--full"], env=environment, capture_output=True)
        time.sleep(1)
        for process in reversed(running):
            process.terminate()
        for process in running:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(20)
            process.kill()


def _states(environment: dict[str, str]) -> str:
    return subprocess.run(
        ["sinfo", "--noheader", "--format=%T"], env=environment, capture_output=True, text=True
    ).stdout


def _until(condition, folder: Path, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            logs = "\n".join(path.read_text()[-2000:] for path in sorted(folder.glob("*.log")) + [folder / "said"])
            raise TimeoutError(f"the cluster did not start:\n{logs}")
        time.sleep(0.2)
