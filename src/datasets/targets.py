"""The targets of a data set: which features of the builder they are, and how those of an example become one tensor."""

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

from src.config import schema
from src.errors import UserError

SUPPORTED = "supported targets are one class label, several labels, a text, or the series itself"


class Targets:
    """The targets that the settings name: one feature, or several that each say whether a label applies.

    Attributes:
        names: of the features.
        classes: names of the classes if the targets are a class index, or whether each label applies; empty: they are neither.
        shape, dtype: of the targets of an example.

    Raises:
        UserError: there is no such feature, or it is of a kind that no task learns.
    """

    def __init__(self, builder: tfds.core.DatasetBuilder, settings: schema.Dataset):
        features = builder.info.features
        self.several = not isinstance(settings.targets, str)
        self.names = (settings.targets,) if isinstance(settings.targets, str) else settings.targets
        for name in (settings.inputs, *self.names):
            if name not in features:
                raise UserError(f"{settings.builder} has no feature '{name}'; it has: {', '.join(sorted(features))}.")
        for name in self.names:
            if name != settings.inputs:
                _check_supported(features[name], name, settings.name)
        first = features[self.names[0]]
        self.labels = first.feature if isinstance(first, tfds.features.Sequence) else None  # of a list of class indices
        self.classes: tuple[str, ...] = ()
        self.shape, self.dtype = first.shape, _dtype(first)
        if self.several:
            _check_labels({name: features[name] for name in self.names}, settings.name)
            self.classes, self.shape, self.dtype = self.names, (len(self.names),), np.dtype(np.int64)
        elif isinstance(first, tfds.features.ClassLabel):
            self.classes = tuple(first.names)
        elif isinstance(self.labels, tfds.features.ClassLabel):
            self.classes, self.shape, self.dtype = tuple(self.labels.names), (len(self.labels.names),), np.dtype(bool)

    def of_example(self, features: dict[str, tf.Tensor]) -> tf.Tensor:
        """The targets of an example: the value of a feature, or for each label whether it applies (labels,).

        Args:
            features: of the example, {name: value}.
        """
        if self.several:
            return tf.stack([tf.cast(features[name], tf.int64) for name in self.names])
        value = features[self.names[0]]
        if self.labels is None or not self.classes:
            return value
        return tf.reduce_any(tf.one_hot(value, len(self.classes), on_value=True, off_value=False), axis=0)


def _dtype(feature: tfds.features.FeatureConnector) -> np.dtype:
    """NumPy's type of the values of a feature; texts are objects."""
    return np.dtype(object) if feature.np_dtype in (np.object_, np.str_) else np.dtype(feature.np_dtype)


def _check_supported(feature: tfds.features.FeatureConnector, name: str, dataset: str) -> None:
    """Raise a UserError if a feature other than the input is of a kind that no task learns."""
    inner = feature.feature if isinstance(feature, tfds.features.Sequence) else feature
    parts = list(inner.values()) if isinstance(inner, tfds.features.FeaturesDict) else [inner]
    if any(isinstance(part, tfds.features.BBoxFeature) for part in parts):
        kind = "holds bounding boxes, and object detection is not supported"
    elif isinstance(inner, tfds.features.Image | tfds.features.Video):
        kind = "holds images, and segmentation is not supported"
    elif isinstance(inner, tfds.features.FeaturesDict):
        kind = f"is a group of features ({', '.join(inner)})"
    elif feature.shape and None in feature.shape and not isinstance(inner, tfds.features.ClassLabel):
        kind = "is a list of varying length, but not of class labels"
    else:
        return
    raise UserError(f"dataset={dataset}: '{name}' {kind}; {SUPPORTED}, so choose another dataset.targets.")


def _check_labels(features: dict[str, tfds.features.FeatureConnector], dataset: str) -> None:
    """Raise a UserError unless each of several features says of an example whether a label applies."""
    for name, feature in features.items():
        if feature.shape or np.dtype(feature.np_dtype).kind not in "biu" or isinstance(feature, tfds.features.ClassLabel):
            raise UserError(
                f"dataset={dataset}: each of several targets has to be a label that applies or not (a boolean), which '{name}' "
                "is not; leave it out of dataset.targets."
            )
