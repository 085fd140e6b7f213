"""What a run costs its machine: processor, memory, disk, network and GPUs, every few seconds; and energy in all."""

import contextlib
import threading
from typing import Any, Self

from mlflow.system_metrics.metrics.cpu_monitor import CPUMonitor
from mlflow.system_metrics.metrics.disk_monitor import DiskMonitor
from mlflow.system_metrics.metrics.gpu_monitor import GPUMonitor
from mlflow.system_metrics.metrics.network_monitor import NetworkMonitor

from src.tracking.energy import Meter
from src.tracking.training_logger import Record

PREFIX = "system/"


class SystemMetrics:
    """Tells them from a thread of its own, as a context. MLflow's own thread gives up once a server has not answered.

    Args:
        record: is told.
        interval: seconds between two readings.
    """

    def __init__(self, record: Record, interval: float):
        self.record, self.interval = record, interval
        self.monitors = [CPUMonitor(), DiskMonitor(), NetworkMonitor()]
        with contextlib.suppress(ImportError, RuntimeError):  # no library for GPUs, or no GPU
            self.monitors.append(GPUMonitor())
        self._meter = Meter()
        self._before = record.journal.facts.get("joules", 0.0)  # it was cut short
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._work, name="system metrics", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self._ending.set()
        self._thread.join()
        if self._meter:
            with contextlib.suppress(OSError):
                self.record.metrics({"joules": self._energy()}, self.record.journal.facts["processes"])

    def _energy(self) -> float:
        joules = self._before + self._meter.joules()
        self.record.journal.know(joules=joules)
        return joules

    def _work(self) -> None:
        step = self.record.journal.last_step(PREFIX) + 1
        while not self._ending.is_set():
            values: dict[str, float] = {}
            for monitor in self.monitors:
                monitor.collect_metrics()
                values |= monitor.aggregate_metrics()
                monitor.clear_metrics()
            with contextlib.suppress(OSError):  # a full disk: what the training has to tell will say so
                self.record.metrics({f"{PREFIX}{name}": value for name, value in values.items()}, step)
                if self._meter:
                    self._energy()
            step += 1
            self._ending.wait(self.interval)
