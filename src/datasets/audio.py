"""Audio clips of any length, brought to one, as TensorFlow operations on a single clip."""

from typing import NamedTuple

import numpy as np
import tensorflow as tf


class AudioTransform(NamedTuple):
    """What is done to each clip of a data set of audio.

    Attributes:
        samples: length of all clips.
    """

    samples: int

    def shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape of clips that have another one before."""
        return (self.samples,)

    @staticmethod
    def dtype(dtype: np.dtype) -> np.dtype:
        """The type of samples that have another one before: int16 for integers, float32 for floats."""
        return np.dtype(np.int16 if dtype.kind == "i" else np.float32)

    def apply(self, clip: tf.Tensor) -> tf.Tensor:
        """Transform a clip (samples,) of integers or floats. Integers beyond 16 bits are clipped."""
        return fit(tf.saturate_cast(clip, self.dtype(np.dtype(clip.dtype.as_numpy_dtype))), self.samples)


def fit(clip: tf.Tensor, samples: int) -> tf.Tensor:
    """The middle of a clip (any,) that is too long; one that is too short gets zeros on both sides alike."""
    length = tf.shape(clip)[0]
    start = tf.maximum(length - samples, 0) // 2
    middle = clip[start : start + samples]
    missing = samples - tf.shape(middle)[0]
    return tf.ensure_shape(tf.pad(middle, [[missing // 2, missing - missing // 2]]), (samples,))
