"""A data set: three splits of examples."""

import dataclasses
import functools
import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
from keras import tree

from src.datasets.concatenation import ConcatenatedArray
from src.datasets.lazy import LazyArray, chunks, is_lazy
from src.datasets.stored import StoredArray

Array = np.ndarray | LazyArray  # in memory or on disk
Arrays = Array | Mapping[str, Array]  # of equal length; several inputs have names


@dataclass(frozen=True)
class Split:
    """Examples of a data set: the same rows of `inputs` and `targets`.

    Attributes:
        inputs: (examples, …), one array or several by name, in memory or on disk.
        targets: (examples, …), in memory; only where they are the inputs, as in texts without labels, or are computed of them,
            as the next pixels are, may they be on disk, too.
        source: raw inputs that `inputs` were encoded from; None: they are raw.
        reference: raw targets that `targets` were encoded from; None: they are raw.
    """

    inputs: Arrays
    targets: np.ndarray
    source: Array | None = None
    reference: Array | None = None

    def __len__(self) -> int:
        return len(self.targets)

    @property
    def single(self) -> Array:
        """The inputs, if they are a single array."""
        return _single(self.inputs)

    @property
    def raw_inputs(self) -> Array:
        """The inputs before encoding."""
        return _single(self.inputs if self.source is None else self.source)

    @property
    def array(self) -> np.ndarray:
        """The inputs, if they are a single array in memory."""
        return _in_memory(self.single)

    @property
    def raw(self) -> np.ndarray:
        """The inputs before encoding, if they are in memory."""
        return _in_memory(self.raw_inputs)

    @property
    def raw_targets(self) -> Array:
        """The targets before encoding."""
        return self.targets if self.reference is None else self.reference

    def take(self, limit: int | None) -> "Split":
        """The first `limit` examples; None: all."""

        def first(array: Array | None) -> Array | None:
            if array is None or limit is None:
                return array
            if isinstance(array, ConcatenatedArray):
                return array.head(limit)
            return array.take(np.arange(len(array))[:limit]) if isinstance(array, LazyArray) else array[:limit]

        return Split(*tree.map_structure(first, (self.inputs, self.targets, self.source, self.reference)))

    @functools.cached_property
    def digest(self) -> str:
        """A hash of all values in order: 32 hexadecimal digits. That of data on disk is computed once and kept there."""
        inputs = self.single
        if isinstance(inputs, StoredArray):
            targets = "texts" if is_lazy(self.targets) else _digest(self.targets)
            return str(inputs.keep(f"digest-{targets}", lambda: np.array(_digest(inputs, self.targets))))
        return _digest(inputs, self.targets)


def _digest(*arrays: Array) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for array in arrays:
        digest.update(str((array.shape, array.dtype)).encode())
        for chunk in chunks(array):
            if array.dtype == object:  # texts
                for text in chunk:
                    digest.update(len(text).to_bytes(8, "little") + text)
            else:
                digest.update(np.ascontiguousarray(chunk).data)
    return digest.hexdigest()


def _single(inputs: Arrays) -> Array:
    if isinstance(inputs, Mapping):
        raise TypeError(f"These inputs are several: {', '.join(inputs)}.")
    return inputs


def _in_memory(array: Array) -> np.ndarray:
    if isinstance(array, LazyArray):
        raise TypeError("These inputs are on disk.")
    return array


class Slice(NamedTuple):
    """Rows of a split of TFDS: train[:90%] of 1,000 rows is ("train", 0, 900)."""

    base: str
    start: int
    stop: int


@dataclass(frozen=True)
class Data:
    """A data set.

    Attributes:
        name: of the data set in conf/dataset.
        source: TFDS name, config and version, e.g. mnist:3.0.1.
        description: of the builder.
        train, validation, test: the splits, raw.
        classes: class names if the targets are class indices, or whether each class applies, (examples, classes); empty: the
            targets are raw, see `conversion.to_class_indices`.
        variables, target_variables: names of the features that are inputs and targets; empty: unknown.
        times: {split: time of each row, datetime64}; empty: unknown.
        ordered: whether the rows are in the order in which the builder yields them; false: they are shuffled.
        slices: {split: {series: where its rows are in the builder's splits}}; the name of the only series, or of examples that
            are none, is empty. Empty: unknown.
        series_lengths: {split: {series: number of its rows}} where there are several series, one after the other; empty: there
            is one.
        sample_rate: samples in a second of inputs that are audio clips; None: they are none.
        folder: of prepared data sets, in which it is; None: it is in none.
    """

    name: str
    source: str
    description: str
    train: Split
    validation: Split
    test: Split
    classes: tuple[str, ...]
    variables: tuple[str, ...] = ()
    target_variables: tuple[str, ...] = ()
    times: Mapping[str, np.ndarray] = field(default_factory=dict)
    ordered: bool = True
    slices: Mapping[str, Mapping[str, Sequence[Slice]]] = field(default_factory=dict)
    series_lengths: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    sample_rate: int | None = None
    folder: Path | None = None

    @property
    def splits(self) -> dict[str, Split]:
        """{"train": …, "validation": …, "test": …}"""
        return {"train": self.train, "validation": self.validation, "test": self.test}

    def by_series(self, split: str, rows: np.ndarray) -> dict[str, np.ndarray]:
        """{series: its rows} of the rows of a split; the name of the only series is empty."""
        return by_series(rows, self.series_lengths.get(split, {}))

    def convert(self, convert: Callable[[str, Split], Split]) -> "Data":
        """The data set with other splits.

        Args:
            convert: from name and split to the new one.
        """
        train, validation, test = (convert(name, split) for name, split in self.splits.items())
        return dataclasses.replace(self, train=train, validation=validation, test=test)


def by_series(rows: np.ndarray, lengths: Mapping[str, int]) -> dict[str, np.ndarray]:
    """The rows of each series, as views.

    Args:
        rows: of one series after the other.
        lengths: {series: number of its rows}; empty: there is one series.

    Returns:
        {series: rows}; the name of the only series is empty.
    """
    if not lengths:
        return {"": rows}
    return dict(zip(lengths, np.split(rows, np.cumsum(list(lengths.values()))[:-1])))


def as_text(value: object) -> str:
    """A value of a builder as text: bytes are UTF-8."""
    return value.decode() if isinstance(value, bytes) else str(value)
