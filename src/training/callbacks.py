"""What is watched while a model trains."""

import logging
import math
import time
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from matplotlib.figure import Figure

from src import signals
from src.config import schema
from src.errors import UserError
from src.metrics import Logs
from src.tasks.base import Task
from src.training import optimizers

log = logging.getLogger(__name__)

LogMetrics = Callable[[dict[str, float], int], None]  # (metrics, step)
LogFigures = Callable[[dict[str, Figure | str]], None]


class KeepBest(keras.callbacks.EarlyStopping):
    """Keras's own, with what a checkpoint has to know of it."""

    MEMORY = ("wait", "stopped_epoch", "best", "best_epoch")

    def on_epoch_end(self, epoch: int, logs: Logs) -> None:
        """Passes over epochs that have no such metric, as those have whose samples nobody judges."""
        if self.monitor in logs:
            super().on_epoch_end(epoch, logs)

    def memory(self) -> dict:
        """How good the best epoch was, how long ago it is, and its weights."""
        return {name: getattr(self, name) for name in self.MEMORY} | {"weights": self.best_weights or []}

    def remember(self, memory: dict) -> None:
        """Takes it back."""
        self.best_weights = memory.pop("weights") or None
        for name, value in memory.items():
            setattr(self, name, value)


class FailOnNaN(keras.callbacks.Callback):
    """Ends a run whose loss or gradient is no number any more: it would never become one again.

    Args:
        inputs: gives those of the batch of (epoch, step), counted from 0.
    """

    def __init__(self, inputs: Callable[[int, int], object]):
        super().__init__()
        self.inputs = inputs

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        self.epoch = epoch

    def on_train_batch_end(self, batch: int, logs: Logs) -> None:
        """The loss here is the mean over the epoch up to now, so the first step that is not finite shows at once."""
        optimizer = optimizers.unscaled(self.model.optimizer)
        gradients, loss = optimizer.not_finite(), logs["loss"]
        if math.isfinite(loss) and not gradients:
            return
        where = first_not_finite(self.model, self.inputs(self.epoch, batch))
        if where:
            what, who = "The loss", f"the first layer whose output is not finite is '{where}'"
        elif math.isfinite(loss):  # a gradient is found from the output to the input
            what, who = "The gradient", f"the first layer where it did is '{gradients[-1].rpartition('/')[0]}'"
        else:
            what, who = "The loss", "the outputs of all layers are finite"
        raise UserError(
            f"{what} became {loss if what == 'The loss' else 'nan or inf'} in epoch {self.epoch + 1}, step {batch + 1}; {who}. "
            "A smaller optimizer.learning_rate, optimizer.clip_norm=1.0 or training.precision=float32 may help."
        )


def first_not_finite(model: keras.Model, inputs: object) -> str | None:
    """The path of the layer that is the first to make, of finite weights or not, an output that is not finite."""
    call = keras.layers.Layer.__call__
    found: list[str] = []

    def watched(layer: keras.layers.Layer, *args: Any, **kwargs: Any) -> Any:
        output = call(layer, *args, **kwargs)
        numbers = [np.asarray(part, np.float32) for part in keras.tree.flatten(output) if _floating(part)]
        if not found and not all(np.isfinite(part).all() for part in numbers):
            found.append(layer.path or layer.name)
        return output

    keras.layers.Layer.__call__ = watched
    try:
        model(inputs, training=True)
    finally:
        keras.layers.Layer.__call__ = call
    return found[0] if found else None


def _floating(part: Any) -> bool:
    return keras.ops.is_tensor(part) and keras.backend.is_float_dtype(keras.backend.standardize_dtype(part.dtype))


class StopWhenAsked(keras.callbacks.Callback):
    """Ends a run that was asked to stop: in an epoch after the step that runs, so that it can be saved, elsewhere at once."""

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        signals.defer(enabled=True)

    def on_train_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        if batch + 1 == self.params["steps"]:
            signals.defer(enabled=False)
        signals.raise_if_requested()


