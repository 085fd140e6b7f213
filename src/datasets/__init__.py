"""Loading of data sets, and input pipelines: the only package that uses TensorFlow Datasets and tf.data."""

from src.datasets.loading import Data, Split, load, prepare

__all__ = ["Data", "Split", "load", "prepare"]
