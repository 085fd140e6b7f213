"""Which GPU is a job's own, where several jobs run side by side on a machine that has several."""

import contextlib
import functools
import os
from collections.abc import Sequence
from pathlib import Path

import filelock

VISIBLE = "CUDA_VISIBLE_DEVICES"
_held: list[filelock.BaseFileLock] = []  # by this process, until it ends


def there() -> list[str]:
    """The GPUs that this process may use, by the names that CUDA has for them; found without loading any library."""
    if VISIBLE in os.environ:
        return [name for name in os.environ[VISIBLE].split(",") if name]
    with contextlib.suppress(OSError):
        return [str(number) for number in range(len(list(Path("/proc/driver/nvidia/gpus").iterdir())))]
    return []


@functools.cache
def take(folder: Path, processes: int) -> None:
    """Makes one of them the only one that this process sees. Processes beyond their number share them evenly.

    Args:
        folder: that all processes of the sweep see.
        processes: that run side by side.
    """
    gpus: Sequence[str] = there()
    if processes < 2 or len(gpus) < 2:
        return
    for place in range(processes):
        lock = filelock.FileLock(folder / f"gpu-{place}.lock")
        with contextlib.suppress(filelock.Timeout):
            lock.acquire(blocking=False)
            _held.append(lock)
            os.environ[VISIBLE] = gpus[place % len(gpus)]
            return
