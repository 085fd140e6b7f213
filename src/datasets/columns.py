"""Inputs and targets of a data set: which features of the builder they are, and how those of an example become one tensor."""

from collections.abc import Iterable

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

from src.config import schema
from src.datasets.audio import AudioTransform
from src.datasets.images import ImageTransform
from src.errors import UserError

SUPPORTED = "supported targets are one class label, several labels, a text, or the variables of a series"


class Column:
    """One feature of a builder, or several numbers of each example side by side.

    Args:
        builder: of the data set.
        names: of the feature, or of several.
        setting: that names them, for messages: "dataset.inputs".

    Attributes:
        names: of the features.
        shape, dtype: of the value of an example.

    Raises:
        UserError: there is no such feature, or several are not a number each.
    """

    def __init__(self, builder: tfds.core.DatasetBuilder, names: str | tuple[str, ...], setting: str):
        features = builder.info.features
        self.several = not isinstance(names, str)
        self.names = (names,) if isinstance(names, str) else names
        for name in self.names:
            if name not in features:
                raise UserError(f"{builder.name} has no feature '{name}'; it has: {', '.join(sorted(features))}.")
        self.feature = features[self.names[0]]
        self.shape, self.dtype = self.feature.shape, _dtype(self.feature)
        if self.several:
            self.shape, self.dtype = (len(self.names),), _common_dtype(builder, self.names, setting)

    def of_example(self, features: dict[str, tf.Tensor]) -> tf.Tensor:
        """The value of an example.

        Args:
            features: of the example, {name: value}.
        """
        if self.several:
            return tf.stack([tf.cast(features[name], self.dtype) for name in self.names])
        return features[self.names[0]]


class Inputs(Column):
    """The inputs that the settings name: one feature, or several that are the variables of a series.

    Attributes:
        is_image, is_text, is_audio: whether they are images, texts, or audio clips.
        sample_rate: of audio, in Hz; None: they are no audio.

    Raises:
        UserError: there is no such feature, it has no fixed shape, what is no image is to be resized, or the settings are those
            of audio and the feature is none.
    """

    def __init__(self, builder: tfds.core.DatasetBuilder, settings: schema.Dataset):
        super().__init__(builder, settings.inputs, "dataset.inputs")
        self.transform: AudioTransform | ImageTransform = ImageTransform.of(settings)
        self.sample_rate: int | None = None
        self.is_audio = settings.seconds is not None
        self.is_text = self.dtype == object
        self.is_image = not self.several and isinstance(self.feature, tfds.features.Image)
        name = self.names[0]
        if settings.seconds is not None:
            self.sample_rate = self._checked_sample_rate(settings)
            self.transform = AudioTransform(round(settings.seconds * self.sample_rate))
            self.shape, self.dtype = self.transform.shape(self.shape), self.transform.dtype(self.dtype)
        elif not self.transform.is_identity:
            if self.is_text or len(self.shape) != 3:
                raise UserError(
                    f"dataset={settings.name}: '{name}' holds no images (height, width, channels); leave out "
                    "dataset.image_size and dataset.channels."
                )
            if self.transform.channels is not None and self.shape[2] not in range(1, 5):
                raise UserError(
                    f"dataset={settings.name}: images of {self.shape[2]} channels cannot be converted; leave out "
                    "dataset.channels."
                )
            self.shape = self.transform.shape(self.shape)
        if None in self.shape and self.is_image:
            raise UserError(
                f"dataset={settings.name}: the images of '{name}' differ in size; type the size that all are to be brought to, "
                "like dataset.image_size=[64,64]."
            )
        if None in self.shape and isinstance(self.feature, tfds.features.Audio):
            raise UserError(
                f"dataset={settings.name}: the clips of '{name}' differ in length; type the one that all are to be brought to, "
                "like dataset.seconds=1.0."
            )
        if None in self.shape:
            raise UserError(f"dataset={settings.name}: '{name}' has no fixed shape ({self.shape}), which is not supported.")

    def _checked_sample_rate(self, settings: schema.Dataset) -> int:
        """The sample rate of audio.

        Raises:
            UserError: the feature holds no clips of one channel, or the settings name another sample rate, or none where the
                feature has none.
        """
        name = self.names[0]
        if self.several or len(self.shape) != 1 or self.dtype.kind not in "if" or self.dtype.itemsize < 2:
            raise UserError(
                f"dataset={settings.name}: '{name}' holds no audio of one channel (samples as signed integers of 16 bits or "
                f"more, or as floats, in one dimension); choose another dataset.inputs."
            )
        rate = (self.feature.sample_rate or None) if isinstance(self.feature, tfds.features.Audio) else None  # 0: unknown
        sample_rate: int | None = settings.sample_rate or rate
        if sample_rate is None:
            raise UserError(f"dataset={settings.name}: '{name}' does not say its sample rate; type dataset.sample_rate, in Hz.")
        if rate not in (None, sample_rate):
            raise UserError(
                f"dataset={settings.name}: '{name}' has {rate:,} samples in a second, not {sample_rate:,}; type "
                f"dataset.sample_rate={rate}."
            )
        return sample_rate

    def of_example(self, features: dict[str, tf.Tensor]) -> tf.Tensor:
        """The inputs of an example, transformed if they are images or audio."""
        return self.transform.apply(super().of_example(features))


