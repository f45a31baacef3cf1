"""Runs in processes of their own: timed, weighed, stopped and taken up again."""

import json
import os
import signal
import subprocess
import sys
import threading
import time

import pytest
from latent_prior.evaluate.bench.jobs import Job, Task
from latent_prior.evaluate.bench.launches import STOPWATCH, Launcher


def stopwatch(tmp_path, code):
    report = tmp_path / "report.json"
    subprocess.run([sys.executable, STOPWATCH, report, sys.executable, "-S", "-c", code], check=True)
    return json.loads(report.read_text())


def test_the_stopwatch_sees_time_memory_and_exit_code(tmp_path):
    weight = bytearray(300_000_000)  # ours, not the command's
    weight[::4096] = b"x" * len(weight[::4096])
    small = stopwatch(tmp_path, "import time; time.sleep(0.3)")
    assert small["seconds"] >= 0.3 and small["exit_code"] == 0
    assert small["peak_bytes"] < 100e6
    large = stopwatch(tmp_path, "x = b'x' * 200_000_000; raise SystemExit(3)")
    assert 200e6 < large["peak_bytes"] < 300e6 and large["exit_code"] == 3


def is_alive(pid):
    """Whether a process runs; one that waits to be reaped does not."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.skipif(not os.path.isdir("/proc"), reason="looks into /proc")
@pytest.mark.parametrize("blow", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, "orphan"])
def test_the_command_dies_with_the_stopwatch_and_with_the_evaluation(tmp_path, blow):
    pid_file = tmp_path / "pid"
    sleeper = f"import os, time; open({str(pid_file)!r}, 'w').write(str(os.getpid())); time.sleep(600)"
    # what the command itself starts, as a run does for its videos, is to go with it
    sleeper = f"import subprocess, sys; subprocess.run([sys.executable, '-S', '-c', {sleeper!r}])"
    command = [sys.executable, str(STOPWATCH), str(tmp_path / "r.json"), sys.executable, "-S", "-c", sleeper]
    if blow == "orphan":  # the evaluation is a process between us and the stopwatch
        command = [sys.executable, "-S", "-c", f"import subprocess; subprocess.run({command!r})"]
    process = subprocess.Popen(command)
    try:
        wait_until(lambda: pid_file.exists() and pid_file.read_text())
        pid = int(pid_file.read_text())
        assert is_alive(pid)
        process.send_signal(signal.SIGKILL if blow == "orphan" else blow)
        process.wait(30)
        wait_until(lambda: not is_alive(pid))
    finally:
        process.kill()
    assert not (tmp_path / "r.json").exists()


@pytest.mark.skipif(not os.path.isdir("/proc"), reason="looks into /proc")
def test_two_signals_at_once_leave_no_command_behind(tmp_path):
    """Ctrl-C reaches the stopwatch from the terminal, and from the evaluation as SIGTERM."""
    code = "import os, sys, time; open(sys.argv[1], 'w').write(str(os.getpid())); time.sleep(600)"
    pids = []
    for number in range(4):
        pid_file = tmp_path / str(number)
        command = [sys.executable, "-S", "-c", code, str(pid_file)]
        process = subprocess.Popen([sys.executable, STOPWATCH, tmp_path / "r.json", *command])
        wait_until(lambda file=pid_file: file.exists() and file.read_text())
        pids.append(int(pid_file.read_text()))
        for blow in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
            process.send_signal(blow)
            time.sleep(number * 4e-4)
        process.wait(30)
    wait_until(lambda: not any(map(is_alive, pids)))


def wait_until(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


def job(tmp_path, code, name="a"):
    return Job(
        "x",
        Task("a red mug"),
        0,
        run=tmp_path / "runs" / name,
        result=tmp_path / "results" / f"{name}.json",
        launch=tmp_path / "launches" / f"{name}.json",
        command=(sys.executable, "-S", "-c", code),
    )


def making(folder, tail=""):
    """Code that makes a run folder, counts its launches and refuses to make it twice."""
    return (
        f"import os; os.makedirs({str(folder / 'configs')!r}); "
        f"open({str(folder.parent.parent / 'count')!r}, 'a').write('x'); {tail}"
    )


def test_a_run_is_launched_once_and_half_a_run_again(tmp_path):
    planned = job(tmp_path, making(tmp_path / "runs" / "a"))
    planned.run.mkdir(parents=True)  # what a killed evaluation leaves: a folder, but no report of a launch
    (planned.run / "half").touch()
    launcher = Launcher(1)
    first = launcher.launch(planned)
    assert first.error is None and first.seconds > 0 and first.peak_bytes > 1e6
    assert not (planned.run / "half").exists()
    assert launcher.launch(planned) == first
    assert (tmp_path / "count").read_text() == "x"


def test_a_crash_is_reported_and_tried_again(tmp_path):
    planned = job(tmp_path, making(tmp_path / "runs" / "a", "raise OSError('disk full')"))
    for _ in range(2):
        assert Launcher(1).launch(planned).error == "exit code 1: OSError: disk full"
    assert (tmp_path / "count").read_text() == "xx"


def test_a_run_that_ends_in_an_error_of_its_own_is_kept(tmp_path):
    planned = job(tmp_path, making(tmp_path / "runs" / "a", "print('error: the field is empty'); raise SystemExit(2)"))
    for _ in range(2):
        assert Launcher(1).launch(planned).error == "exit code 2: the field is empty"
    assert (tmp_path / "count").read_text() == "x"


def test_refused_input_stops_the_evaluation(tmp_path):
    refused = job(tmp_path, "print('error: system.loss.lambda_fm is -1'); raise SystemExit(2)")
    with pytest.raises(ValueError, match="'a red mug' of 'x' was refused: system.loss.lambda_fm is -1"):
        list(Launcher(1).stream([refused]))


def test_parallel_runs_all_come_and_share_the_cores(tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1000")

    def code(name):
        return making(tmp_path / "runs" / name, "print(os.environ['OMP_NUM_THREADS'])")

    planned = [job(tmp_path, code(name), name) for name in "abc"]
    ended = dict(Launcher(64).stream(planned))
    assert set(ended) == set(planned) and all(launch.error is None for launch in ended.values())
    assert (tmp_path / "launches" / "a.log").read_text() == "1\n"


def test_one_worker_launches_nothing_while_the_caller_measures(tmp_path):
    planned = [job(tmp_path, making(tmp_path / "runs" / name), name) for name in "ab"]
    stream = Launcher(1).stream(planned)
    next(stream)
    assert (tmp_path / "count").read_text() == "x"
    stream.close()


def test_stopping_stops_what_runs(tmp_path):
    pid_file = tmp_path / "pid"
    code = f"import os, time; open({str(pid_file)!r}, 'w').write(str(os.getpid())); time.sleep(600)"
    launcher = Launcher(2)
    thread = threading.Thread(target=lambda: list(launcher.stream([job(tmp_path, code)])))
    thread.start()
    wait_until(lambda: pid_file.exists() and pid_file.read_text())
    launcher.stop()
    thread.join(60)
    assert not thread.is_alive()
    wait_until(lambda: not is_alive(int(pid_file.read_text())))


def test_a_run_that_a_worker_was_about_to_start_is_stopped_too(tmp_path):
    launcher = Launcher(2)
    launcher.stop()
    began = time.monotonic()
    assert launcher.launch(job(tmp_path, "import time; time.sleep(600)")).error == "stopped before its end"
    assert time.monotonic() - began < 120
