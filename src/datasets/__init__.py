"""Loading of data sets, and input pipelines: the only package that uses TensorFlow Datasets and tf.data."""

from src.datasets.data import Array, Data, Split
from src.datasets.loading import load
from src.datasets.preparation import prepare

__all__ = ["Array", "Data", "Split", "load", "prepare"]