class Targets(Column):
    """The targets that the settings name: one feature, or several that are labels or variables of a series.

    Attributes:
        classes: names of the classes if the targets are a class index, or whether each label applies; empty: they are neither.

    Raises:
        UserError: there is no such feature, or it is of a kind that no task learns.
    """

    def __init__(self, builder: tfds.core.DatasetBuilder, settings: schema.Dataset):
        targets, inputs = ((names,) if isinstance(names, str) else names for names in (settings.targets, settings.inputs))
        for name in targets:
            if name in builder.info.features and name not in inputs:
                _check_supported(builder.info.features[name], name, settings.name)
        super().__init__(builder, settings.targets, "dataset.targets")
        self.labels = self.feature.feature if isinstance(self.feature, tfds.features.Sequence) else None  # class indices
        self.classes: tuple[str, ...] = ()
        if self.several:
            self.classes = self.names if self.dtype.kind == "i" else ()
        elif isinstance(self.feature, tfds.features.ClassLabel):
            self.classes = tuple(self.feature.names)
        elif isinstance(self.labels, tfds.features.ClassLabel):
            self.classes, self.shape, self.dtype = tuple(self.labels.names), (len(self.labels.names),), np.dtype(bool)

    def of_example(self, features: dict[str, tf.Tensor]) -> tf.Tensor:
        """The targets of an example: the value of a feature, the values of several, or for each label whether it applies."""
        value = super().of_example(features)
        if self.labels is None or not self.classes:
            return value
        return tf.reduce_any(tf.one_hot(value, len(self.classes), on_value=True, off_value=False), axis=0)


def _dtype(feature: tfds.features.FeatureConnector) -> np.dtype:
    """NumPy's type of the values of a feature; texts are objects."""
    return np.dtype(object) if feature.np_dtype in (np.object_, np.str_) else np.dtype(feature.np_dtype)


def _common_dtype(builder: tfds.core.DatasetBuilder, names: Iterable[str], setting: str) -> np.dtype:
    """The type that holds the numbers of several features: int64 for integers and booleans, otherwise floats.

    Raises:
        UserError: one of them is not a number for each example.
    """
    dtypes = []
    for name in names:
        feature = builder.info.features[name]
        if feature.shape or isinstance(feature, tfds.features.ClassLabel) or _dtype(feature).kind not in "biuf":
            raise UserError(
                f"Each of several features has to be one number, or a boolean, for each example, which '{name}' of "
                f"{builder.name} is not; leave it out of {setting}."
            )
        dtypes.append(_dtype(feature))
    return np.result_type(*dtypes) if any(dtype.kind == "f" for dtype in dtypes) else np.dtype(np.int64)


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
