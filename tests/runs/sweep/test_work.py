"""A run as a job: what it records, how it continues, and how it stops."""

import signal
import subprocess
import sys

import code_run
import psutil
import pytest
import torch
from latent_prior.runs.sweep.engine import environment
from latent_prior.runs.sweep.work import INTERRUPTED, Record

CALL = """
import signal, sys, pickle
from pathlib import Path
work = pickle.loads(bytes.fromhex(sys.argv[1]))
work()
print("after")
"""


@pytest.fixture
def start():
    """Starts a work in a process of its own, as submitit does."""
    import pickle

    started = []

    def begin(work, code=CALL):
        with environment() as env:
            command = [sys.executable, "-c", code, pickle.dumps(work).hex()]
            started.append(subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True))
        return started[-1]

    yield begin
    for process in started:
        process.kill()
        process.communicate()


def recorded(start, work):
    start(work).wait(60)
    return Record.read(work.record)


def test_its_time_and_what_it_said(start, work):
    small = work("import time; time.sleep(0.3); print('hello')")
    process = start(small)
    assert process.communicate(timeout=60)[0] == "after\n"  # what it says later goes where it went before
    record = Record.read(small.record)
    assert record.exit_code == 0 and record.error is None and record.seconds >= 0.3
    assert small.log.read_text() == "hello\n"


@pytest.mark.parametrize(
    ("code", "exit_code", "error"),
    [
        ("raise SystemExit(3)", 3, "exit code 3: no output"),
        ("raise OSError('disk full')", 1, "exit code 1: OSError: disk full"),
        ("print('error: the field is empty'); print('bye'); raise SystemExit(2)", 2, "exit code 2: the field is empty"),
        ("raise SystemExit('no')", 1, "exit code 1: no"),
        ("raise KeyboardInterrupt", INTERRUPTED, None),
    ],
)
def test_how_a_run_ends(start, work, code, exit_code, error):
    record = recorded(start, work(code))
    assert (record.exit_code, record.error) == (exit_code, error)
    assert record.finished is (exit_code != INTERRUPTED) and record.failed is (exit_code not in (0, INTERRUPTED))


def test_a_run_without_a_checkpoint_starts_afresh(start, work):
    half = work("print('made')")
    half.run.mkdir(parents=True)
    (half.run / "half").touch()
    assert recorded(start, half).exit_code == 0
    assert half.log.read_text() == "made\n" and not half.run.exists()


def test_a_run_with_a_checkpoint_resumes_and_its_seconds_add_up(work, monkeypatch):
    from latent_prior.runs.sweep import work as module

    one = work("")
    (one.run / "configs").mkdir(parents=True)
    (one.run / "configs" / "parsed.yaml").touch()
    (one.run / "ckpts").mkdir()
    torch.save({"global_step": 3, "state_dict": {}}, one.run / "ckpts" / "last.ckpt")
    asked = []
    monkeypatch.setattr(module, "run_command", lambda command: asked.append(command) or 0)
    Record(INTERRUPTED, 1000.0, 10).write(one.record)
    one()
    assert asked == [("latent_prior", "resume", str(one.run))]
    assert Record.read(one.record).seconds > 1000
    one.record.unlink()  # its process was killed: nobody knows for how long it ran
    one()
    assert Record.read(one.record).seconds is None


def test_checkpoints_are_dropped_where_they_are_not_wanted(start, work):
    folder = work("").run / "ckpts"
    code = f"import os; os.makedirs({str(folder)!r}); open({str(folder / 'last.ckpt')!r}, 'w').close()"
    assert recorded(start, work(code)).exit_code == 0 and folder.exists()
    assert recorded(start, work(code, drop_checkpoints=True)).exit_code == 0 and not folder.exists()


def test_the_threads_are_those_that_slurm_gave(start, work, monkeypatch):
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "3")
    one = work("import os; print(os.environ['OMP_NUM_THREADS'])")
    recorded(start, one)
    assert one.log.read_text() == "3\n"


@pytest.mark.parametrize("which", ["owner", "parent"])
def test_a_run_stops_when_the_sweep_or_the_process_between_has_gone(start, work, until, which):
    owner = subprocess.Popen([sys.executable, "-S", "-c", "import time; time.sleep(600)"])
    one = work(code_run.ENDLESS, owner=owner.pid)
    between = start(one, f"import subprocess, sys; subprocess.run([sys.executable, '-c', {CALL!r}, sys.argv[1]])")
    until(lambda: one.log.is_file() and "on" in one.log.read_text())
    (task,) = psutil.Process(between.pid).children()
    (owner if which == "owner" else between).kill()  # not reaped: it stays as a zombie
    until(lambda: Record.read(one.record) is not None)
    assert Record.read(one.record).exit_code == INTERRUPTED
    until(lambda: not task.is_running() or task.status() == psutil.STATUS_ZOMBIE)
    owner.kill()
    owner.wait()


REQUEUE = """
import pickle, signal, sys
work = pickle.loads(bytes.fromhex(sys.argv[1]))
signal.signal(signal.SIGUSR2, lambda number, frame: print("requeued", flush=True))  # as submitit's does
work()
"""


def test_the_signal_of_submitit_stops_the_run_before_it_requeues(start, work, until):
    one = work(code_run.ENDLESS)
    process = start(one, REQUEUE)
    until(lambda: one.log.is_file() and "on" in one.log.read_text())
    process.send_signal(signal.SIGUSR2)
    said = process.communicate(timeout=60)[0]
    assert said == "requeued\n" and Record.read(one.record).exit_code == INTERRUPTED


def test_a_signal_of_the_system_stops_it_without_requeuing(start, work, until):
    one = work(code_run.ENDLESS)
    process = start(one, REQUEUE)
    until(lambda: one.log.is_file() and "on" in one.log.read_text())
    process.terminate()
    assert process.communicate(timeout=60)[0] == "" and not Record.read(one.record).finished


def test_checkpoint_is_the_same_work(work):
    one = work("pass")
    assert one.checkpoint().function == one
