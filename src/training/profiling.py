"""Where the time of a training step goes."""

from collections import defaultdict
from pathlib import Path

import keras
import tensorflow as tf
from tensorflow.tsl.profiler.protobuf.xplane_pb2 import XSpace

from src.metrics import Logs

CONTAINERS = {"PartitionedCall", "StatefulPartitionedCall", "While", "StatelessWhile", "If", "StatelessIf"}  # of other ops


class Profile(keras.callbacks.Callback):
    """Traces some steps of the first epoch, and writes a table of them.

    In `folder` it leaves ops.txt, the time of each kind of op and of the slowest single ops, and the trace itself, which
    TensorBoard's profile plugin (XProf) shows in full.
    """

    FIRST, LAST = 10, 20  # the first steps are compiled, which is not what is asked about

    def __init__(self, folder: str):
        super().__init__()
        self.folder, self.tracing = Path(folder), False

    def on_train_batch_begin(self, batch: int, logs: Logs | None = None) -> None:
        if batch == self.FIRST and not self.tracing:
            tf.profiler.experimental.start(str(self.folder))
            self.tracing = True

    def on_train_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        if batch == self.LAST:
            self._stop()

    def on_train_end(self, logs: Logs | None = None) -> None:
        self._stop()  # where an epoch was shorter than that

    def _stop(self) -> None:
        if self.tracing:
            self.tracing = False
            tf.profiler.experimental.stop()
            (self.folder / "ops.txt").write_text(table(self.folder), encoding="utf-8")


def table(folder: Path, slowest: int = 20) -> str:
    """The ops of the traces under a folder: their number, milliseconds in all, and share of the time of all ops."""
    kinds: dict[str, list[float]] = defaultdict(list)
    names: dict[str, list[float]] = defaultdict(list)
    for path in folder.rglob("*.xplane.pb"):
        space = XSpace()
        space.ParseFromString(path.read_bytes())
        for plane in space.planes:
            for event in (event for line in plane.lines for event in line.events):
                name, _, kind = plane.event_metadata[event.metadata_id].name.rpartition(":")
                if name and kind.isidentifier() and kind not in CONTAINERS and "::" not in name:
                    milliseconds = event.duration_ps / 1e9
                    kinds[kind].append(milliseconds)
                    names[name].append(milliseconds)
    total = sum(map(sum, kinds.values())) or 1.0
    lines = [f"{'calls':>8} {'ms':>10} {'share':>7}  by kind of op"]
    lines += _rows(kinds, total, slowest)
    lines += ["", f"{'calls':>8} {'ms':>10} {'share':>7}  by single op"]
    lines += _rows(names, total, slowest)
    return "\n".join(lines) + "\n"


def _rows(times: dict[str, list[float]], total: float, slowest: int) -> list[str]:
    ordered = sorted(times.items(), key=lambda item: -sum(item[1]))[:slowest]
    return [f"{len(spent):>8} {sum(spent):>10.2f} {sum(spent) / total:>7.1%}  {name}" for name, spent in ordered]
