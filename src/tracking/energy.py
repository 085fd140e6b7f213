"""Energy use of this machine, where its hardware has energy counters.

CPUs: RAPL counters of Intel and AMD, which Linux shows under /sys/class/powercap, on many systems to root only; they do not
include memory and disks (https://docs.kernel.org/power/powercap/powercap.html). GPUs: NVIDIA's counters, through NVML.
"""

import contextlib
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from src.training import gpu

POWERCAP = Path("/sys/class/powercap")


class Counter(NamedTuple):
    """A cumulative energy counter.

    Attributes:
        read: returns joules since an arbitrary start.
        max_joules: the value after which the counter starts at 0 again.
    """

    read: Callable[[], float]
    max_joules: float


class EnergyMeter:
    """Adds up all energy counters of this machine from now on, whichever process uses the energy. False if there is no counter.

    Args:
        powercap: folder of the CPU counters.
    """

    def __init__(self, powercap: Path = POWERCAP):
        self._counters = [*_cpu_counters(powercap), *_gpu_counters()]
        self._last = [counter.read() for counter in self._counters]
        self._joules = 0.0

    def __bool__(self) -> bool:
        """Whether this machine has an energy counter."""
        return bool(self._counters)

    def joules(self) -> float:
        """Joules since the meter was created. To be called more often than a counter wraps around, which takes minutes."""
        for index, counter in enumerate(self._counters):
            now = counter.read()
            used = now - self._last[index]
            self._joules += used if used >= 0 else used + counter.max_joules
            self._last[index] = now
        return self._joules


def _cpu_counters(powercap: Path) -> list[Counter]:
    """One counter for each socket; its subzones (cores, memory controller) are included in it."""
    counters = []
    for socket in sorted(powercap.glob("intel-rapl:*")):
        if socket.name.count(":") > 1:
            continue

        def read(file: Path = socket / "energy_uj") -> float:
            return int(file.read_text()) / 1e6

        with contextlib.suppress(OSError, ValueError):  # not readable for this user
            read()
            counters.append(Counter(read, int((socket / "max_energy_range_uj").read_text()) / 1e6))
    return counters


def _gpu_counters() -> list[Counter]:
    """One counter for each GPU that this process may use."""
    counters = []
    with contextlib.suppress(Exception):  # NVML or the driver is missing, or the GPU has no counter
        import pynvml

        pynvml.nvmlInit()
        for name in gpu.visible_gpus():
            get_handle = pynvml.nvmlDeviceGetHandleByIndex if name.isdigit() else pynvml.nvmlDeviceGetHandleByUUID
            handle = get_handle(int(name) if name.isdigit() else name)

            def read(handle: Any = handle) -> float:
                return pynvml.nvmlDeviceGetTotalEnergyConsumption(handle) / 1e3  # millijoules

            read()
            counters.append(Counter(read, math.inf))
    return counters
