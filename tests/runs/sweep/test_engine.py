"""Runs on this machine: started, shared out, killed, stopped and taken up again."""

import signal
import subprocess
import sys
import threading

import code_run
import psutil
import pytest
from latent_prior import OptionError
from latent_prior.runs.sweep import loop
from latent_prior.runs.sweep.engine import GONE, Local
from latent_prior.runs.sweep.jobs import Job, Task
from latent_prior.runs.sweep.work import Record


@pytest.fixture
def job(tmp_path):
    def make(code, name="a"):
        return Job(
            "x",
            Task("a red mug"),
            0,
            run=tmp_path / "runs" / name,
            result=tmp_path / "results" / f"{name}.json",
            record=tmp_path / "launches" / "x" / f"{name}.json",
            command=code_run.command(code),
        )

    return make


@pytest.fixture
def engine(tmp_path):
    return lambda at_once: Local(tmp_path / "launches", at_once)


def making(folder, tail=""):
    """Code that makes a run folder, counts its starts and refuses to make it twice."""
    return (
        f"import os; os.makedirs({str(folder / 'configs')!r}); "
        f"open({str(folder.parent.parent / 'count')!r}, 'a').write('x'); {tail}"
    )


def test_a_run_is_made_once_and_half_a_run_again(tmp_path, job, engine):
    planned = job(making(tmp_path / "runs" / "a"))
    planned.run.mkdir(parents=True)  # what a killed sweep leaves: a folder, but no record
    (planned.run / "half").touch()
    ((_, first),) = loop.stream([planned], engine(1))
    assert first.exit_code == 0 and first.seconds > 0 and first.peak_bytes > 1e6
    assert not (planned.run / "half").exists()
    assert list(loop.stream([planned], engine(1))) == [(planned, first)]
    assert (tmp_path / "count").read_text() == "x"
    assert not (tmp_path / "launches" / "submitit").exists()


def test_memory_is_the_runs_own(tmp_path, job, engine):
    weight = bytearray(300_000_000)  # ours, not the run's
    weight[::4096] = b"x" * len(weight[::4096])
    large = "y = b'x' * 200_000_000"
    planned = [job(making(tmp_path / "runs" / "a"), "a"), job(making(tmp_path / "runs" / "b", large), "b")]
    ended = dict(loop.stream(planned, engine(2)))
    assert ended[planned[0]].peak_bytes < 120e6
    assert 200e6 < ended[planned[1]].peak_bytes < 320e6


def test_a_failure_is_repeated_only_if_asked(tmp_path, job, engine):
    planned = job(making(tmp_path / "runs" / "a", "raise OSError('disk full')"))
    for again in (False, False, True):
        ((_, record),) = loop.stream([planned], engine(1), again)
        assert record.error == "exit code 1: OSError: disk full"
    assert (tmp_path / "count").read_text() == "xx"


def test_a_killed_run_is_a_failure_that_can_be_repeated(tmp_path, job, engine):
    first = making(tmp_path / "runs" / "a", "os.kill(os.getpid(), 9)")
    planned = [job(first), job(making(tmp_path / "runs" / "b"), "b")]
    ended = dict(loop.stream(planned, engine(2)))
    assert ended[planned[0]].exit_code is None and ended[planned[0]].error == GONE
    assert ended[planned[1]].exit_code == 0
    mended = [job(making(tmp_path / "runs" / "a")), planned[1]]
    assert dict(loop.stream(mended, engine(2)))[mended[0]].failed
    assert dict(loop.stream(mended, engine(2), again=True))[mended[0]].exit_code == 0
    assert (tmp_path / "count").read_text() == "xxx"


def test_refused_input_stops_everything(tmp_path, job, engine):
    refused = job("print('error: system.loss.lambda_fm is -1'); raise SystemExit(2)")
    with pytest.raises(OptionError, match="'a red mug' of 'x' was refused: system.loss.lambda_fm is -1"):
        list(loop.stream([refused], engine(1)))
    assert not refused.record.exists()


def test_a_run_that_ends_in_an_error_of_its_own_is_kept(tmp_path, job, engine):
    planned = job(making(tmp_path / "runs" / "a", "print('error: the field is empty'); raise SystemExit(2)"))
    ((_, record),) = loop.stream([planned], engine(1))
    assert record.error == "exit code 2: the field is empty"


