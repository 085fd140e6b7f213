"""How a process is asked to stop: by Ctrl-C, by a scheduler that ends the job, by a terminal that is closed."""

import signal
import threading

SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP")
_asked = threading.Event()


def listen() -> None:
    """Makes each of the signals that this system has raise KeyboardInterrupt."""
    for name in SIGNALS:
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), _interrupt)


def check() -> None:
    """Raises it again: Python drops an exception that comes while a finalizer runs."""
    if _asked.is_set():
        raise KeyboardInterrupt


def _interrupt(number: int, frame) -> None:
    _asked.set()
    raise KeyboardInterrupt
