"""Optimizers with their learning-rate schedule, and what they measure and look out for on their way."""

import math
from typing import Any

import keras
import tensorflow as tf

from recipes.specs import LearningRates
from src import settings, strategies


def create(chosen: settings.Optimizer, training: settings.Training, steps: int) -> keras.optimizers.Optimizer:
    """The optimizer with its learning-rate schedule; `steps` make an epoch."""
    classes = {
        "adam": keras.optimizers.Adam,
        "adamw": keras.optimizers.AdamW,
        "sgd": keras.optimizers.SGD,
        "rmsprop": keras.optimizers.RMSprop,
    }
    chosen_class = classes[chosen.name]
    more = (StopsAtNaN, ScalesLearningRates, *([MeasuresGradient] if training.gradient_norm else []))
    chosen_class = type(chosen_class.__name__, (*more, chosen_class), {})
    own = set(type(chosen).model_fields) - set(settings.OptimizerSection.model_fields) - {"name"}
    return chosen_class(
        learning_rate=learning_rate(chosen, steps * training.epochs),
        weight_decay=chosen.weight_decay,
        global_clipnorm=chosen.clip_norm,
        use_ema=training.ema is not None,
        ema_momentum=training.ema if training.ema is not None else 0.99,
        gradient_accumulation_steps=training.gradient_accumulation if training.gradient_accumulation > 1 else None,
        **{name: getattr(chosen, name) for name in own},
    )


def unscaled(optimizer: keras.optimizers.Optimizer) -> Any:
    """The optimizer that `create` has made, which Keras wraps in one that scales the loss under mixed_float16."""
    return getattr(optimizer, "inner_optimizer", optimizer)


class StopsAtNaN(keras.optimizers.Optimizer):
    """Makes an optimizer take no step from the first gradient on that is not finite, and note whose it was.

    The weights stay those that the gradient went wrong with, so that it can be found out where.
    """

    def build(self, variables: list[keras.Variable]) -> None:
        """Makes room for a note on each weight."""
        super().build(variables)
        notes = {"shape": (len(variables),), "dtype": "float32", "aggregation": "only_first_replica"}
        self._not_finite = self.add_variable(**notes, name="not_finite")

    def _backend_apply_gradients(self, gradients: list[Any], variables: list[keras.Variable]) -> None:
        found = [tf.reduce_any(~tf.math.is_finite(_values(gradient))) for gradient in gradients]
        rows = [[self._get_variable_index(variable)] for variable in variables]
        found = tf.scatter_nd(rows, tf.cast(tf.stack(found), tf.float32), self._not_finite.shape)
        before = self._not_finite.value
        (found,) = strategies.of_the_whole_batch([found])
        self._not_finite.assign(tf.where(tf.reduce_any(before > 0), before, found))
        healthy = tf.reduce_all(self._not_finite.value == 0)
        super()._backend_apply_gradients([_or_none(healthy, gradient) for gradient in gradients], variables)

    def not_finite(self) -> list[str]:
        """The paths of the weights whose gradients were the first that were not finite, in the order of the model."""
        notes = keras.ops.convert_to_numpy(self._not_finite)
        return [variable.path for variable, note in zip(self._trainable_variables, notes) if note]


def _values(gradient: tf.Tensor | tf.IndexedSlices) -> tf.Tensor:
    return gradient.values if isinstance(gradient, tf.IndexedSlices) else gradient


def _or_none(healthy: tf.Tensor, gradient: tf.Tensor | tf.IndexedSlices) -> tf.Tensor | tf.IndexedSlices:
    """The gradient, or zeros."""
    values = tf.where(healthy, _values(gradient), tf.zeros((), _values(gradient).dtype))
    if isinstance(gradient, tf.IndexedSlices):
        return tf.IndexedSlices(values, gradient.indices, gradient.dense_shape)
    return values


class ScalesLearningRates(keras.optimizers.Optimizer):
    """Makes an optimizer multiply the learning rate of some weights.

    A model declares that as `recipes.specs.LearningRates`; see `factors`.
    """

    factors: dict[int, float] = {}  # {id of a variable: factor}

    def update_step(self, gradient: tf.Tensor | tf.IndexedSlices, variable: keras.Variable, learning_rate: tf.Tensor) -> None:
        """Keras's own, at the variable's own rate."""
        whole = self._trainable_variables[self._get_variable_index(variable)]  # `variable` can be a replica's part of it
        super().update_step(gradient, variable, learning_rate * self.factors.get(id(whole), 1.0))


