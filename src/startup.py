"""Loads TensorFlow without the messages of its start-up."""

import os
import sys
import tempfile


def load_tensorflow() -> None:
    """Imports TensorFlow and lets it look for devices, keeping to itself what its libraries write to stderr meanwhile.

    They write some of it before any setting (TF_CPP_MIN_LOG_LEVEL) is read: on oneDNN, on the CPU, on GPUs that are not
    there. If loading fails, all that was kept is shown.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # the same messages, later
    sys.stderr.flush()
    terminal = os.dup(2)
    with tempfile.TemporaryFile() as kept:
        os.dup2(kept.fileno(), 2)
        try:
            import tensorflow as tf

            tf.config.list_physical_devices()
        except BaseException:
            kept.seek(0)
            os.write(terminal, kept.read())
            raise
        finally:
            os.dup2(terminal, 2)
            os.close(terminal)
