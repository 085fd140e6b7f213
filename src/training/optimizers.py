"""Optimizers, learning-rate schedules, and optimizer mixins: non-finite gradients, learning-rate factors,
averages of the weights, gradient norms.
"""

import math
from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from recipes.specs import LearningRates
from src.config import schema
from src.training import keras_patches, strategies


def create(
    settings: schema.Optimizer, training: schema.Training, steps: int, factors: dict[int, float] | None = None,
    weights: Sequence[keras.Variable] = (),
) -> keras.optimizers.Optimizer:  # fmt: skip
    """Create an optimizer with its learning-rate schedule.

    Args:
        settings: of the optimizer.
        training: number of epochs, averaging and accumulation.
        steps: of an epoch.
        factors: of learning rates, as `learning_rate_factors` returns them.
        weights: the trainable ones, of which only matrices decay, unless the settings say otherwise.
    """
    classes = {
        "adam": keras.optimizers.Adam,
        "adamw": keras.optimizers.AdamW,
        "sgd": keras.optimizers.SGD,
        "rmsprop": keras.optimizers.RMSprop,
    }
    base = classes[settings.name]
    mixins = (
        SkipNonFiniteGradients, ScaleLearningRates, AverageWeights, *([TrackGradientNorm] if training.gradient_norm else []),
    )  # fmt: skip
    optimizer_class = type(base.__name__, (*mixins, base), {})
    specific = set(type(settings).model_fields) - set(schema.OptimizerSection.model_fields) - {"name"}
    optimizer = optimizer_class(
        learning_rate=learning_rate(settings, steps * training.epochs),
        weight_decay=settings.weight_decay,
        global_clipnorm=settings.clip_norm,
        use_ema=training.ema is not None,
        ema_momentum=training.ema if training.ema is not None else 0.99,
        gradient_accumulation_steps=training.gradient_accumulation if training.gradient_accumulation > 1 else None,
        **{name: getattr(settings, name) for name in specific},
    )
    optimizer.factors = factors or {}
    if not settings.decay_biases:
        optimizer.exclude_from_weight_decay(var_list=[weight for weight in weights if not decays(weight)])
    return optimizer


def decays(weight: keras.Variable) -> bool:
    """Whether weight decay acts on a weight: on matrices, kernels and embeddings, not on biases and normalization parameters.

    By the number of dimensions, as in nanoGPT's `configure_optimizers` (Karpathy 2022): the gain and the shift of a
    normalization, biases, and other vectors have one.
    """
    return len(weight.shape) > 1


def unwrap(optimizer: keras.optimizers.Optimizer) -> Any:
    """The optimizer that `create` returned; Keras wraps it in a LossScaleOptimizer under mixed_float16."""
    return getattr(optimizer, "inner_optimizer", optimizer)


class SkipNonFiniteGradients(keras.optimizers.Optimizer):
    """Mixin: from the first non-finite gradient on, no step is taken, and the weights with such gradients are recorded.

    The weights stay those that led to the gradient, so that the layer where it began can be found.
    """

    def build(self, variables: list[keras.Variable]) -> None:
        """Create the flags, one for each weight."""
        super().build(variables)
        options = {"shape": (len(variables),), "dtype": "float32", "aggregation": "only_first_replica"}
        self._non_finite = self.add_variable(**options, name="not_finite")

    def _backend_apply_gradients(self, gradients: list[Any], variables: list[keras.Variable]) -> None:
        flags = [tf.reduce_any(~tf.math.is_finite(_values(gradient))) for gradient in gradients]
        indices = [[self._get_variable_index(variable)] for variable in variables]
        flags = tf.scatter_nd(indices, tf.cast(tf.stack(flags), tf.float32), self._non_finite.shape)
        before = self._non_finite.value
        (flags,) = strategies.sum_over_replicas([flags])
        self._non_finite.assign(tf.where(tf.reduce_any(before > 0), before, flags))
        all_finite = ~self.has_non_finite_gradients()
        super()._backend_apply_gradients([_zero_unless(all_finite, gradient) for gradient in gradients], variables)

    def has_non_finite_gradients(self) -> tf.Tensor:
        """Whether there has been a step with any, as a part of a graph."""
        return tf.reduce_any(self._non_finite.value > 0)

    def non_finite_gradients(self) -> list[str]:
        """The paths of the weights with non-finite gradients in the first step that had any, in the order of the model."""
        flags = keras.ops.convert_to_numpy(self._non_finite)
        return [variable.path for variable, flag in zip(self._trainable_variables, flags) if flag]


def _values(gradient: tf.Tensor | tf.IndexedSlices) -> tf.Tensor:
    return gradient.values if isinstance(gradient, tf.IndexedSlices) else gradient


def _zero_unless(condition: tf.Tensor, gradient: tf.Tensor | tf.IndexedSlices) -> tf.Tensor | tf.IndexedSlices:
    """The gradient if the condition holds, else zeros."""
    values = tf.where(condition, _values(gradient), tf.zeros((), _values(gradient).dtype))
    if isinstance(gradient, tf.IndexedSlices):
        return tf.IndexedSlices(values, gradient.indices, gradient.dense_shape)
    return values


class ScaleLearningRates(keras.optimizers.Optimizer):
    """Mixin: multiplies the learning rate of some weights.

    Attributes:
        factors: {id of a variable: factor}, as `learning_rate_factors` returns them.
    """

    factors: dict[int, float] = {}

    def update_step(self, gradient: tf.Tensor | tf.IndexedSlices, variable: keras.Variable, learning_rate: tf.Tensor) -> None:
        """Update a variable with its own learning rate."""
        original = self._trainable_variables[self._get_variable_index(variable)]  # `variable` may be the value on one replica
        super().update_step(gradient, variable, learning_rate * self.factors.get(id(original), 1.0))


