"""Assignment of GPUs to parallel jobs on a machine with several of them."""

import contextlib
import functools
import os
from collections.abc import Sequence
from pathlib import Path

import filelock

VISIBLE = "CUDA_VISIBLE_DEVICES"
_held_locks: list[filelock.BaseFileLock] = []  # until this process ends


def visible_gpus() -> list[str]:
    """The GPUs that this process may use, by their CUDA device names; no library is loaded to find them."""
    if VISIBLE in os.environ:
        return [name for name in os.environ[VISIBLE].split(",") if name]
    with contextlib.suppress(OSError):
        return [str(number) for number in range(len(list(Path("/proc/driver/nvidia/gpus").iterdir())))]
    return []


@functools.cache
def assign_gpu(folder: Path, processes: int) -> None:
    """Make one GPU the only visible one in this process. More processes than GPUs share them evenly.

    Args:
        folder: for locks, common to all processes of the sweep.
        processes: number of parallel processes.
    """
    gpus: Sequence[str] = visible_gpus()
    if processes < 2 or len(gpus) < 2:
        return
    for index in range(processes):
        lock = filelock.FileLock(folder / f"gpu-{index}.lock")
        with contextlib.suppress(filelock.Timeout):
            lock.acquire(blocking=False)
            _held_locks.append(lock)
            os.environ[VISIBLE] = gpus[index % len(gpus)]
            return
