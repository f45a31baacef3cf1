"""Run a command, and record its seconds, its peak memory and its exit code: `stopwatch.py REPORT COMMAND ...`.

This is a separate process with little more than the standard library, because on Linux a process's peak memory starts
at that of its parent: launched from the evaluation, which has loaded torch, a run would never appear smaller than that.
The command and its children are stopped together with the stopwatch (SIGINT, SIGTERM, SIGHUP) and with the evaluation,
even if that is killed, so that they do not disturb a second evaluation.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

from latent_prior.files import write_text
from latent_prior.runs import signals

POLL_SECONDS = 0.5  # between two checks that the evaluation is alive
INTERRUPTED = 130


def main(report: Path, command: list[str]) -> int:
    """Returns 0 once the command has ended and `report` is written, 130 if it was stopped earlier."""
    process, stopped = None, False

    def stop(*_: Any) -> None:  # not by an exception, which a second signal would interrupt
        nonlocal stopped
        stopped = True
        if process is not None:
            _kill(process.pid)

    signals.install(stop)
    evaluation = os.getppid()
    begun = time.monotonic()
    process = subprocess.Popen(command, start_new_session=True)  # only we get Ctrl-C, and it can be killed as a group
    if stopped:  # meanwhile
        _kill(process.pid)
    threading.Thread(target=_kill_when_orphaned, args=(process.pid, evaluation), daemon=True).start()
    _, status, usage = os.wait4(process.pid, 0)
    if stopped:
        return INTERRUPTED
    figures = {
        "seconds": time.monotonic() - begun,
        "peak_bytes": usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024),  # bytes there, KiB elsewhere
        "exit_code": os.waitstatus_to_exitcode(status),
    }
    write_text(report, json.dumps(figures))
    return 0


def _kill_when_orphaned(pid: int, parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(POLL_SECONDS)
    _kill(pid)
    os._exit(INTERRUPTED)  # before the main thread reports a regular end


def _kill(group: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2:]))
