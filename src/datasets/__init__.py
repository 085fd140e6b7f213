"""The one door to TensorFlow Datasets and tf.data."""

from src.datasets.loading import Data, Part, load, prepare

__all__ = ["Data", "Part", "load", "prepare"]
