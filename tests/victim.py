"""`src.run` with a fault that comes at a step: `python -m tests.victim crash 17 model=lstm`. For tests/faults.py.

It leaves in the file `progress` how many steps are done, how many make an epoch, and the seconds since its first step.
"""

import os
import signal
import sys
import time

from src import cli, run, terminal

PROGRESS = "progress"
EPOCHS = 4  # of the run that is to suffer


def main(fault: str, at: int) -> None:
    """Arms the fault and runs."""
    terminal.load_tensorflow()
    from src.training import callbacks

    first, syncs = callbacks.FailOnNaN.on_train_batch_end, os.fsync
    file, done, began = os.open(PROGRESS, os.O_CREAT | os.O_RDWR), 0, None

    def step(self, batch, logs=None):
        nonlocal done, began
        first(self, batch, logs)
        if self.params["epochs"] != EPOCHS:
            return  # the training of a judge
        done = int(self.model.optimizer.iterations.numpy()) or done  # 0 as long as steps are passed over
        began = began or time.monotonic()
        os.pwrite(file, f"{done:8d} {self.params['steps']:8d} {time.monotonic() - began:8.2f}".encode(), 0)
        if done == at:
            FAULTS[fault]()
        elif fault == "disk full" and done == at + 12:  # steps; some checkpoints have failed meanwhile
            os.kill(os.getpid(), signal.SIGKILL)

    def sync(descriptor):
        if done >= at and fault == "disk full":
            raise OSError(28, "No space left on device")
        if done >= at and fault == "killed while it saves":
            os.kill(os.getpid(), signal.SIGKILL)
        syncs(descriptor)

    callbacks.FailOnNaN.on_train_batch_end, os.fsync = step, sync
    cli.run_command(run.main)


def _signal(number: int):
    return lambda: os.kill(os.getpid(), number)


def _crash() -> None:
    raise RuntimeError("an exception")


def _server_dies() -> None:
    os.killpg(int(os.environ["SERVER"]), signal.SIGKILL)


FAULTS = {
    "none": lambda: None,
    "kill -9": _signal(signal.SIGKILL),
    "Ctrl-C": _signal(signal.SIGINT),
    "SIGTERM": _signal(signal.SIGTERM),
    "exception": _crash,
    "killed while it saves": lambda: None,
    "disk full": lambda: None,
    "machine lost": _signal(signal.SIGKILL),
    "server dies": _server_dies,
}


if __name__ == "__main__":
    fault, at, *sys.argv[1:] = sys.argv[1:]
    main(fault, int(at))
