"""Signals as interruptions, and what is said when nobody listens any more."""

import os
import pty
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from latent_prior.runs import signals

STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
CUSTOM = str(Path(__file__).parents[2] / "custom")


@pytest.fixture
def another_thread():
    """A thread that waits, and hears the signals that the main one blocks."""
    end = threading.Event()
    thread = threading.Thread(target=end.wait)
    thread.start()
    yield thread
    end.set()
    thread.join()


def kill(number):
    os.kill(os.getpid(), number)
    time.sleep(0.01)


@pytest.mark.parametrize("number", STOPPING)
def test_a_signal_raises_keyboard_interrupt_in_the_block_alone(number):
    before = {each: signal.getsignal(each) for each in STOPPING}
    with pytest.raises(KeyboardInterrupt), signals.as_interrupt():
        kill(number)
    assert {each: signal.getsignal(each) for each in STOPPING} == before


def test_several_at_once_are_one(monkeypatch):
    """The way out is not interrupted in its turn, but a later signal is heard."""
    with signals.as_interrupt():
        with pytest.raises(KeyboardInterrupt):
            kill(signal.SIGHUP)
        kill(signal.SIGTERM)
        kill(signal.SIGINT)
        monkeypatch.setattr(signals, "ONE_PRESS", 0.0)
        with pytest.raises(KeyboardInterrupt):
            kill(signal.SIGINT)


def test_an_ignored_signal_stays_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with signals.as_interrupt():
            kill(signal.SIGHUP)
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_signals_wait_for_the_end_of_the_block_whatever_threads_there_are(another_thread):
    done = []
    with pytest.raises(KeyboardInterrupt), signals.as_interrupt():
        with signals.delayed():
            for number in STOPPING:
                kill(number)
            done.append("all of it")
        done.append("more")
    assert done == ["all of it"]


def test_outside_the_main_thread_nothing_happens():
    before = {each: signal.getsignal(each) for each in STOPPING}
    found = []

    def work():
        with signals.as_interrupt(), signals.delayed():
            found.append({each: signal.getsignal(each) for each in STOPPING})

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [before]


GUARDED = """
import os, signal, sys, time
from latent_prior.cli.errors import guarded
from latent_prior.runs import streams
from tqdm import tqdm

def report():
    print("one", flush=True)
    {before}
    for _ in tqdm(range({steps}), file=streams.Stderr(), mininterval=0):
        time.sleep(0.1)
    open(sys.argv[1], "w").write("whole")
    print("two", "three" * 100_000)


code = guarded(report)
open(sys.argv[1] + ".code", "w").write(str(code))
sys.exit(code)
"""


def guarded(tmp_path, before="pass", steps=3, **streams):
    code = [sys.executable, "-c", GUARDED.format(before=before, steps=steps), str(tmp_path / "done")]
    return subprocess.Popen(code, env=os.environ | {"PYTHONPATH": CUSTOM}, **streams)


@pytest.mark.parametrize("both", [False, True])
def test_a_reader_that_goes_ends_nothing_but_the_talk(tmp_path, both):
    """`| head -1`, and `2>&1 | head -1`: the work is done, and no traceback is written."""
    process = guarded(tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT if both else subprocess.PIPE)
    assert process.stdout.readline() == b"one\n"
    process.stdout.close()
    said = b"" if both else process.stderr.read()
    assert process.wait(60) == (0 if both else 141) and b"Traceback" not in said and b"ignored" not in said
    assert (tmp_path / "done").read_text() == "whole"


@pytest.mark.parametrize("closed", ["1>&-", "2>&-", "0<&- 1>&- 2>&-"])
def test_streams_closed_from_the_start_are_nobodys_file(tmp_path, closed):
    """A file that is opened would be stdout or stderr otherwise, and hold what is printed."""
    before = "os.write(1, b'noise'); os.write(2, b'noise')"
    command = [sys.executable, "-c", GUARDED.format(before=before, steps=3), str(tmp_path / "done")]
    subprocess.run(
        ["sh", "-c", f'"$@" {closed}', "sh", *command], env=os.environ | {"PYTHONPATH": CUSTOM}, capture_output=True
    )
    assert (tmp_path / "done").read_text() == "whole" and (tmp_path / "done.code").read_text() == "0"


def test_a_closed_terminal_interrupts_and_the_way_out_is_silent(tmp_path):
    master, slave = pty.openpty()
    streams = {"stdin": slave, "stdout": slave, "stderr": slave}
    process = guarded(tmp_path, steps=600, **streams, preexec_fn=lambda: own_terminal(slave))
    close_after(b" 1/600 ", master, slave)
    assert process.wait(60) == 130
    assert (tmp_path / "done.code").read_text() == "130" and not (tmp_path / "done").exists()


def test_under_nohup_a_closed_terminal_changes_nothing(tmp_path):
    master, slave = pty.openpty()

    def ignoring():
        own_terminal(slave)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)

    process = guarded(tmp_path, steps=5, stdin=slave, stdout=slave, stderr=slave, preexec_fn=ignoring)
    close_after(b" 1/5 ", master, slave)
    process.wait(60)
    assert (tmp_path / "done").read_text() == "whole"


def close_after(text: bytes, master: int, slave: int) -> None:
    """Close a terminal once it shows the text."""
    os.close(slave)
    shown = b""
    while text not in shown:
        shown += os.read(master, 1000)
    os.close(master)


def own_terminal(slave: int) -> None:
    """Make it this process's, which a hangup is told to."""
    import fcntl
    import termios

    os.setsid()
    fcntl.ioctl(slave, termios.TIOCSCTTY, 0)
