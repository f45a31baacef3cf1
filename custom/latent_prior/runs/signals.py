"""Signals that end a process: Ctrl-C (SIGINT), SIGTERM (kill, schedulers) and SIGHUP (a closed terminal).

All three are treated as Ctrl-C. One that the process was started to ignore (`nohup`, a background job) stays ignored.
Outside the main thread, where Python handles no signals, nothing here has any effect.
"""

import math
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from latent_prior.runs import streams

STOPPING = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
)  # Windows has no SIGHUP
ONE_PRESS = 1.0  # seconds: a closed terminal and a scheduler send several signals at once


def install(handler: Callable[[int, Any], None]) -> dict[int, Any]:
    """Handle all three by `handler`; returns the handlers that `restore` puts back."""
    if threading.current_thread() is not threading.main_thread():
        return {}

    def on_signal(number: int, frame: Any) -> None:
        streams.let_go()  # the terminal may be closed, and what is said on the way out must not fail
        handler(number, frame)

    heard = [number for number in STOPPING if signal.getsignal(number) is not signal.SIG_IGN]
    return {number: signal.signal(number, on_signal) for number in heard}


def restore(previous: dict[int, Any]) -> None:
    """Put back what `install` replaced."""
    for number, handler in previous.items():
        signal.signal(number, handler or signal.SIG_DFL)


@contextmanager
def as_interrupt() -> Iterator[None]:
    """In the block, each of the signals raises KeyboardInterrupt; those within ONE_PRESS after it are part of it."""
    last = -math.inf

    def interrupt(number: int, frame: Any) -> None:
        nonlocal last
        before, last = last, time.monotonic()
        if last - before > ONE_PRESS:
            raise KeyboardInterrupt

    previous = install(interrupt)
    try:
        yield
    finally:
        restore(previous)


@contextmanager
def delayed() -> Iterator[None]:
    """In the block, the signals wait: for what must not be left half done, and takes only moments.

    Not by the mask of the main thread: the system would hand them to another thread, and Python to the main one.
    """
    heard: list[int] = []
    previous = install(lambda number, frame: heard.append(number))
    try:
        yield
    finally:
        restore(previous)
        for number in heard:
            signal.raise_signal(number)
