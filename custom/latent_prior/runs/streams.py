"""What a process says when nobody listens any more: its terminal is closed, or the reader of its pipe has gone."""

import os
import select
import sys
from collections.abc import Callable
from typing import Any

STREAMS = {1: "stdout", 2: "stderr"}


def let_go() -> bool:
    """Point stdout and stderr at nothing where writing to them would fail; whether there was one.

    They may also be closed from the start: then a file that is opened later would take their place, and whatever
    libraries print.
    """
    gone = [number for number in STREAMS if _is_gone(number)]
    for number in gone:
        nothing = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nothing, number)
        if nothing != number:
            os.close(nothing)
        if getattr(sys, STREAMS[number]) is None:
            setattr(sys, STREAMS[number], os.fdopen(number, "w", closefd=False))
    return bool(gone)


def _is_gone(number: int) -> bool:
    if not hasattr(select, "poll"):  # Windows
        return False
    poll = select.poll()
    poll.register(number, 0)
    return any(event & (select.POLLERR | select.POLLHUP | select.POLLNVAL) for _, event in poll.poll(0))


class Stderr:
    """stderr for a bar. A reader that has gone stops no training: tqdm raises for a pipe, though not for a terminal."""

    def write(self, text: str) -> None:
        self._try(lambda: sys.stderr.write(text))

    def flush(self) -> None:
        self._try(sys.stderr.flush)

    def _try(self, action: Callable[[], Any]) -> None:
        try:
            action()
        except BrokenPipeError:
            let_go()

    def __getattr__(self, name: str) -> Any:
        return getattr(sys.stderr, name)