def factors(model: keras.Model) -> dict[int, float]:
    """{id of a variable: factor of its learning rate}, of the layers for which the model, or a model in it, declares one."""
    declared = [layer for layer in model._flatten_layers() if isinstance(layer, LearningRates)]
    pairs = [pair for each in declared for pair in each.learning_rate_factors()]
    return {id(variable): factor for layer, factor in pairs for variable in layer.trainable_variables}


class MeasuresGradient(keras.optimizers.Optimizer):
    """Makes an optimizer measure the norm of the gradient of the batch, all weights together, before it is clipped.

    `gradient_norm` and `gradient_norm_max` are the mean and the largest of the norms since `forget_norms`.
    """

    def build(self, variables: list[keras.Variable]) -> None:
        super().build(variables)
        scalar = {"shape": (), "dtype": "float32", "aggregation": "only_first_replica"}
        self._norms = {name: self.add_variable(**scalar, name=f"norm_{name}") for name in ("sum", "max", "count")}

    def _clip_gradients(self, gradients: list[Any]) -> list[Any]:
        there = [tf.convert_to_tensor(g) for g in strategies.of_the_whole_batch(gradients) if g is not None]
        norm = tf.linalg.global_norm([tf.cast(gradient, tf.float32) for gradient in there])
        self._norms["sum"].assign_add(norm)
        self._norms["max"].assign(tf.maximum(self._norms["max"].value, norm))
        self._norms["count"].assign_add(1.0)
        return super()._clip_gradients(gradients)

    def forget_norms(self) -> None:
        """Begins anew."""
        for variable in self._norms.values():
            variable.assign(0.0)

    def norms(self) -> dict[str, float]:
        """The mean and the largest norm."""
        total, largest, count = (float(keras.ops.convert_to_numpy(self._norms[name])) for name in ("sum", "max", "count"))
        return {"gradient_norm": total / max(count, 1), "gradient_norm_max": largest}


def learning_rate(chosen: settings.OptimizerSection, steps: int) -> keras.optimizers.schedules.LearningRateSchedule:
    """The learning rate over so many steps. Keras asks for it by step, also where several steps make one update."""
    return WarmupThenDecay(chosen.learning_rate, chosen.schedule, steps, chosen.warmup, chosen.final_fraction)


class WarmupThenDecay(keras.optimizers.schedules.LearningRateSchedule):
    """A rise from 0 in a straight line, then a decay that reaches `peak · final_fraction` at the last step.

    Args:
        peak: the highest learning rate.
        schedule: constant, cosine, linear or exponential.
        steps: steps in all.
        warmup: fraction of them in which the learning rate rises.
        final_fraction: of the peak, at the last step; not used by `constant`.
    """

    def __init__(self, peak: float, schedule: str, steps: int, warmup: float, final_fraction: float):
        self.peak, self.schedule, self.steps = peak, schedule, steps
        self.warmup, self.final_fraction = warmup, final_fraction

    def __call__(self, step: keras.KerasTensor) -> keras.KerasTensor:
        """The learning rate of step number `step`, counted from 0."""
        ops = keras.ops
        step = ops.cast(step, "float32")
        rising = self.warmup * self.steps
        done = ops.clip((step - rising) / max(self.steps - 1 - rising, 1), 0.0, 1.0)
        last = self.final_fraction
        match self.schedule:
            case "constant":
                share = ops.ones_like(done)
            case "cosine":
                share = last + (1 - last) * 0.5 * (1 + ops.cos(math.pi * done))
            case "linear":
                share = 1 - (1 - last) * done
            case "exponential":
                share = ops.exp(math.log(last) * done)
        return self.peak * share * ops.minimum(1.0, (step + 1) / max(rising, 1))

    def get_config(self) -> dict[str, Any]:
        """The arguments it was made with."""
        names = ("peak", "schedule", "steps", "warmup", "final_fraction")
        return {name: getattr(self, name) for name in names}
