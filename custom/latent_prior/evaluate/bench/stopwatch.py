"""Run a command, and write down its seconds, its peak memory and its exit code: `stopwatch.py REPORT COMMAND ...`.

A process of its own, with little more than the standard library in it, because on Linux a process's peak memory starts
with that of the one it was started from: asked for from the evaluation, which holds torch, a run would never look smaller
than that. The command and what it started are stopped with the stopwatch (SIGINT, SIGTERM) and with the evaluation, even
if that is killed, so that a second evaluation does not find them at work.
"""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

from latent_prior.files import atomic_write

POLL_SECONDS = 0.5  # between two looks for the evaluation
INTERRUPTED = 130


def main(report: Path, command: list[str]) -> int:
    """Returns 0 once the command has ended and `report` is written, 130 if it was stopped before."""
    for ours in (signal.SIGINT, signal.SIGTERM):
        signal.signal(ours, signal.default_int_handler)
    evaluation = os.getppid()
    begun = time.monotonic()
    process = subprocess.Popen(command, start_new_session=True)  # only we hear of Ctrl-C, and it can be killed whole
    try:
        threading.Thread(target=_kill_when_orphaned, args=(process.pid, evaluation), daemon=True).start()
        _, status, usage = os.wait4(process.pid, 0)
    except KeyboardInterrupt:
        os.killpg(process.pid, signal.SIGKILL)
        return INTERRUPTED
    figures = {
        "seconds": time.monotonic() - begun,
        "peak_bytes": usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024),  # bytes there, KiB elsewhere
        "exit_code": os.waitstatus_to_exitcode(status),
    }
    with atomic_write(report) as beside:
        beside.write_text(json.dumps(figures))
    return 0


def _kill_when_orphaned(pid: int, parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(POLL_SECONDS)
    os.killpg(pid, signal.SIGKILL)
    os._exit(INTERRUPTED)  # before the main thread reports an end that was none


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2:]))
