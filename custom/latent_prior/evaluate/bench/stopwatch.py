"""Run a command, and record its seconds, its peak memory and its exit code: `stopwatch.py REPORT COMMAND ...`.

This is a separate process with little more than the standard library, because on Linux a process's peak memory starts
at that of its parent: launched from the evaluation, which has loaded torch, a run would never appear smaller than that.
The command and its children are stopped together with the stopwatch (SIGINT, SIGTERM) and with the evaluation, even if
that is killed, so that they do not disturb a second evaluation.
"""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

from latent_prior.files import write_text

POLL_SECONDS = 0.5  # between two checks that the evaluation is alive
INTERRUPTED = 130


def main(report: Path, command: list[str]) -> int:
    """Returns 0 once the command has ended and `report` is written, 130 if it was stopped earlier."""
    for ours in (signal.SIGINT, signal.SIGTERM):
        signal.signal(ours, signal.default_int_handler)
    evaluation = os.getppid()
    begun = time.monotonic()
    process = subprocess.Popen(command, start_new_session=True)  # only we get Ctrl-C, and it can be killed as a group
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
    write_text(report, json.dumps(figures))
    return 0


def _kill_when_orphaned(pid: int, parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(POLL_SECONDS)
    os.killpg(pid, signal.SIGKILL)
    os._exit(INTERRUPTED)  # before the main thread reports a regular end


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2:]))
