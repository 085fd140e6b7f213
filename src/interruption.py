"""How a process is asked to stop: by Ctrl-C, by a scheduler that ends the job, by a terminal that is closed."""

import signal
import threading

SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP")
_asked, _put_off = threading.Event(), threading.Event()


def listen() -> None:
    """Makes each of the signals that this system has raise KeyboardInterrupt."""
    for name in SIGNALS:
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), _interrupt)


def put_off(until_checked: bool) -> None:
    """Whether the first signal raises nothing until `check` is called; the second one always does."""
    _put_off.set() if until_checked else _put_off.clear()


def asked() -> bool:
    """Whether a signal has come."""
    return _asked.is_set()


def check() -> None:
    """Raises KeyboardInterrupt if a signal has come: put off, or dropped, as Python does while a finalizer runs."""
    if asked():
        raise KeyboardInterrupt


def _interrupt(number: int, frame) -> None:
    again = asked()
    _asked.set()
    if again or not _put_off.is_set():
        raise KeyboardInterrupt