def learning_rate_factors(model: keras.Model) -> dict[int, float]:
    """{id of a variable: factor of its learning rate}, of a model and the models within it (`recipes.specs.LearningRates`)."""
    declaring = [layer for layer in keras_patches.all_layers(model) if isinstance(layer, LearningRates)]
    pairs = [pair for each in declaring for pair in each.learning_rate_factors()]
    return {id(variable): factor for layer, factor in pairs for variable in layer.trainable_variables}


class AverageWeights(keras.optimizers.Optimizer):
    """Mixin: makes the moving average of the weights move once per update, and corrects its bias.

    With momentum m the average of the weights w_1 … w_t after t updates is Σ_s m^(t − s) w_s / Σ_s m^(t − s), as Adam averages
    gradients (Kingma & Ba 2015). Keras gives w_1 the weight m^(t − 1) instead, which is nearly all while t is small, and counts
    the steps whose gradients are accumulated.
    """

    def _update_model_variables_moving_average(self, trainable_variables: list[keras.Variable]) -> None:
        steps = self.gradient_accumulation_steps or 1
        step = self._iterations.value + 1  # `iterations` counts updates
        updates = tf.cast(step // steps, tf.float32)  # t
        # The share of w_t: (1 − m) / (1 − m^t), or 0 in a step that does not update the weights.
        log_momentum = math.log(self.ema_momentum) if self.ema_momentum else -math.inf
        share = tf.where(step % steps == 0, (1 - self.ema_momentum) / -tf.math.expm1(updates * log_momentum), 0.0)
        for variable, average in zip(trainable_variables, self._model_variables_moving_average):
            if average is not None:
                average.assign(average + tf.cast(share, average.dtype) * (variable - average))


class TrackGradientNorm(keras.optimizers.Optimizer):
    """Mixin: measures the global norm of the gradient of each batch, before clipping."""

    def build(self, variables: list[keras.Variable]) -> None:
        super().build(variables)
        scalar = {"shape": (), "dtype": "float32", "aggregation": "only_first_replica"}
        self._norms = {name: self.add_variable(**scalar, name=f"norm_{name}") for name in ("sum", "max", "count")}

    def _clip_gradients(self, gradients: list[Any]) -> list[Any]:
        summed = [tf.convert_to_tensor(g) for g in strategies.sum_over_replicas(gradients) if g is not None]
        norm = tf.linalg.global_norm([tf.cast(gradient, tf.float32) for gradient in summed])
        self._norms["sum"].assign_add(norm)
        self._norms["max"].assign(tf.maximum(self._norms["max"].value, norm))
        self._norms["count"].assign_add(1.0)
        return super()._clip_gradients(gradients)

    def reset_norms(self) -> None:
        """Start a new mean and maximum."""
        for variable in self._norms.values():
            variable.assign(0.0)

    def norms(self) -> dict[str, float]:
        """Mean and maximum of the norms since `reset_norms`."""
        total, largest, count = (float(keras.ops.convert_to_numpy(self._norms[name])) for name in ("sum", "max", "count"))
        return {"gradient_norm": total / max(count, 1), "gradient_norm_max": largest}


def learning_rate(settings: schema.OptimizerSection, steps: int) -> keras.optimizers.schedules.LearningRateSchedule:
    """The learning-rate schedule of a run of `steps` steps; with gradient accumulation it still counts steps, not updates."""
    return WarmupThenDecay(settings.learning_rate, settings.schedule, steps, settings.warmup, settings.final_fraction)


class WarmupThenDecay(keras.optimizers.schedules.LearningRateSchedule):
    """Linear warmup from 0, then a decay that reaches `peak · final_fraction` at the last step.

    Args:
        peak: the highest learning rate.
        schedule: constant, cosine, linear or exponential.
        steps: total number of steps.
        warmup: fraction of the steps in which the learning rate rises.
        final_fraction: learning rate at the last step relative to the peak; not used by `constant`.
    """

    def __init__(self, peak: float, schedule: str, steps: int, warmup: float, final_fraction: float):
        self.peak, self.schedule, self.steps = peak, schedule, steps
        self.warmup, self.final_fraction = warmup, final_fraction

    def __call__(self, step: keras.KerasTensor) -> keras.KerasTensor:
        """The learning rate of a step, counted from 0."""
        ops = keras.ops
        step = ops.cast(step, "float32")
        warmup_steps = self.warmup * self.steps
        progress = ops.clip((step - warmup_steps) / max(self.steps - 1 - warmup_steps, 1), 0.0, 1.0)
        final = self.final_fraction
        match self.schedule:
            case "constant":
                factor = ops.ones_like(progress)
            case "cosine":
                factor = final + (1 - final) * 0.5 * (1 + ops.cos(math.pi * progress))
            case "linear":
                factor = 1 - (1 - final) * progress
            case "exponential":
                factor = ops.exp(math.log(final) * progress)
        return self.peak * factor * ops.minimum(1.0, (step + 1) / max(warmup_steps, 1))

    def get_config(self) -> dict[str, Any]:
        """The arguments of the constructor."""
        names = ("peak", "schedule", "steps", "warmup", "final_fraction")
        return {name: getattr(self, name) for name in names}
