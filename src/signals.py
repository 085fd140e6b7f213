"""Signals that ask a process to stop: Ctrl-C, a scheduler that ends the job, a terminal that is closed."""

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType

import psutil

SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP")
_stop_requested, _deferred, _left_to_children = threading.Event(), threading.Event(), threading.Event()


def install_handlers() -> None:
    """Make each of these signals, as far as the system has them, raise KeyboardInterrupt."""
    for name in SIGNALS:
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), _handle)


def defer(enabled: bool) -> None:
    """Set whether the first signal raises nothing until `raise_if_requested` is called. The second one always raises."""
    _deferred.set() if enabled else _deferred.clear()


@contextlib.contextmanager
def leave_to_children() -> Iterator[None]:
    """In the block, the first signal only stops the child processes, which end in their own way; the second one raises here.

    Ctrl-C reaches child processes by itself, SIGTERM is forwarded to them.
    """
    _left_to_children.set()
    try:
        yield
    finally:
        _left_to_children.clear()


def stop_requested() -> bool:
    """Whether a signal has been received."""
    return _stop_requested.is_set()


def raise_if_requested() -> None:
    """Raise KeyboardInterrupt if a signal has been received: one that was deferred, or that Python dropped in a finalizer."""
    if stop_requested():
        raise KeyboardInterrupt


def _handle(number: int, frame: FrameType | None) -> None:
    is_first = not stop_requested()
    _stop_requested.set()
    if _left_to_children.is_set() and is_first:
        if number == signal.SIGTERM:
            for process in psutil.Process().children(recursive=True):
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.send_signal(number)
    elif not is_first or not _deferred.is_set():
        raise KeyboardInterrupt
