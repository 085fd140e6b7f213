"""Losses, and the metrics of training beside them, of classes, sequences of tokens and forecasts."""

from collections.abc import Sequence
from typing import Any

import keras
from keras import KerasTensor, ops

from recipes.specs import PADDING


class ClassWeightedCrossentropy(keras.losses.SparseCategoricalCrossentropy):
    """Cross-entropy of logits (batch, classes), given class indices (batch,), with a weight for each class.

    The loss of a batch is the sum of the weighted losses divided by the number of its examples, not by the sum of weights:
    so every example of a class has the same weight, whatever batch and device it is on.

    Args:
        class_weights: one for each class.
    """

    def __init__(self, class_weights: Sequence[float], name: str = "class_weighted_crossentropy", **kwargs: Any):
        super().__init__(from_logits=True, name=name, **kwargs)
        self.class_weights = list(class_weights)

    def call(self, y_true: KerasTensor, y_pred: KerasTensor) -> KerasTensor:
        """Loss (batch,) of logits (batch, classes), given class indices (batch,)."""
        weights = ops.take(ops.convert_to_tensor(self.class_weights, y_pred.dtype), ops.cast(y_true, "int32"))
        return weights * super().call(y_true, y_pred)

    def get_config(self) -> dict[str, Any]:
        return {"name": self.name, "reduction": self.reduction, "dtype": self.dtype, "class_weights": self.class_weights}


class MicroF1(keras.metrics.Mean):
    """F1 of all labels of all examples together, 2 TP / (2 TP + FP + FN); a label is predicted if its logit is above 0."""

    def update_state(self, y_true: KerasTensor, y_pred: KerasTensor, sample_weight: KerasTensor | None = None) -> Any:
        """Take 0 or 1 for each label (batch, labels), logits of the same shape and weights of the examples (batch,)."""
        present, predicted = ops.cast(y_true, "float32"), ops.cast(y_pred > 0, "float32")
        weights = present + predicted  # their mean with these weights: Σ 2 TP / Σ (2 TP + FP + FN)
        if sample_weight is not None:
            weights = weights * ops.cast(sample_weight, "float32")[:, None]
        return super().update_state(present * predicted, sample_weight=weights)


class TokenCrossentropy(keras.losses.Loss):
    """Cross-entropy of the next token in nats, averaged over all tokens except padding.

    The loss of a sequence is the sum over its tokens divided by the mean length of a sequence, not by its own length. So every
    token has the same weight, whatever batch and device it is on.

    Args:
        mean_length: mean number of tokens of a sequence.
        label_smoothing: probability that the target distribution spreads evenly over all tokens (Szegedy et al. 2016).
    """

    def __init__(self, mean_length: float, label_smoothing: float = 0.0, name: str = "token_crossentropy", **kwargs: Any):
        super().__init__(name=name, **kwargs)
        self.mean_length, self.label_smoothing = mean_length, label_smoothing

    def call(self, y_true: KerasTensor, y_pred: KerasTensor) -> KerasTensor:
        """Loss (batch,) of logits (batch, T, vocabulary), given token ids (batch, T)."""
        log_probabilities = ops.log_softmax(ops.cast(y_pred, "float32"), axis=-1)
        target = ops.take_along_axis(log_probabilities, ops.cast(y_true, "int32")[..., None], axis=-1)[..., 0]
        loss = -(1 - self.label_smoothing) * target - self.label_smoothing * ops.mean(log_probabilities, axis=-1)
        return ops.sum(ops.where(y_true == PADDING, 0.0, loss), axis=-1) / self.mean_length

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "mean_length": self.mean_length, "label_smoothing": self.label_smoothing}


class TokenAccuracy(keras.metrics.Mean):
    """Fraction of tokens, padding excluded, that are predicted correctly from all preceding ones (teacher forcing)."""

    def update_state(self, y_true: KerasTensor, y_pred: KerasTensor, sample_weight: KerasTensor | None = None) -> Any:
        """Take token ids (batch, T), logits (batch, T, vocabulary) and weights of the sequences (batch,)."""
        mask = ops.cast(ops.not_equal(y_true, PADDING), "float32")
        correct = ops.cast(ops.equal(ops.cast(ops.argmax(y_pred, axis=-1), y_true.dtype), y_true), "float32")
        if sample_weight is not None:
            mask = mask * ops.cast(sample_weight, "float32")[:, None]
        return super().update_state(correct, sample_weight=mask)


