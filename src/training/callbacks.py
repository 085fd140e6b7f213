"""Callbacks: best weights, non-finite values, signals, previews, logging."""

import contextlib
import json
import logging
import math
import textwrap
import time
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
from matplotlib.figure import Figure

from src import signals, terminal
from src.cluster import Cluster
from src.config import schema
from src.errors import UserError
from src.metrics import TRAIN, VALIDATION, Logs, format_value
from src.tasks.base import Task
from src.training import keras_patches, optimizers
from src.training.agreement import Agreement
from src.training.execution import Execution

log = logging.getLogger(__name__)

LogMetrics = Callable[[dict[str, float], int], None]  # (metrics, step)
LogSamples = Callable[[Callable[[], dict[str, Figure | str]], int], None]  # (function that draws the samples, epoch)


class BestWeights(keras.callbacks.EarlyStopping):
    """Keras's early stopping and restoring of the best weights, with a state that can be saved in a checkpoint."""

    STATE = ("wait", "stopped_epoch", "best", "best_epoch")

    def on_epoch_end(self, epoch: int, logs: Logs) -> None:
        """Skip epochs without the monitored metric: metrics of previews are not computed in every epoch."""
        if self.monitor in logs:
            super().on_epoch_end(epoch, logs)

    def get_state(self) -> dict:
        """The best value, its epoch and weights, and the number of epochs without improvement."""
        return {name: getattr(self, name) for name in self.STATE} | {"weights": self.best_weights or []}

    def set_state(self, state: dict) -> None:
        """Restore what `get_state` returned."""
        self.best_weights = state.pop("weights") or None
        for name, value in state.items():
            setattr(self, name, value)


class FailOnNaN(keras.callbacks.Callback):
    """Ends a run whose loss or gradient is not finite, and names the layer where that began.

    Args:
        execution: of the steps; it ends with the first whose loss or gradient is not finite.
        batch_inputs: returns the inputs of the batch of (epoch, step), both counted from 0.
    """

    def __init__(self, execution: Execution, batch_inputs: Callable[[int, int], object]):
        super().__init__()
        self.execution, self.batch_inputs = execution, batch_inputs

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        self.epoch = epoch

    def on_train_batch_end(self, batch: int, logs: Logs) -> None:
        """Check loss and gradient. The loss here is the mean over the epoch so far: one non-finite step is enough."""
        optimizer = optimizers.unwrap(self.model.optimizer)
        weights, loss = optimizer.non_finite_gradients(), logs["loss"]
        if math.isfinite(loss) and not weights:
            return
        step = self.execution.step
        layer = first_non_finite_layer(self.model, self.batch_inputs(self.epoch, step - 1))
        if layer:
            event, place = f"The loss became {loss}", f"the first layer whose output is not finite is '{layer}'"
        elif math.isfinite(loss):  # backpropagation proceeds from the output to the input: its first layer is the last one
            event, place = (
                "The gradient became nan or inf",
                f"the first layer where it did is '{weights[-1].rpartition('/')[0]}'",
            )
        else:
            event, place = f"The loss became {loss}", "the outputs of all layers are finite"
        raise UserError(
            f"{event} in epoch {self.epoch + 1}, step {step}; {place}. "
            "A smaller optimizer.learning_rate, optimizer.clip_norm=1.0 or training.precision=float32 may help."
        )


def first_non_finite_layer(model: keras.Model, inputs: object) -> str | None:
    """The path of the first layer, in the order of computation, whose output is not finite; None if all outputs are."""
    paths: list[str] = []

    def check(layer: keras.layers.Layer, output: Any) -> None:
        arrays = [np.asarray(tensor, np.float32) for tensor in keras.tree.flatten(output) if _is_floating(tensor)]
        if not paths and not all(np.isfinite(array).all() for array in arrays):
            paths.append(layer.path or layer.name)

    with keras_patches.observe_layers(check):
        model(inputs, training=True)
    return paths[0] if paths else None


