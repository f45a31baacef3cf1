"""Signals that end a process: Ctrl-C (SIGINT), SIGTERM (kill, schedulers) and SIGHUP (a closed terminal).

All three are treated as Ctrl-C. One that the process was started to ignore (`nohup`, a background job) stays ignored.
Outside the main thread, where Python handles no signals, nothing here has any effect.
"""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

STOPPING = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
)  # Windows has no SIGHUP


def install(handler: Callable[[int, Any], None]) -> dict[int, Any]:
    """Handle all three by `handler`; returns the handlers that `restore` puts back."""
    if threading.current_thread() is not threading.main_thread():
        return {}
    heard = [number for number in STOPPING if signal.getsignal(number) is not signal.SIG_IGN]
    return {number: signal.signal(number, handler) for number in heard}


def restore(previous: dict[int, Any]) -> None:
    """Put back what `install` replaced."""
    for number, handler in previous.items():
        signal.signal(number, handler or signal.SIG_DFL)


@contextmanager
def as_interrupt() -> Iterator[None]:
    """In the block, each of the signals raises KeyboardInterrupt."""
    previous = install(_interrupt)
    try:
        yield
    finally:
        restore(previous)


@contextmanager
def delayed() -> Iterator[None]:
    """In the block, the signals wait: for what must not be left half done, and takes only moments."""
    if not hasattr(signal, "pthread_sigmask") or threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _interrupt(number: int, frame: Any) -> None:
    raise KeyboardInterrupt
