"""What a process writes to its terminal: its log, and no noise from libraries."""

import contextlib
import logging
import os
import sys
import tempfile
from collections.abc import Iterator

from src.redaction import RedactingFormatter


def load_tensorflow() -> None:
    """Import TensorFlow and initialize its devices without the messages that its libraries write to stderr.

    Some of these (on oneDNN, the CPU, missing GPUs) come before TF_CPP_MIN_LOG_LEVEL is read. They are shown if loading fails.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # the same messages, later
    if threads := os.environ.get("OMP_NUM_THREADS"):  # which joblib and Ray set for each of several parallel jobs
        for name in ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"):
            os.environ.setdefault(name, threads)
    with capture_stderr():
        import tensorflow as tf

        tf.config.list_physical_devices()


def log_to_terminal() -> None:
    """Log to stdout: this project's messages from INFO on, warnings of libraries. `src.run` replaces it by Hydra's logging."""
    terminal = logging.StreamHandler(sys.stdout)
    terminal.setFormatter(RedactingFormatter("%(message)s"))
    logging.basicConfig(handlers=[terminal], level=logging.WARNING)
    logging.getLogger("src").setLevel(logging.INFO)
    for name in ("absl", "tensorflow"):
        logging.getLogger(name).setLevel(logging.ERROR)


def prefix_log_lines(prefix: str) -> None:
    """Put a prefix before each line of the log in the terminal, which tells parallel jobs apart."""
    for handler in logging.getLogger().handlers:
        if type(handler) is logging.StreamHandler:  # not the file
            handler.setFormatter(RedactingFormatter(f"{prefix}%(message)s"))


@contextlib.contextmanager
def capture_stderr() -> Iterator[None]:
    """Capture what this process, C++ libraries included, writes to stderr in the block; print it if the block raises."""
    sys.stderr.flush()
    terminal = os.dup(2)
    with tempfile.TemporaryFile() as captured:
        os.dup2(captured.fileno(), 2)
        try:
            yield
        except BaseException:
            captured.seek(0)
            os.write(terminal, captured.read())
            raise
        finally:
            sys.stderr.flush()
            os.dup2(terminal, 2)
            os.close(terminal)
