"""Conversion of what builders yield: texts to UTF-8, labels to class indices, pixels to the range 0..1, series to floats."""

import dataclasses
import logging
import re
import sys
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from src.datasets.data import Array, Data, Split, as_text
from src.datasets.lazy import chunks, encode, is_lazy
from src.datasets.stored import StoredArray
from src.datasets.validation import describe
from src.errors import UserError

log = logging.getLogger(__name__)

MAX_NAMED = 5  # classes in a message


def to_utf8(data: Data, encoding: str) -> Data:
    """Convert texts from their encoding to UTF-8; other inputs and targets stay as they are.

    Raises:
        UserError: a text has another encoding.
    """

    def convert(texts: np.ndarray, name: str) -> np.ndarray:
        if texts.dtype != object or is_lazy(texts):
            return texts
        converted = np.empty_like(texts)
        for row, text in enumerate(texts):
            try:
                converted[row] = text if encoding == "utf-8" and text.isascii() else text.decode(encoding).encode()
            except UnicodeDecodeError as error:
                raise UserError(
                    f"Row {row} of the {name} split of dataset={data.name} (counted from 0) is no text in {encoding} (byte "
                    f"0x{text[error.start]:02x} at position {error.start}); type its encoding, as in dataset.encoding=latin-1."
                ) from None
        return converted

    def convert_split(name: str, split: Split) -> Split:
        inputs = split.raw_inputs
        if isinstance(inputs, StoredArray):  # they have to be in UTF-8 already, which is checked once
            if inputs.dtype == object:
                inputs.keep("utf-8", lambda: np.array(sum(len(convert(chunk, name)) for chunk in chunks(inputs))))
            return Split(inputs, convert(split.targets, name))
        return Split(convert(split.raw, name), convert(split.targets, name))

    return data.convert(convert_split)


def are_labels(targets: np.ndarray) -> bool:
    """Whether targets can be class labels: one text, integer or boolean for each example, and not all of them different."""
    scalars = targets.ndim == 1 and (targets.dtype == object or targets.dtype.kind in "biu")
    return scalars and len(np.unique(targets)) < len(targets)


def to_class_indices(data: Data) -> Data:
    """Convert targets to class indices; the classes of texts, integers and booleans are those of the training set, sorted.

    Warns of classes that a split lacks.

    Raises:
        UserError: the targets are no labels, a label is missing, or it is not among those of the training set; or there is
            only one class.
    """
    if data.classes and data.train.targets.ndim == 2:
        raise UserError(
            f"dataset={data.name}: an example has several labels (of {_list(data.classes)}), where one is needed; type "
            f"task.name={_kind(data)}_multilabel_classification, or choose another dataset.targets."
        )
    if data.classes:
        _check_complete(data)
    else:
        data = _index_labels(data)
    if len(data.classes) == 1:
        raise UserError(
            f"dataset={data.name} has only one class, {data.classes[0]}; classification needs two or more, so choose another "
            "dataset.targets."
        )
    counts = {name: np.bincount(split.targets, minlength=len(data.classes)) for name, split in data.splits.items()}
    _warn_of_absent(data, counts, "stratified")
    return data


def to_multi_hot(data: Data) -> Data:
    """Convert targets to 1 for the labels that an example has, and 0 for the others: uint8 (examples, labels).

    Labels of targets that have no names are numbered. Warns of labels that no example of a split has.

    Raises:
        UserError: the targets are one label for each example, or no labels, or a split has none.
    """
    for name, split in data.splits.items():
        labels = split.targets
        if labels.ndim == 1 and (data.classes or are_labels(labels)):
            raise UserError(
                f"dataset={data.name}: an example has one label, where several are needed; type "
                f"task.name={_kind(data)}_classification, or name several boolean features, as in dataset.targets=[one,two]."
            )
        if labels.ndim != 2 or labels.dtype.kind not in "biu" or not np.isin(labels, (0, 1)).all():
            raise UserError(
                f"dataset={data.name}: the targets have to say which labels an example has, 0 or 1 for each, but those of the "
                f"{name} split are {describe(labels)}; choose another dataset.targets."
            )
        if not labels.any():
            raise UserError(
                f"No example of the {name} split of dataset={data.name} has a label; choose another dataset.splits.{name}."
            )
    names = data.classes or tuple(map(str, range(data.train.targets.shape[1])))
    # No booleans: TensorFlow cannot distribute them over replicas.
    data = dataclasses.replace(
        data.convert(lambda _, split: Split(split.inputs, split.targets.astype(np.uint8))), classes=names
    )
    _warn_of_absent(data, {name: split.targets.sum(axis=0) for name, split in data.splits.items()}, "random")
    return data


