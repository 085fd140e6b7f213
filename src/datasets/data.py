"""A data set in memory: three splits of examples."""

import dataclasses
import functools
import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
from keras import tree

Arrays = np.ndarray | dict[str, np.ndarray]  # of equal length; several inputs have names


@dataclass(frozen=True)
class Split:
    """Examples of a data set: the same rows of `inputs` and `targets`.

    Attributes:
        inputs: (examples, …), one array or several by name.
        targets: (examples, …).
        source: raw inputs that `inputs` were encoded from; None: they are raw.
        reference: raw targets that `targets` were encoded from; None: they are raw.
    """

    inputs: Arrays
    targets: np.ndarray
    source: np.ndarray | None = None
    reference: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.targets)

    @property
    def array(self) -> np.ndarray:
        """The inputs, if they are a single array."""
        if isinstance(self.inputs, dict):
            raise TypeError(f"These inputs are several: {', '.join(self.inputs)}.")
        return self.inputs

    @property
    def raw(self) -> np.ndarray:
        """The inputs before encoding."""
        return self.array if self.source is None else self.source

    @property
    def raw_targets(self) -> np.ndarray:
        """The targets before encoding."""
        return self.targets if self.reference is None else self.reference

    def take(self, limit: int | None) -> "Split":
        """The first `limit` examples; None: all."""
        fields = (self.inputs, self.targets, self.source, self.reference)
        return Split(*tree.map_structure(lambda array: array if array is None else array[:limit], fields))

    @functools.cached_property
    def digest(self) -> str:
        """A hash of all values in order: 32 hexadecimal digits."""
        digest = hashlib.blake2b(digest_size=16)
        for array in (self.array, self.targets):
            digest.update(str((array.shape, array.dtype)).encode())
            if array.dtype == object:  # texts
                for text in array:
                    digest.update(len(text).to_bytes(8, "little") + text)
            else:
                digest.update(np.ascontiguousarray(array).data)
        return digest.hexdigest()


class Slice(NamedTuple):
    """Rows of a split of TFDS: train[:90%] of 1,000 rows is ("train", 0, 900)."""

    base: str
    start: int
    stop: int


@dataclass(frozen=True)
class Data:
    """A data set in memory.

    Attributes:
        name: of the data set in conf/dataset.
        source: TFDS name, config and version, e.g. mnist:3.0.1.
        description: of the builder.
        train, validation, test: the splits, raw.
        classes: class names if the targets are class indices, or whether each class applies, (examples, classes); empty: the
            targets are raw, see `conversion.to_class_indices`.
        ordered: whether the rows are in the order in which the builder yields them; false: they are shuffled.
        slices: {split: where its rows are in the builder's splits}; empty: unknown.
        folder: of prepared data sets, in which it is; None: it is in none.
    """

    name: str
    source: str
    description: str
    train: Split
    validation: Split
    test: Split
    classes: tuple[str, ...]
    ordered: bool = True
    slices: Mapping[str, Sequence[Slice]] = field(default_factory=dict)
    folder: Path | None = None

    @property
    def splits(self) -> dict[str, Split]:
        """{"train": …, "validation": …, "test": …}"""
        return {"train": self.train, "validation": self.validation, "test": self.test}

    def convert(self, convert: Callable[[str, Split], Split]) -> "Data":
        """The data set with other splits.

        Args:
            convert: from name and split to the new one.
        """
        train, validation, test = (convert(name, split) for name, split in self.splits.items())
        return dataclasses.replace(self, train=train, validation=validation, test=test)