def test_runs_at_a_time_share_the_cores(tmp_path, job, engine, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1000")
    planned = [job(making(tmp_path / "runs" / n, "print(os.environ['OMP_NUM_THREADS'])"), n) for n in "abc"]
    ended = dict(loop.stream(planned, engine(64)))
    assert set(ended) == set(planned) and not any(record.failed for record in ended.values())
    assert planned[0].record.with_suffix(".log").read_text() == "1\n"


def test_each_run_has_its_own_gpu(tmp_path, job):
    code = "print(os.environ['CUDA_VISIBLE_DEVICES']); import time; time.sleep(1)"
    planned = [job(making(tmp_path / "runs" / name, code), name) for name in "ab"]
    list(loop.stream(planned, Local(tmp_path / "launches", 2, [3, 5])))
    assert {one.record.with_suffix(".log").read_text() for one in planned} == {"3\n", "5\n"}


def test_one_at_a_time_starts_nothing_while_the_caller_measures(tmp_path, job, engine):
    planned = [job(making(tmp_path / "runs" / name), name) for name in "ab"]
    ended = loop.stream(planned, engine(1))
    next(ended)
    assert (tmp_path / "count").read_text() == "x"
    ended.close()


def test_closing_stops_what_runs_and_it_goes_on_later(tmp_path, job, engine, until):
    planned = [job(code_run.ENDLESS, name) for name in "ab"]
    logs = [one.record.with_suffix(".log") for one in planned]
    ended = loop.stream(planned, engine(2))
    thread = threading.Thread(target=lambda: next(ended, None))
    before = set(psutil.Process().children())
    thread.start()
    until(lambda: all(log.is_file() and "on" in log.read_text() for log in logs))
    tasks = [task for child in set(psutil.Process().children()) - before for task in child.children(recursive=True)]
    assert tasks
    tasks[0].terminate()  # the thread ends with its run; closing stops the other one
    thread.join(60)
    ended.close()
    assert not any(task.is_running() and task.status() != psutil.STATUS_ZOMBIE for task in tasks)
    assert not any(Record.read(one.record).finished for one in planned)
    again = [job(making(tmp_path / "runs" / one.run.name), one.run.name) for one in planned]
    assert all(record.exit_code == 0 for _, record in loop.stream(again, engine(2)))


SWEEP = """
import sys
from pathlib import Path
import code_run
from latent_prior.cli.errors import guarded
from latent_prior.runs.sweep import loop
from latent_prior.runs.sweep.engine import Local
from latent_prior.runs.sweep.jobs import Job, Task
out = Path(sys.argv[1])
record = out / "launches" / "x" / "a.json"
job = Job("x", Task("a"), 0, out / "runs" / "a", out / "results" / "a", record, code_run.command(sys.argv[2]))
sys.exit(guarded(lambda: loop.run([job], 0, Local(out / "launches", 1), out, lambda job, record: "", "sweep")))
"""


@pytest.mark.parametrize("blow", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
def test_a_sweep_that_is_stopped_leaves_no_run_behind(tmp_path, until, blow):
    from latent_prior.runs.sweep.engine import environment

    log = tmp_path / "launches" / "x" / "a.log"
    with environment() as env:
        command = [sys.executable, "-c", SWEEP, str(tmp_path), code_run.ENDLESS]
        sweep = subprocess.Popen(command, env=env, stderr=subprocess.PIPE, text=True, start_new_session=True)
    try:
        until(lambda: log.is_file() and "on" in log.read_text())
        below = psutil.Process(sweep.pid).children(recursive=True)
        assert len(below) == 2
        if blow == signal.SIGINT:  # as a terminal sends it: to all of its processes
            for process in [psutil.Process(sweep.pid), *below]:
                process.send_signal(blow)
        else:
            sweep.send_signal(blow)
        error = sweep.communicate(timeout=60)[1]
        until(lambda: not any(p.is_running() and p.status() != psutil.STATUS_ZOMBIE for p in below))
    finally:
        sweep.kill()
    if blow != signal.SIGKILL:
        assert sweep.returncode == 130 and "The same command continues from here." in error
        assert "Traceback" not in error
    assert not Record.read(tmp_path / "launches" / "x" / "a.json").finished


def test_without_submitit_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "submitit", None)
    with pytest.raises(OptionError, match="pip install submitit .the extra `sweep`"):
        Local(tmp_path, 1)
