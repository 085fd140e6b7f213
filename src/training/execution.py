"""Executions: training steps that TensorFlow takes in one call.

A return to Python after every step costs a fast model up to a quarter of its speed. Keras's own `steps_per_execution` runs past
the end of an epoch whose steps it does not divide, and past a loss that is not finite; an execution here ends there.
"""

import math
import time

import keras
import tensorflow as tf

from src.metrics import Logs
from src.training import keras_patches, optimizers, strategies

SECONDS = 0.2  # of an execution: how long Ctrl-C waits, and how often the progress bar moves


class Execution(keras.callbacks.Callback):
    """Takes the steps of training, of which Keras counts executions. It comes before all callbacks that ask how far it is.

    Args:
        model: compiled, with an optimizer of `src.training.optimizers`.
        steps: of an epoch.
        first_step: number of completed steps of the first epoch, in a run that resumes within it.

    Attributes:
        step: number of completed steps of the epoch.
        taken: number of steps of the last execution; 0 where a resumed run has no steps to take.
        size: number of steps of an execution; the last one of an epoch may have fewer.
    """

    def __init__(self, model: keras.Model, steps: int, first_step: int = 0):
        super().__init__()
        self.set_model(model)
        self.steps, self.step, self.taken, self.size = steps, first_step, 0, 1
        self._first_step, self._end = first_step, 0
        take_step = keras_patches.train_step(model)
        optimizer = optimizers.unwrap(model.optimizer)

        @tf.function(reduce_retracing=True)
        def execute(batches: tf.data.Iterator, count: tf.Tensor) -> tuple[tf.Tensor, Logs]:
            def goes_on(step: tf.Tensor, logs: Logs) -> tf.Tensor:
                is_finite = tf.math.is_finite(logs["loss"]) & ~optimizer.has_non_finite_gradients()
                return (step < count) & is_finite

            def next_step(step: tf.Tensor, logs: Logs) -> tuple[tf.Tensor, Logs]:
                return step + 1, take_step(next(batches))

            return tf.while_loop(goes_on, next_step, (1, take_step(next(batches))))

        self._execute = execute

    @property
    def per_epoch(self) -> int:
        """Number of executions of an epoch."""
        return math.ceil(self.steps / self.size)

    def measure(self, batches: tf.data.Dataset) -> int:
        """The number of steps that take `SECONDS`, at least 1, measured with steps that are undone.

        Args:
            batches: of training.
        """
        variables = [*self.model.variables, *self.model.optimizer.variables]
        values = [value for variable in variables for value in strategies.replica_values(variable)]
        before = [value.numpy() for value in values]
        iterator = iter(self.model.distribute_strategy.experimental_distribute_dataset(batches))
        count, seconds = 1, 0.0
        self._execute(iterator, tf.constant(count))  # builds
        while seconds < SECONDS / 4 and count <= self.steps:  # a few fast steps last too short to be measured
            start = time.perf_counter()
            self._execute(iterator, tf.constant(count))
            seconds = time.perf_counter() - start
            count *= 4
        for value, array in zip(values, before, strict=True):
            value.assign(array)
        return max(1, round(SECONDS / seconds * (count // 4)))

    def on_train_begin(self, logs: Logs | None = None) -> None:
        """Take the place of Keras's function for a step."""
        self.model.train_function = self._train

    def on_train_end(self, logs: Logs | None = None) -> None:
        """Give it back."""
        self.model.train_function = None

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        """Count anew."""
        self.step, self._first_step, self._end = self._first_step, 0, 0

    def _train(self, batches: tf.data.Iterator) -> Logs:
        self._end = min(self._end + self.size, self.steps)
        if self.step >= self._end:  # before the step that the run resumes from
            self.taken = 0
            return self.model.get_metrics_result()
        taken, logs = self._execute(batches, tf.constant(self._end - self.step))
        self.taken = int(taken)
        self.step += self.taken
        return logs
