"""Sweeps as job arrays of a real SLURM; skipped where its programs are not installed."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import psutil
import pytest
import slurm
from latent_prior.runs.sweep.engine import environment
from latent_prior.runs.sweep.work import Record
from reliability import tiny_systems

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(slurm.missing()), reason=slurm.missing() or "there"),
    pytest.mark.xdist_group("slurm"),
]
MARK = "mark"


@pytest.fixture(scope="module")
def cluster():
    folder = Path(tempfile.mkdtemp(prefix="slurm", dir="/tmp"))
    cores = len(os.sched_getaffinity(0))
    with slurm.cluster(folder, cores) as variables:
        yield variables
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def sweep(cluster, tmp_path_factory, tiny_prior, monkeypatch):
    """Starts a sweep on the cluster of four tiny runs; returns its process."""
    for name, value in cluster.items():
        monkeypatch.setenv(name, value)
    out = Path(
        tempfile.mkdtemp(prefix="sweep", dir="/tmp")
    )  # jobs start in it, also where pytest's own folder is private
    config, values = tiny_systems.systems(tiny_prior, out)["text_to_3d"]
    values |= {"trainer.max_steps": 60}

    def start(*more: str) -> subprocess.Popen:
        overrides = [f"{key}={value}" for key, value in values.items()]
        command = [sys.executable, "-m", "latent_prior", "sweep", "a red mug", *overrides, "--config", str(config)]
        command += ["--seeds", "0", "1", "2", "3", "--out", str(out / "many"), "--on", "slurm", "--cpus-per-task", "1"]
        with environment() as env:
            return subprocess.Popen(
                [*command, *more], env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
            )

    start.out = out / "many"
    yield start
    subprocess.run(["scancel", "--user=root"], capture_output=True)
    shutil.rmtree(out, ignore_errors=True)


def tasks(out: Path) -> list[psutil.Process]:
    """The processes of runs."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        words = process.info["cmdline"] or []
        if "submitit.core._submit" in words and str(out) in " ".join(words) and "python" in Path(words[0]).name:
            found.append(process)
    return found


def test_an_array_with_a_killed_job_is_finished_by_again(sweep, until):
    first = sweep()
    until(lambda: first.poll() is not None or saved(sweep.out), 240)
    run = newly_saved(sweep.out)
    name = run.name
    kill_the_run(sweep.out, name)
    said, error = first.communicate(timeout=300)
    assert first.returncode == 1 and "Traceback" not in error, error
    assert "3 of 4 runs are done; 4 were started now." in said and "its process was killed" in said, said
    records = {path: path.stat().st_mtime_ns for path in sweep.out.glob("launches/*/*.json")}

    second = sweep()
    said, _ = second.communicate(timeout=120)
    assert "3 of 4 runs are done; 0 were started now." in said

    again = sweep("--again")
    said, error = again.communicate(timeout=300)
    assert again.returncode == 0, error
    assert "4 of 4 runs are done; 1 were started now." in said
    changed = {path.stem for path, time in records.items() if path.stat().st_mtime_ns != time}
    assert changed == {name}
    assert (run / MARK).exists()  # it resumed

    last = sweep()
    said, _ = last.communicate(timeout=120)
    assert last.returncode == 0 and "4 of 4 runs are done; 0 were started now." in said
    assert {row["state"] for row in json.loads((sweep.out / "summary.json").read_text())["runs"]} == {"done"}


def saved(out: Path) -> list[Path]:
    """The checkpoints of all runs; not those half written, whose names begin with a dot."""
    return list(out.glob("runs/*/*/ckpts/[!.]*.ckpt"))


def newly_saved(out: Path) -> Path:
    """The folder of a run that has a checkpoint, marked: a run that starts afresh removes what was there."""
    run = saved(out)[0].parents[1]
    (run / MARK).touch()
    return run


def kill_the_run(out: Path, name: str) -> None:
    """Kill the process that has the run's log open."""
    for task in tasks(out):
        if any(file.path.endswith(f"{name}.log") for file in task.open_files()):
            task.kill()
            return
    raise AssertionError(f"nothing runs {name}")


def test_a_time_limit_requeues_the_run_which_resumes(sweep, until):
    process = sweep("--array-parallelism", "1")
    until(lambda: process.poll() is not None or saved(sweep.out), 240)
    run = newly_saved(sweep.out)
    (job,) = subprocess.run(
        ["squeue", "--noheader", "--states=R", "--format=%i"], capture_output=True, text=True, check=True
    ).stdout.split()
    subprocess.run(["scancel", "--signal=USR2", job])  # as SLURM does before the limit
    said, error = process.communicate(timeout=400)
    assert process.returncode == 0, said + error
    assert (run / MARK).exists()  # it resumed
    (record,) = sweep.out.glob(f"launches/*/{run.name}.json")
    assert Record.read(record).exit_code == 0 and Record.read(record).seconds > 0


def test_stopping_the_sweep_cancels_its_jobs_and_it_goes_on_later(sweep, until):
    process = sweep()
    until(lambda: process.poll() is not None or saved(sweep.out), 240)
    process.terminate()
    _, error = process.communicate(timeout=120)
    assert process.returncode == 130 and "The same command continues from here." in error
    until(lambda: not subprocess.run(["squeue", "--noheader"], capture_output=True, text=True).stdout.strip())
    again = sweep()
    said, error = again.communicate(timeout=400)
    assert again.returncode == 0, said + error


def test_the_clusters_own_words_are_passed_on(sweep):
    process = sweep("--partition", "nowhere")
    _, error = process.communicate(timeout=120)
    assert process.returncode == 2
    line = error.strip().splitlines()[-1]
    assert line.startswith("error: --on slurm: the cluster refused the jobs: ") and "nvalid partition" in line
