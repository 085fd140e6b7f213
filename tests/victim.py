"""`src.run` with a fault at a given step: `python -m tests.victim crash 17 model=lstm`. For tests/faults.py.

It writes to the file `progress`: the number of completed steps, the steps of an epoch, and the seconds since the first step.
"""

import os
import signal
import sys
import time

from src import cli, run, terminal

PROGRESS_FILE = "progress"
EPOCHS = 4  # of the run that gets the fault
DISK_FULL_STEPS = 12  # steps after which a process on a full disk is killed; some checkpoints have failed by then


def main(fault: str, fault_step: int) -> None:
    """Install the fault and run."""
    terminal.load_tensorflow()
    from src.training import callbacks

    original_on_train_batch_end, original_fsync = callbacks.FailOnNaN.on_train_batch_end, os.fsync
    file, completed, start = os.open(PROGRESS_FILE, os.O_CREAT | os.O_RDWR), 0, None
    pending = {fault_step}

    def on_train_batch_end(self, batch, logs=None):
        nonlocal completed, start  # an execution may have several steps
        original_on_train_batch_end(self, batch, logs)
        if self.params["epochs"] != EPOCHS:
            return  # the training of a reference classifier
        completed = int(self.model.optimizer.iterations.numpy()) or completed  # 0 while a resumed run skips steps
        start = start or time.monotonic()
        os.pwrite(file, f"{completed:8d} {self.execution.steps:8d} {time.monotonic() - start:8.2f}".encode(), 0)
        if 0 <= fault_step <= completed and pending:
            pending.clear()
            FAULTS[fault]()
        elif fault == "disk full" and completed >= fault_step + DISK_FULL_STEPS:
            os.kill(os.getpid(), signal.SIGKILL)

    def fsync(descriptor):
        if completed >= fault_step and fault == "disk full":
            raise OSError(28, "No space left on device")
        if completed >= fault_step and fault == "killed while it saves":
            os.kill(os.getpid(), signal.SIGKILL)
        original_fsync(descriptor)

    callbacks.FailOnNaN.on_train_batch_end, os.fsync = on_train_batch_end, fsync
    cli.run_command(run.main)


def _send_signal(number: int):
    return lambda: os.kill(os.getpid(), number)


def _crash() -> None:
    raise RuntimeError("an exception")


def _kill_server() -> None:
    os.killpg(int(os.environ["SERVER"]), signal.SIGKILL)


FAULTS = {
    "none": lambda: None,
    "kill -9": _send_signal(signal.SIGKILL),
    "Ctrl-C": _send_signal(signal.SIGINT),
    "SIGTERM": _send_signal(signal.SIGTERM),
    "exception": _crash,
    "killed while it saves": lambda: None,
    "disk full": lambda: None,
    "machine lost": _send_signal(signal.SIGKILL),
    "server dies": _kill_server,
}


if __name__ == "__main__":
    fault, fault_step, *sys.argv[1:] = sys.argv[1:]
    main(fault, int(fault_step))