def _is_floating(value: Any) -> bool:
    return keras.ops.is_tensor(value) and keras.backend.is_float_dtype(keras.backend.standardize_dtype(value.dtype))


class GracefulStop(keras.callbacks.Callback):
    """Stops a run on a signal: within an epoch after the execution, so that a checkpoint can be saved; elsewhere at once.

    Args:
        execution: of the steps.
        agreement: of several workers, which stop after the same step; None: there is only this one.
    """

    def __init__(self, execution: Execution, agreement: Agreement | None = None):
        super().__init__()
        self.execution, self.agreement = execution, agreement

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        signals.defer(enabled=True)

    def on_train_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        if self.execution.step == self.execution.steps:
            signals.defer(enabled=False)
        if self.agreement is None:
            signals.raise_if_requested()
        elif self.agreement.stop:
            raise KeyboardInterrupt


class GradientNorm(keras.callbacks.Callback):
    """Adds the gradient norms that a `TrackGradientNorm` optimizer has measured to the metrics of an epoch."""

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        if self.model.optimizer.built:
            optimizers.unwrap(self.model.optimizer).reset_norms()

    def on_epoch_end(self, epoch: int, logs: Logs) -> None:
        logs.update(optimizers.unwrap(self.model.optimizer).norms())


class SamplePreview(keras.callbacks.Callback):
    """Logs samples of a generative model, and their metrics, several times during training and at its end.

    Args:
        task: makes the preview.
        log_metrics: called with the metrics.
        log_samples: called with a function that draws the figures.
        training: number of previews and of epochs.
        cluster: the workers, of which the chief samples; None: there are no others.
    """

    def __init__(
        self, task: Task, log_metrics: LogMetrics, log_samples: LogSamples, training: schema.Training,
        cluster: Cluster | None = None,
    ):  # fmt: skip
        super().__init__()
        self.cluster = cluster
        self.task, self.log_metrics, self.log_samples = task, log_metrics, log_samples
        self.epochs = set(np.linspace(0, training.epochs, training.previews + 1).round().astype(int)[1:].tolist())

    def on_epoch_end(self, epoch: int, logs: Logs) -> None:
        """Log a preview in the epochs where one is due."""
        if epoch + 1 not in self.epochs:
            return
        metrics: dict[str, float]
        if self.cluster and not self.cluster.is_chief:
            metrics = json.loads(self.cluster.broadcast())
        else:
            with terminal.phase("Sampling for a preview"):
                metrics, draw = self.task.preview(self.model)
            self.log_samples(draw, epoch + 1)
            if self.cluster:
                self.cluster.broadcast(json.dumps(metrics).encode())
        logs.update({f"val_{name}": metrics[name] for name in self.task.preview_metrics})
        if metrics:
            self.log_metrics({f"{VALIDATION}{name}": value for name, value in metrics.items()}, epoch + 1)


class MetricReporter(keras.callbacks.Callback):
    """Reports the monitored metric to a search after every epoch that has it, except the last: pruning would save nothing.

    Args:
        monitor: name of the metric.
        report: called with the value and the epoch; raises to end the run.
    """

    def __init__(self, monitor: str, report: Callable[[float, int], None]):
        super().__init__()
        self.monitor, self.report = monitor, report

    def on_epoch_end(self, epoch: int, logs: Logs) -> None:
        if self.monitor in logs and epoch + 1 < self.params["epochs"]:
            self.report(float(logs[self.monitor]), epoch + 1)


