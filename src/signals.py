"""How a process is asked to stop: by Ctrl-C, by a scheduler that ends the job, by a terminal that is closed."""

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType

import psutil

SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP")
_asked, _put_off, _others = threading.Event(), threading.Event(), threading.Event()


def listen() -> None:
    """Makes each of the signals that this system has raise KeyboardInterrupt."""
    for name in SIGNALS:
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), _interrupt)


def put_off(until_checked: bool) -> None:
    """Whether the first signal raises nothing until `check` is called; the second one always does."""
    _put_off.set() if until_checked else _put_off.clear()


@contextlib.contextmanager
def left_to_others() -> Iterator[None]:
    """In the block the first signal is one for the processes that this one has begun, which end in their own way; the second
    one raises here. Ctrl-C reaches all of them by itself, SIGTERM is handed on.
    """
    _others.set()
    try:
        yield
    finally:
        _others.clear()


def asked() -> bool:
    """Whether a signal has come."""
    return _asked.is_set()


def check() -> None:
    """Raises KeyboardInterrupt if a signal has come: put off, or dropped, as Python does while a finalizer runs."""
    if asked():
        raise KeyboardInterrupt


def _interrupt(number: int, frame: FrameType | None) -> None:
    again = asked()
    _asked.set()
    if _others.is_set() and not again:
        if number == signal.SIGTERM:
            for process in psutil.Process().children(recursive=True):
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.send_signal(number)
    elif again or not _put_off.is_set():
        raise KeyboardInterrupt
