"""What is lost, and measured, token by token."""

from typing import Any

import keras
from keras import KerasTensor, ops

from recipes.kinds import PADDING


class TokenCrossentropy(keras.losses.Loss):
    """Cross-entropy of the next token in nats, the mean over all tokens but padding.

    Each sequence counts with its own number of tokens over the mean number, so that the mean over a batch of any size and on
    any number of devices is the same sum over tokens.

    Args:
        mean_length: tokens of a sequence, on average.
        label_smoothing: share of the truth that is spread evenly over all tokens (Szegedy et al. 2016).
    """

    def __init__(self, mean_length: float, label_smoothing: float = 0.0, name: str = "token_crossentropy", **kwargs: Any):
        super().__init__(name=name, **kwargs)
        self.mean_length, self.label_smoothing = mean_length, label_smoothing

    def call(self, y_true: KerasTensor, y_pred: KerasTensor) -> KerasTensor:
        """Token numbers (batch, T) and logits (batch, T, vocabulary), to (batch,)."""
        logs = ops.log_softmax(ops.cast(y_pred, "float32"), axis=-1)
        truth = ops.take_along_axis(logs, ops.cast(y_true, "int32")[..., None], axis=-1)[..., 0]
        loss = -(1 - self.label_smoothing) * truth - self.label_smoothing * ops.mean(logs, axis=-1)
        return ops.sum(ops.where(y_true == PADDING, 0.0, loss), axis=-1) / self.mean_length

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "mean_length": self.mean_length, "label_smoothing": self.label_smoothing}


class TokenAccuracy(keras.metrics.Mean):
    """Share of tokens, padding not counted, that were told right given all before them."""

    def update_state(self, y_true: KerasTensor, y_pred: KerasTensor, sample_weight: KerasTensor | None = None) -> Any:
        """Token numbers (batch, T), logits (batch, T, vocabulary), weights of the sequences (batch,)."""
        real = ops.cast(ops.not_equal(y_true, PADDING), "float32")
        right = ops.cast(ops.equal(ops.cast(ops.argmax(y_pred, axis=-1), y_true.dtype), y_true), "float32")
        if sample_weight is not None:
            real = real * ops.cast(sample_weight, "float32")[:, None]
        return super().update_state(right, sample_weight=real)
