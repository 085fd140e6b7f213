"""The examples of a prepared data set: which rows are in which split, read into memory or left on disk."""

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from typing import cast

import numpy as np
import psutil
import tensorflow as tf
import tensorflow_datasets as tfds

from src.config import schema
from src.datasets import array_records, conversion
from src.datasets.columns import Column, Inputs
from src.datasets.data import Slice, Split
from src.datasets.stored import StoredArray
from src.errors import UserError

log = logging.getLogger(__name__)

SHUFFLE_SEED = 0  # the same for every run, so that runs with other seeds have the same test set
CHUNK = 256  # examples that are read at once

Slices = Mapping[str, Sequence[Slice]]  # of each split


class Examples:
    """Reads inputs and targets of a prepared data set.

    Args:
        builder: of the prepared data set.
        settings: how the data is stored and shuffled.
        inputs, targets: of the examples.
    """

    def __init__(self, builder: tfds.core.DatasetBuilder, settings: schema.Dataset, inputs: Inputs, targets: Column):
        self.builder, self.settings, self.inputs, self.targets = builder, settings, inputs, targets

    def splits(self, slices: Slices) -> dict[str, Split]:
        """The splits, in memory or on disk.

        Args:
            slices: {split: where its rows are}.
        """
        if self._are_stored(slices):
            return self._open(slices)
        if array_records.are_random_access(self.builder):
            opened = self._open(slices).items()
            return {name: Split(np.asarray(split.inputs), np.asarray(split.targets)) for name, split in opened}
        return self._read(slices)

    def _are_stored(self, slices: Slices) -> bool:
        """Whether the inputs stay on disk: where the settings say so, or memory does not suffice.

        Raises:
            UserError: memory does not suffice for what cannot stay on disk.
        """
        storage, name = self.settings.storage, self.settings.name
        is_utf8 = self.inputs.is_text and (self.settings.encoding == "utf-8" or self.settings.path is not None)
        storable = self.inputs.is_image or self.inputs.is_audio or is_utf8  # the user's own files were decoded when prepared
        if storage == "disk" and not storable:
            kind = f"a text in {self.settings.encoding}" if self.inputs.is_text else "none of them"
            raise UserError(
                f"dataset={name}: images, audio and texts in UTF-8 can be read from disk during training, but "
                f"'{self.inputs.names[0]}' is {kind}; type dataset.storage=memory."
            )
        if storage == "disk":
            return True
        available = psutil.virtual_memory().available / 2  # half, since decoding and encoding hold a copy
        required = sum(self._bytes(stop - start) for _, start, stop in _all(slices))
        if required <= available:
            return False
        if storage == "auto" and storable:
            log.info("%s would take %.1f GiB of memory, so inputs are read from disk during training.", name, required / 2**30)
            return True
        hint = " or dataset.storage=disk" if storable else ""
        raise UserError(
            f"dataset={name} needs {required / 2**30:.1f} GiB in memory; type a smaller slice, like "
            f"""'dataset.splits.train="train[:10%]"'{hint}."""
        )

    def _bytes(self, count: int) -> int:
        """How much memory the inputs of a number of examples need."""
        if self.inputs.is_text:  # about their size on disk
            splits = self.builder.info.splits.values()
            return count * self.builder.info.dataset_size // sum(split.num_examples for split in splits)
        return count * int(np.prod(self.inputs.shape, dtype=np.int64)) * self.inputs.dtype.itemsize

    # --- memory ------------------------------------------------------------------------------------------------------

    def _read(self, slices: Slices) -> dict[str, Split]:
        """The splits in memory. Each split of the builder is read once; those of rows in their own order are views of it."""
        firsts, read, orders = {}, {}, {}  # of each split of the builder
        for base in _bases(slices):
            of_base = [each for each in _all(slices) if each.base == base]
            first, last = min(each.start for each in of_base), max(each.stop for each in of_base)
            if self.settings.shuffle:
                first, last = 0, self._count(base)
            firsts[base], read[base] = first, self._read_range(base, first, last)
            if self.settings.shuffle:
                orders[base] = self._order(read[base].targets)

        def rows(each: Slice) -> slice | np.ndarray:
            if self.settings.shuffle:
                return orders[each.base][each.start : each.stop]
            return slice(each.start - firsts[each.base], each.stop - firsts[each.base])

        return {
            name: Split(
                _join([read[each.base].array[rows(each)] for each in of_split]),
                _join([read[each.base].targets[rows(each)] for each in of_split]),
            )
            for name, of_split in slices.items()
        }

    def _read_range(self, base: str, start: int, stop: int) -> Split:
        """Some rows of a split of the builder, in their order."""
        dataset = self.builder.as_dataset(
            split=tfds.core.ReadInstruction(base, from_=start, to=stop, unit="abs"),
            decoders=tfds.decode.PartialDecoding(dict.fromkeys((*self.inputs.names, *self.targets.names), True)),
            read_config=tfds.ReadConfig(interleave_cycle_length=1),  # in the order of the files
        )

        def example(features: dict[str, tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor]:
            return self.inputs.of_example(features), self.targets.of_example(features)

        batches = dataset.map(example, num_parallel_calls=os.cpu_count(), deterministic=True).batch(CHUNK)
        inputs = np.empty((stop - start, *self.inputs.shape), self.inputs.dtype)
        targets = np.empty((stop - start, *self.targets.shape), self.targets.dtype)
        for row, batch in zip(range(0, stop - start, CHUNK), batches.as_numpy_iterator()):
            inputs[row : row + CHUNK], targets[row : row + CHUNK] = batch
        return Split(inputs, targets)

    # --- disk --------------------------------------------------------------------------------------------------------

    def _open(self, slices: Slices) -> dict[str, Split]:
        """The splits, whose inputs are read when they are needed. Targets are in memory, unless they are the inputs."""
        paths: list[str] = []
        offsets: dict[str, int] = {}  # of the rows of a split of the builder, counted over all files
        targets, orders = {}, {}
        for base in _bases(slices):
            files, count = array_records.files(self.builder, base), self._count(base)
            offsets[base] = sum(map(self._count, offsets))
            records = array_records.Records(files, np.arange(count))
            decode = self._decoder(self.targets)
            stored = StoredArray(records, decode, (count, *self.targets.shape), self.targets.dtype)
            targets[base] = np.zeros(count) if self._are_their_own_targets else np.asarray(stored)
            orders[base] = self._order(targets[base]) if self.settings.shuffle else np.arange(count)
            paths += files
        decode = self._decoder(self.inputs)
        splits = {}
        for name, of_split in slices.items():
            rows = _join([offsets[each.base] + orders[each.base][each.start : each.stop] for each in of_split])
            records = array_records.Records(paths, rows)
            version = f"{self.inputs.names} {self.inputs.transform}"
            inputs = StoredArray(records, decode, (len(rows), *self.inputs.shape), self.inputs.dtype, version)
            of_rows = [targets[each.base][orders[each.base][each.start : each.stop]] for each in of_split]
            splits[name] = Split(inputs, cast(np.ndarray, inputs) if self._are_their_own_targets else _join(of_rows))
        return splits

    @property
    def _are_their_own_targets(self) -> bool:
        """Whether the inputs are texts without labels."""
        return self.inputs.is_text and self.inputs.names == self.targets.names

    def _decoder(self, column: Column) -> Callable[[tf.Tensor], tf.Tensor]:
        """The function from a record to the value of a column."""
        features = tfds.decode.PartialDecoding(dict.fromkeys(column.names, True)).extract_features(self.builder.info.features)
        return lambda record: column.of_example(features.deserialize_example(record))

    # --- rows --------------------------------------------------------------------------------------------------------

    def _count(self, base: str) -> int:
        return self.builder.info.splits[base].num_examples

    def _order(self, targets: np.ndarray) -> np.ndarray:
        """The order of the rows of a split of the builder that is sliced."""
        return shuffled_rows(targets, stratify=self.settings.shuffle == "stratified")


def _all(slices: Slices) -> list[Slice]:
    return [each for of_split in slices.values() for each in of_split]


def _bases(slices: Slices) -> list[str]:
    """The splits of the builder that slices are of, in the order in which they first come."""
    return list(dict.fromkeys(each.base for each in _all(slices)))


def _join(parts: Sequence[np.ndarray]) -> np.ndarray:
    """Arrays one after the other; a single one is not copied."""
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def shuffled_rows(targets: np.ndarray, stratify: bool) -> np.ndarray:
    """Row numbers in random order, the same in every run.

    Args:
        targets: of the rows.
        stratify: whether the rows of each class are spread evenly, so that every slice has the classes in equal proportions.

    Raises:
        UserError: rows are to be stratified, and their targets are no classes.
    """
    order = np.random.default_rng(SHUFFLE_SEED).permutation(len(targets))
    if not stratify:
        return order
    if not conversion.are_labels(targets):
        raise UserError("dataset.shuffle=stratified needs class labels as targets; type dataset.shuffle=random.")
    _, classes, counts = np.unique(targets[order], return_inverse=True, return_counts=True)
    by_class = np.argsort(classes, kind="stable")
    rank = np.empty(len(targets))  # of a row among the rows of its class: 0, 1, 2, …
    rank[by_class] = np.arange(len(targets)) - np.repeat(np.cumsum(counts) - counts, counts)
    return order[np.argsort((rank + 0.5) / counts[classes], kind="stable")]
