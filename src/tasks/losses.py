"""Loss and accuracy of sequences of tokens."""

from typing import Any

import keras
from keras import KerasTensor, ops

from recipes.specs import PADDING


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
