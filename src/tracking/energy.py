"""The energy that this machine uses, where it counts that itself.

Processors: RAPL of Intel and AMD, which Linux shows under /sys/class/powercap, on many systems to root alone; memory and disks
are not in it (https://docs.kernel.org/power/powercap/powercap.html). GPUs: the counters of NVIDIA's, through NVML.
"""

import contextlib
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from src.training import gpu

POWERCAP = Path("/sys/class/powercap")


class Counter(NamedTuple):
    """Counts joules from some time on; after `wraps` it begins again."""

    read: Callable[[], float]
    wraps: float


class Meter:
    """Adds up what all counters of this machine count from now on: of whatever runs on it.

    Args:
        powercap: folder of those of processors.
    """

    def __init__(self, powercap: Path = POWERCAP):
        self._counters = [*_processors(powercap), *_gpus()]
        self._last = [counter.read() for counter in self._counters]
        self._joules = 0.0

    def __bool__(self) -> bool:
        """Whether there is a counter."""
        return bool(self._counters)

    def joules(self) -> float:
        """Up to now. A counter that wraps is to be read more than once until it does, which takes minutes or longer."""
        for place, counter in enumerate(self._counters):
            now = counter.read()
            used = now - self._last[place]
            self._joules += used if used >= 0 else used + counter.wraps
            self._last[place] = now
        return self._joules


def _processors(powercap: Path) -> list[Counter]:
    """A counter for each socket; the parts that a socket counts apart are in it already."""
    found = []
    for socket in sorted(powercap.glob("intel-rapl:*")):
        if socket.name.count(":") > 1:
            continue

        def read(file: Path = socket / "energy_uj") -> float:
            return int(file.read_text()) / 1e6

        with contextlib.suppress(OSError, ValueError):  # not for this user to read
            read()
            found.append(Counter(read, int((socket / "max_energy_range_uj").read_text()) / 1e6))
    return found


def _gpus() -> list[Counter]:
    """A counter for each GPU that this process may use."""
    found = []
    with contextlib.suppress(Exception):  # no library for them, no driver, or a GPU that does not count
        import pynvml

        pynvml.nvmlInit()
        for name in gpu.visible_gpus():
            by = pynvml.nvmlDeviceGetHandleByIndex if name.isdigit() else pynvml.nvmlDeviceGetHandleByUUID
            handle = by(int(name) if name.isdigit() else name)

            def read(handle: Any = handle) -> float:
                return pynvml.nvmlDeviceGetTotalEnergyConsumption(handle) / 1e3  # millijoules

            read()
            found.append(Counter(read, math.inf))
    return found