class GradientNorm(keras.callbacks.Callback):
    """Adds to an epoch's metrics what an optimizer that `MeasuresGradient` has measured in it."""

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        if self.model.optimizer.built:
            optimizers.unscaled(self.model.optimizer).forget_norms()

    def on_epoch_end(self, epoch: int, logs: Logs) -> None:
        logs.update(optimizers.unscaled(self.model.optimizer).norms())


class Glance(keras.callbacks.Callback):
    """Shows, some times while it is trained and at the end, what a model makes.

    Args:
        task: knows what to show.
        log_metrics, log_figures: are told.
        training: how often; how long it takes.
    """

    def __init__(self, task: Task, log_metrics: LogMetrics, log_figures: LogFigures, training: schema.Training):
        super().__init__()
        self.task, self.log_metrics, self.log_figures = task, log_metrics, log_figures
        self.epochs = set(np.linspace(0, training.epochs, training.previews + 1).round().astype(int)[1:].tolist())

    def on_epoch_end(self, epoch: int, logs: Logs) -> None:
        """Shows it, in the epochs that are due."""
        if epoch + 1 not in self.epochs:
            return
        metrics, figures = self.task.glance(self.model)
        logs.update({f"val_{name}": metrics[name] for name in self.task.glanced})
        if metrics:
            self.log_metrics({f"val/{name}": value for name, value in metrics.items()}, epoch + 1)
        self.log_figures({f"epoch_{epoch + 1:04d}/{name}": figure for name, figure in figures.items()})


class Report(keras.callbacks.Callback):
    """Tells a search the monitored metric after every epoch that has it, but for the last one: nothing is saved any more.

    Args:
        monitor: its name.
        report: is told; raises if the run is to end there.
    """

    def __init__(self, monitor: str, report: Callable[[float, int], None]):
        super().__init__()
        self.monitor, self.report = monitor, report

    def on_epoch_end(self, epoch: int, logs: Logs) -> None:
        if self.monitor in logs and epoch + 1 < self.params["epochs"]:
            self.report(float(logs[self.monitor]), epoch + 1)


class EpochLog(keras.callbacks.Callback):
    """Tells the record, and the log, what every epoch brought and cost.

    Args:
        log_metrics: is told.
        training: how long it takes, and in what batches.
        steps: of an epoch.
        passed_over: of the first one, in a run that goes on in the middle of it.
        quiet: whether the terminal shows it too, which has no progress bar then.
    """

    def __init__(self, log_metrics: LogMetrics, training: schema.Training, steps: int, passed_over: int, quiet: bool):
        super().__init__()
        self.log_metrics, self.training, self.steps, self.passed_over = log_metrics, training, steps, passed_over
        self.level = logging.INFO if quiet else logging.DEBUG  # the progress bar has shown it already

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        """Starts the clock."""
        self.began = time.perf_counter()
        self.seconds: float | None = None

    def on_test_begin(self, logs: Logs | None = None) -> None:
        """Stops the clock: validation is no training."""
        self.seconds = time.perf_counter() - self.began

    def on_epoch_end(self, epoch: int, logs: Logs) -> None:
        """Passes on the metrics: `val_loss` as val/loss, `loss` as train/loss."""
        seconds = self.seconds or time.perf_counter() - self.began
        named = {f"val/{key[4:]}" if key.startswith("val_") else f"train/{key}": value for key, value in logs.items()}
        named["learning_rate"] = float(self.model.optimizer.learning_rate)
        named["examples_per_second"] = (self.steps - self.passed_over) * self.training.batch_size / seconds
        self.passed_over = 0
        self.log_metrics(named, epoch + 1)
        shown = "  ".join(f"{name} {value:.4g}" for name, value in named.items())
        log.log(self.level, "epoch %d/%d  %s", epoch + 1, self.training.epochs, shown)
