"""The queue with commands that are no runs: order, places, Stop, errors, the end of the server."""

import shutil
import sys
import textwrap

import pytest
from latent_prior.app.queue import (
    DONE,
    FAILED,
    RUNNING,
    STOPPED,
    STOPPING,
    WAITING,
    Job,
    Queue,
    free_name,
    shown_command,
)

SECONDS = 30


@pytest.fixture
def job(tmp_path, monkeypatch):
    """Makes a job of a Python program, which may `wait_for(file)` and on SIGTERM ends as our commands do."""
    modules = tmp_path / "modules"
    modules.mkdir()
    monkeypatch.setenv("PYTHONPATH", str(modules))

    def make(name: str, program: str = "", before: str = "") -> Job:
        head = f"""
            {before}
            import pathlib, signal, sys, time
            def stop(number, frame):
                print("saved")
                sys.exit(130)
            signal.signal(signal.SIGTERM, stop)
            def wait_for(name):
                while not pathlib.Path({str(tmp_path)!r}, name).exists():
                    time.sleep(0.01)
            pathlib.Path({str(tmp_path)!r}, {name!r} + ".began").touch()
        """
        (modules / f"{name}.py").write_text(textwrap.dedent(head) + textwrap.dedent(program))
        return Job("text", name, (name,), tmp_path / name, tmp_path / "logs" / f"{name}.txt")

    return make


def ended(queue: Queue, *jobs: Job) -> bool:
    return queue.wait(lambda: not any(job.active for job in jobs), SECONDS)


def began(tmp_path, job: Job) -> None:
    """Wait until the process handles signals."""
    import time

    deadline = time.monotonic() + SECONDS
    while not (tmp_path / f"{job.title}.began").exists():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_one_after_the_other(job, tmp_path):
    queue = Queue()
    first, second, third = job("first", "wait_for('go')"), job("second"), job("third")
    for each in (first, second, third):
        queue.add(each)
    assert [each.state for each in queue.jobs] == [RUNNING, WAITING, WAITING]
    assert [queue.before(each) for each in queue.jobs] == [0, 1, 2]
    assert not (tmp_path / "second.began").exists()
    (tmp_path / "go").touch()
    assert ended(queue, first, second, third)
    assert [each.state for each in queue.jobs] == [DONE, DONE, DONE]
    marks = [(tmp_path / f"{each.title}.began").stat().st_mtime_ns for each in queue.jobs]
    assert marks == sorted(marks)


def test_two_at_once(job, tmp_path):
    queue = Queue(at_once=2)
    jobs = [queue.add(job(name, "wait_for('go')")) for name in ("first", "second", "third")]
    assert [each.state for each in jobs] == [RUNNING, RUNNING, WAITING]
    assert queue.before(jobs[2]) == 1
    (tmp_path / "go").touch()
    assert ended(queue, *jobs)


def test_stop_saves_and_the_next_one_starts(job, tmp_path):
    queue = Queue()
    first, second = queue.add(job("first", "wait_for('never')")), queue.add(job("second"))
    began(tmp_path, first)
    queue.stop(first)
    assert first.state == STOPPING or not first.active
    assert ended(queue, first, second)
    assert (first.state, first.exit_code, second.state) == (STOPPED, 130, DONE)
    assert "saved" in first.log.read_text()


def test_stop_before_signals_are_handled_is_no_failure(job, tmp_path):
    queue = Queue()
    mark = f"__import__('pathlib').Path({str(tmp_path)!r}, 'early.began').touch(); __import__('time').sleep(60)"
    early = queue.add(job("early", before=mark))
    began(tmp_path, early)
    queue.stop(early)
    assert ended(queue, early)
    assert (early.state, early.exit_code) == (STOPPED, -15)


def test_a_waiting_job_is_taken_out(job, tmp_path):
    queue = Queue()
    first, second = queue.add(job("first", "wait_for('go')")), queue.add(job("second"))
    queue.stop(second)
    (tmp_path / "go").touch()
    assert ended(queue, first)
    assert second.state == STOPPED and second.process is None


def test_an_error_is_the_last_line_of_its_own_process(job):
    queue = Queue()
    bad = job("bad", "print('error: of before'); sys.exit(2)")
    bad.log.parent.mkdir(parents=True)
    bad.log.write_text("error: of an earlier start\n")
    queue.add(bad)
    assert ended(queue, bad)
    assert (bad.state, bad.exit_code, bad.error) == (FAILED, 2, "of before")


def test_a_folder_has_one_active_job(job, tmp_path):
    queue = Queue()
    first = queue.add(job("first", "wait_for('go')"))
    again = job("again")
    again.folder = first.folder
    assert queue.add(again, unless_active=True) is first
    assert queue.of(first.folder) is first
    (tmp_path / "go").touch()
    assert ended(queue, first)
    assert queue.add(again, unless_active=True) is again and queue.of(first.folder) is again


def test_close_stops_all_and_starts_nothing(job, tmp_path):
    queue = Queue()
    first, second = queue.add(job("first", "wait_for('never')")), queue.add(job("second"))
    began(tmp_path, first)
    assert queue.close(SECONDS) == (first, second)
    assert (first.state, second.state) == (STOPPED, STOPPED)
    late = queue.add(job("late"))
    assert late.state == WAITING and not (tmp_path / "second.began").exists()


def test_the_process_has_its_own_session(job):
    queue = Queue()
    own = queue.add(job("own", "import os; print('session', os.getsid(0) == os.getpid())"))
    assert ended(queue, own)
    assert "session True" in own.log.read_text()


def test_a_process_that_cannot_start(job, monkeypatch):
    monkeypatch.setattr(sys, "executable", shutil.which("true") + "-not-there")
    lost = Queue().add(job("lost"))
    assert lost.state == FAILED and "does not start" in lost.error


def test_names_and_commands():
    assert free_name("a", {"a", "a-1"}.__contains__) == "a-2"
    assert shown_command(("latent_prior", "generate", "a red mug")) == "latent-prior generate 'a red mug'"


@pytest.mark.parametrize(("at_once", "threads"), [(1, "None"), (2, "3"), (8, "1")])
def test_runs_side_by_side_share_the_cores(job, monkeypatch, at_once, threads):
    monkeypatch.setattr("latent_prior.app.queue.cores", lambda: 6)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    queue = Queue(at_once)
    told = queue.add(job("told", "import os; print(os.environ.get('OMP_NUM_THREADS'))"))
    assert ended(queue, told) and told.log.read_text().strip() == threads
