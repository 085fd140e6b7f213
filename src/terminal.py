"""What a process writes to its terminal: its log, and of libraries only what matters."""

import contextlib
import logging
import os
import sys
import tempfile
from collections.abc import Iterator

from src.redaction import RedactingFormatter


def load_tensorflow() -> None:
    """Imports TensorFlow and lets it look for devices, keeping to itself what its libraries write to stderr meanwhile.

    They write some of it before any setting (TF_CPP_MIN_LOG_LEVEL) is read: on oneDNN, on the CPU, on GPUs that are not
    there. If loading fails, all that was kept is shown.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # the same messages, later
    if threads := os.environ.get("OMP_NUM_THREADS"):  # what joblib and Ray give to each job that runs beside others
        for name in ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"):
            os.environ.setdefault(name, threads)
    with quiet():
        import tensorflow as tf

        tf.config.list_physical_devices()


def log_to_terminal() -> None:
    """What Hydra does for `src.run`, for the other commands."""
    terminal = logging.StreamHandler(sys.stdout)
    terminal.setFormatter(RedactingFormatter("%(message)s"))
    logging.basicConfig(handlers=[terminal], level=logging.WARNING)
    logging.getLogger("src").setLevel(logging.INFO)
    for name in ("absl", "tensorflow"):
        logging.getLogger(name).setLevel(logging.ERROR)


def begin_lines_with(prefix: str) -> None:
    """Tells apart, in one terminal, what jobs say that run side by side."""
    for handler in logging.getLogger().handlers:
        if type(handler) is logging.StreamHandler:  # not the file
            handler.setFormatter(RedactingFormatter(f"{prefix}%(message)s"))


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keeps back what anything in this process, libraries in C++ as well, writes to stderr; shows it if something fails."""
    sys.stderr.flush()
    terminal = os.dup(2)
    with tempfile.TemporaryFile() as kept:
        os.dup2(kept.fileno(), 2)
        try:
            yield
        except BaseException:
            kept.seek(0)
            os.write(terminal, kept.read())
            raise
        finally:
            sys.stderr.flush()
            os.dup2(terminal, 2)
            os.close(terminal)
