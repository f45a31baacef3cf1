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
import time
from concurrent import futures
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from latent_prior.files import write_text
from latent_prior.runs import signals

POLL_SECONDS = 0.5  # between two checks whether to go on
INTERRUPTED = 130


def main(report: Path, command: list[str]) -> int:
    """Returns 0 once the command has ended and `report` is written, 130 if it was stopped earlier."""
    stopped = False

    def stop(*_: Any) -> None:
        nonlocal stopped
        stopped = True

    signals.install(stop)
    evaluation = os.getppid()
    begun = time.monotonic()
    process = subprocess.Popen(command, start_new_session=True)  # only we get Ctrl-C, and it can be killed as a group
    with ThreadPoolExecutor(1) as pool:
        # in a thread, because a signal that comes just before such a call does not end it
        ended = pool.submit(os.wait4, process.pid, 0)
        while not ended.done():
            stopped = stopped or os.getppid() != evaluation
            if stopped:
                _kill(process.pid)
            futures.wait([ended], POLL_SECONDS)
    if stopped:
        return INTERRUPTED
    _, status, usage = ended.result()
    figures = {
        "seconds": time.monotonic() - begun,
        "peak_bytes": usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024),  # bytes there, KiB elsewhere
        "exit_code": os.waitstatus_to_exitcode(status),
    }
    write_text(report, json.dumps(figures))
    return 0


def _kill(group: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2:]))