class StandardizedSquaredError(keras.losses.Loss):
    """Mean squared error in units of `scale`: the learning rate need not be adapted to the unit of the series.

    Missing targets, which are NaN, have no error. Every other one has the same weight, whatever window it is in: the loss of a
    window is divided by the mean number of its targets that are observed, not by its own.

    Args:
        scale: one divisor for each feature.
        observed: fraction of the targets of the training set that are not missing.
    """

    def __init__(self, scale: list[float], observed: float = 1.0, name: str = "standardized_squared_error", **kwargs: Any):
        super().__init__(name=name, **kwargs)
        self.scale, self.observed = scale, observed

    def call(self, y_true: KerasTensor, y_pred: KerasTensor) -> KerasTensor:
        """Loss (batch,) of predictions (batch, horizon, features)."""
        errors = observed_errors(y_true, y_pred) / ops.convert_to_tensor(self.scale, y_pred.dtype)
        return ops.mean(ops.square(errors), axis=(1, 2)) / self.observed

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "scale": self.scale, "observed": self.observed, "dtype": self.dtype}


class PinballLoss(keras.losses.Loss):
    """Twice the pinball loss of quantiles, in units of `scale`, averaged over the quantiles; of the median, the absolute error.

    Missing targets, which are NaN, have no loss, as in `StandardizedSquaredError` (Koenker & Bassett 1978).

    Args:
        quantiles: levels, 0..1.
        scale: one divisor for each target.
        observed: fraction of the targets of the training set that are not missing.
    """

    def __init__(
        self, quantiles: Sequence[float], scale: list[float], observed: float = 1.0, name: str = "pinball_loss", **kwargs: Any
    ):
        super().__init__(name=name, **kwargs)
        self.quantiles, self.scale, self.observed = list(quantiles), scale, observed

    def call(self, y_true: KerasTensor, y_pred: KerasTensor) -> KerasTensor:
        """Loss (batch,) of quantiles (batch, horizon, targets, quantiles), given targets (batch, horizon, targets)."""
        levels = ops.convert_to_tensor(self.quantiles, y_pred.dtype)
        errors = observed_errors(y_true[..., None], y_pred) / ops.convert_to_tensor(self.scale, y_pred.dtype)[:, None]
        return 2 * ops.mean(ops.maximum(levels * errors, (levels - 1) * errors), axis=(1, 2, 3)) / self.observed

    def get_config(self) -> dict[str, Any]:
        own = {"quantiles": self.quantiles, "scale": self.scale, "observed": self.observed, "dtype": self.dtype}
        return {**super().get_config(), **own}


class MeanAbsoluteError(keras.metrics.Mean):
    """Mean absolute error of the targets that are not missing."""

    def update_state(self, y_true: KerasTensor, y_pred: KerasTensor, sample_weight: KerasTensor | None = None) -> Any:
        """Take targets and predictions (batch, horizon, features) and weights of the windows (batch,)."""
        weights = ops.cast(ops.logical_not(ops.isnan(y_true)), "float32")
        if sample_weight is not None:
            weights = weights * ops.cast(sample_weight, "float32")[:, None, None]
        return super().update_state(ops.abs(observed_errors(y_true, y_pred)), sample_weight=weights)


class MedianError(MeanAbsoluteError):
    """Mean absolute error of the median, which is one of several quantiles.

    Args:
        index: of the median in the last axis of predictions.
    """

    def __init__(self, index: int, **kwargs: Any):
        super().__init__(**kwargs)
        self.index = index

    def update_state(self, y_true: KerasTensor, y_pred: KerasTensor, sample_weight: KerasTensor | None = None) -> Any:
        """Take targets (batch, horizon, targets), predictions (…, quantiles) and weights of the windows (batch,)."""
        return super().update_state(y_true, y_pred[..., self.index], sample_weight)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "index": self.index}


def observed_errors(y_true: KerasTensor, y_pred: KerasTensor) -> KerasTensor:
    """Targets minus predictions; 0, with gradient 0, where a target is missing."""
    y_true = ops.cast(y_true, y_pred.dtype)
    missing = ops.isnan(y_true)
    return ops.where(missing, 0.0, ops.where(missing, 0.0, y_true) - y_pred)
