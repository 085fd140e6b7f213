"""System metrics of a run (CPU, memory, disk, network, GPUs), every few seconds, and the energy that it used."""

import contextlib
import threading
from typing import Any, Self

from src.tracking.energy import EnergyMeter
from src.tracking.mlflow_patches import system_metrics_monitors
from src.tracking.run_logger import RunLogger

PREFIX = "system/"  # of the names of the metrics


class SystemMetricsMonitor:
    """Context manager that logs system metrics from a thread. MLflow's own monitor stops once a server has not answered.

    Args:
        run_logger: logs the metrics.
        interval: seconds between two measurements.
    """

    def __init__(self, run_logger: RunLogger, interval: float):
        self.run_logger, self.outbox, self.interval = run_logger, run_logger.outbox, interval
        self.monitors = system_metrics_monitors()
        self._energy_meter = EnergyMeter()
        self._previous_joules = self.outbox.metadata.get("joules", 0.0)  # of earlier processes of a resumed run
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._monitor, name="system metrics", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self._stop.set()
        self._thread.join()
        if self._energy_meter:
            with contextlib.suppress(OSError):
                self.run_logger.log_metrics({"joules": self._update_joules()}, self.outbox.metadata["processes"])

    def _update_joules(self) -> float:
        joules = self._previous_joules + self._energy_meter.joules()
        self.outbox.update_metadata(joules=joules)
        return joules

    def _monitor(self) -> None:
        step = self.outbox.last_step(PREFIX) + 1
        while not self._stop.is_set():
            values: dict[str, float] = {}
            for monitor in self.monitors:
                monitor.collect_metrics()
                values |= monitor.aggregate_metrics()
                monitor.clear_metrics()
            with contextlib.suppress(OSError):  # the disk is full: the training will report it
                self.run_logger.log_metrics({f"{PREFIX}{name}": value for name, value in values.items()}, step)
                if self._energy_meter:
                    self._update_joules()
            step += 1
            self._stop.wait(self.interval)