class Progress(keras.callbacks.Callback):
    """Shows how far the training is, the loss of the epoch so far, and how long it will take.

    Args:
        epochs: of the run.
        execution: of the steps.
    """

    def __init__(self, epochs: int, execution: Execution):
        super().__init__()
        self.epochs, self.execution = epochs, execution

    @contextlib.contextmanager
    def phase(self) -> Iterator[None]:
        """Show it while the block trains."""
        with terminal.phase("Training", self.epochs * self.execution.steps) as self._phase:
            yield

    @property
    def seconds_left(self) -> float | None:
        """Estimate of the seconds that the training still takes; None if there is none yet."""
        return self._phase.seconds_left

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        self.epoch = epoch

    def on_train_batch_end(self, batch: int, logs: Logs) -> None:
        if self.execution.taken:
            note = f"epoch {self.epoch + 1}/{self.epochs}, loss {format_value(logs['loss'], 'loss')}"
            self._phase.update(self.epoch * self.execution.steps + self.execution.step, note=note)

    def on_test_begin(self, logs: Logs | None = None) -> None:
        self._phase.note = f"epoch {self.epoch + 1}/{self.epochs}, evaluating on the validation set"


class EpochLogger(keras.callbacks.Callback):
    """Logs the metrics and the throughput of every epoch, and writes a line for it.

    Args:
        log_metrics: called with the metrics.
        training: number of epochs and batch size.
        steps: steps of an epoch.
        skipped_steps: of the first epoch, in a run that resumes within it.
        progress: of the training.
    """

    def __init__(
        self, log_metrics: LogMetrics, training: schema.Training, steps: int, skipped_steps: int, progress: Progress
    ):  # fmt: skip
        super().__init__()
        self.log_metrics, self.training, self.steps, self.skipped_steps = log_metrics, training, steps, skipped_steps
        self.progress = progress

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        """Start the clock."""
        self.start = time.perf_counter()
        self.seconds: float | None = None

    def on_test_begin(self, logs: Logs | None = None) -> None:
        """Stop the clock: the throughput is that of training alone."""
        self.seconds = time.perf_counter() - self.start

    def on_epoch_end(self, epoch: int, logs: Logs) -> None:
        """Log the metrics: `val_loss` as epoch/val/loss, `loss` as epoch/train/loss."""
        seconds = self.seconds or time.perf_counter() - self.start
        metrics = {
            f"{VALIDATION}{key[4:]}" if key.startswith("val_") else f"{TRAIN}{key}": value for key, value in logs.items()
        }
        metrics["learning_rate"] = float(self.model.optimizer.learning_rate)
        metrics["examples_per_second"] = (self.steps - self.skipped_steps) * self.training.batch_size / seconds
        self.skipped_steps = 0
        self.log_metrics(metrics, epoch + 1)
        log.info("%s", epoch_line(epoch + 1, self.training.epochs, metrics, self.progress.seconds_left))


def epoch_line(epoch: int, epochs: int, metrics: dict[str, float], seconds_left: float | None) -> str:
    """The line of an epoch: "epoch 3/20  1:15 left  train: loss 0.2563, accuracy 92.34 %  val: …", wrapped if it is too long.

    Args:
        epoch: its number, from 1.
        epochs: of the run.
        metrics: as they are logged: "epoch/train/loss", "epoch/val/loss", …
        seconds_left: of the training, if that can be estimated.
    """
    start = f"epoch {epoch}/{epochs}"
    left = seconds_left is not None and epoch < epochs
    groups = [f"{terminal.format_duration(seconds_left or 0)} left"] if left else []
    for split, heading in ((TRAIN, "train"), (VALIDATION, "val")):
        values = [
            f"{name.removeprefix(split).replace('_', ' ')} {format_value(value, name)}"
            for name, value in metrics.items()
            if name.startswith(split)
        ]
        groups += [f"{heading}: {', '.join(values)}"] if values else []
    groups.append(f"lr {metrics['learning_rate']:.3g}")
    groups.append(f"{metrics['examples_per_second']:,.0f}\N{NO-BREAK SPACE}examples/s")
    text = textwrap.fill("  ".join([start, *groups]), terminal.WIDTH, subsequent_indent=" " * (len(start) + 2))
    return text.replace("\N{NO-BREAK SPACE}", " ")
