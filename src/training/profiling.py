"""Profiling of training steps."""

from collections import defaultdict
from pathlib import Path

import keras
import tensorflow as tf

from src.metrics import Logs
from src.training.execution import Execution
from src.training.tensorflow_patches import XSpace

CONTAINERS = {"PartitionedCall", "StatefulPartitionedCall", "While", "StatelessWhile", "If", "StatelessIf"}  # of other ops


class Profile(keras.callbacks.Callback):
    """Traces some steps of the first epoch, and writes a table of their ops.

    Args:
        execution: of the steps.
        folder: where it writes ops.txt, the time by type of op and of the slowest ops, and the trace, for TensorBoard's profile
            plugin (XProf).
    """

    FIRST, LAST = 10, 20  # not the first steps, which trace and compile

    def __init__(self, execution: Execution, folder: str):
        super().__init__()
        self.execution, self.folder, self.tracing = execution, Path(folder), False

    def on_train_batch_begin(self, batch: int, logs: Logs | None = None) -> None:
        if self.execution.step == self.FIRST and not self.tracing:
            tf.profiler.experimental.start(str(self.folder))
            self.tracing = True

    def on_train_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        if self.execution.step > self.LAST:
            self._stop()

    def on_train_end(self, logs: Logs | None = None) -> None:
        self._stop()  # the epoch may have had fewer steps

    def _stop(self) -> None:
        if self.tracing:
            self.tracing = False
            tf.profiler.experimental.stop()
            (self.folder / "ops.txt").write_text(op_table(self.folder), encoding="utf-8")


def op_table(folder: Path, slowest: int = 20) -> str:
    """Format the ops of the traces under a folder: calls, total milliseconds, and share of the time of all ops.

    Args:
        folder: of the traces.
        slowest: number of rows by type of op, and of rows by op.
    """
    by_type: dict[str, list[float]] = defaultdict(list)
    by_name: dict[str, list[float]] = defaultdict(list)
    for path in folder.rglob("*.xplane.pb"):
        space = XSpace()
        space.ParseFromString(path.read_bytes())
        for plane in space.planes:
            for event in (event for line in plane.lines for event in line.events):
                name, _, op_type = plane.event_metadata[event.metadata_id].name.rpartition(":")
                if name and op_type.isidentifier() and op_type not in CONTAINERS and "::" not in name:
                    milliseconds = event.duration_ps / 1e9
                    by_type[op_type].append(milliseconds)
                    by_name[name].append(milliseconds)
    total = sum(map(sum, by_type.values())) or 1.0
    lines = [f"{'calls':>8} {'ms':>10} {'share':>7}  by type of op"]
    lines += _rows(by_type, total, slowest)
    lines += ["", f"{'calls':>8} {'ms':>10} {'share':>7}  by op"]
    lines += _rows(by_name, total, slowest)
    return "\n".join(lines) + "\n"


def _rows(times: dict[str, list[float]], total: float, slowest: int) -> list[str]:
    ordered = sorted(times.items(), key=lambda item: -sum(item[1]))[:slowest]
    return [
        f"{len(durations):>8} {sum(durations):>10.2f} {sum(durations) / total:>7.1%}  {name}" for name, durations in ordered
    ]