def _warn_of_absent(data: Data, counts: Mapping[str, np.ndarray], shuffle: str) -> None:
    """Warn of classes that have no example in a split.

    Args:
        data: the data set.
        counts: {split: number of examples of each class}.
        shuffle: the value of dataset.shuffle that may help.
    """
    for name, of_split in counts.items():
        absent = [label for label, count in zip(data.classes, of_split) if not count]
        if absent:
            log.warning(
                "The %s split of dataset=%s has no example of %d of the %d classes (%s); if the examples are sorted by class, "
                "type dataset.shuffle=%s.", name, data.name, len(absent), len(data.classes), _list(absent), shuffle,
            )  # fmt: skip


def _check_complete(data: Data) -> None:
    """Raise a UserError if an example has no label, which TFDS writes as −1."""
    for name, split in data.splits.items():
        missing = np.flatnonzero((split.targets < 0) | (split.targets >= len(data.classes)))
        if len(missing) == len(split):
            raise UserError(
                f"The {name} split of dataset={data.name} has no labels (all are {split.targets[0]}); choose another "
                f"dataset.splits.{name}."
            )
        if len(missing):
            raise UserError(
                f"{len(missing):,} of {len(split):,} examples of the {name} split of dataset={data.name} have no label, the "
                f"first is row {missing[0]} (counted from 0); leave them out of the data, or choose another "
                f"dataset.splits.{name}."
            )


def _index_labels(data: Data) -> Data:
    targets = data.train.targets
    if not are_labels(targets):
        distinct = " that are all different" if targets.ndim == 1 and targets.dtype.kind != "f" else ""
        regression = ", and regression is not supported" if targets.dtype.kind == "f" else ""
        raise UserError(
            f"dataset={data.name}: classification needs class labels, but the targets are {describe(targets)}{distinct}"
            f"{regression}; choose another dataset.targets."
        )
    labels = np.unique(targets)
    names = tuple(sorted(map(as_text, labels), key=_order))
    position = {name: index for index, name in enumerate(names)}
    of_label = np.array([position[as_text(label)] for label in labels])

    def index(name: str, split: Split) -> Split:
        indices = np.minimum(np.searchsorted(labels, split.targets), len(labels) - 1)
        unknown = [as_text(label) for label in np.unique(split.targets[labels[indices] != split.targets])]
        if unknown:
            raise UserError(
                f"The {name} split of dataset={data.name} has labels that the training split has not ({_list(unknown)}); type "
                "dataset.shuffle=stratified, or choose other dataset.splits."
            )
        return Split(split.inputs, of_label[indices])

    return dataclasses.replace(data.convert(index), classes=names)


def _order(name: str) -> tuple[int, str]:
    """Sorts the names of classes: numbers by their value, then texts."""
    return (int(name), "") if re.fullmatch(r"[-+]?[0-9]+", name) else (sys.maxsize, name)


def _kind(data: Data) -> str:
    """What tasks call the inputs."""
    if data.sample_rate:
        return "audio"
    return "text" if data.train.raw_inputs.dtype == object else "image"


def _list(labels: Sequence[str]) -> str:
    more = f" and {len(labels) - MAX_NAMED} more" if len(labels) > MAX_NAMED else ""
    return ", ".join(labels[:MAX_NAMED]) + more


class PixelRange(NamedTuple):
    """The values of pixels that are black and white."""

    low: float
    high: float

    @classmethod
    def of(cls, images: Array) -> "PixelRange":
        """The range of images: that of the type for bytes and 16 bits, 0..1 for floats within it, else that of the values."""
        if images.dtype.kind == "u" and images.dtype.itemsize <= 2:
            return cls(0.0, float(np.iinfo(images.dtype).max))
        extremes = [(chunk.min(), chunk.max()) for chunk in chunks(images)]
        low, high = float(min(low for low, _ in extremes)), float(max(high for _, high in extremes))
        if images.dtype.kind == "b" or (images.dtype.kind == "f" and low >= 0 and high <= 1):
            return cls(0.0, 1.0)
        return cls(low, high if high > low else low + 1)

    def normalize(self, images: np.ndarray) -> np.ndarray:
        """Scale images to float32 0..1; values outside of the range stay outside."""
        if self.low == 0:  # in single precision, without a copy in double
            return images / np.float32(self.high)
        return ((images - self.low) / (self.high - self.low)).astype(np.float32)


def to_8_bits(data: Data) -> Data:
    """Convert images to uint8 0..255; those on disk when they are read."""
    if data.train.single.dtype == np.uint8:
        return data
    pixels = PixelRange.of(data.train.single)

    def convert(images: np.ndarray) -> np.ndarray:
        return np.rint(255 * np.clip(pixels.normalize(images), 0, 1)).astype(np.uint8)

    return data.convert(lambda _, split: Split(encode(convert, split.single), split.targets))


def to_float(series: np.ndarray) -> np.ndarray:
    """Convert a series (time,) or (time, …) to floats (time, features): float32 if that is exact, otherwise float64."""
    exact = series.dtype.kind == "b" or series.dtype.itemsize <= (4 if series.dtype.kind == "f" else 2)
    return series.reshape(len(series), -1).astype(np.float32 if exact else np.float64)
