"""Loading of data sets: three splits in memory."""

import functools
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import tensorflow_datasets as tfds

from src import terminal
from src.config import schema
from src.datasets import conversion, validation
from src.datasets.data import Data, Slice, Split
from src.datasets.preparation import prepare
from src.datasets.targets import Targets
from src.errors import UserError

SHUFFLE_SEED = 0  # the same for every run, so that runs with other seeds have the same test set


@functools.lru_cache(maxsize=1)  # the jobs of a sweep mostly share a data set
def load(settings: schema.Dataset) -> Data:
    """Load a data set into memory; prepare it first if necessary.

    Raises:
        UserError: there is no such builder, split or feature; the download failed; memory does not suffice; splits overlap;
            texts have another encoding; or a value is infinite.
    """
    builder = prepare(settings)
    targets = Targets(builder, settings)
    expressions = settings.splits.model_dump()
    slices = {name: _slices(builder, settings, expression) for name, expression in expressions.items()}
    if not settings.allow_overlap:
        validation.check_overlap(slices)
    with terminal.phase(f"Reading {settings.name}"):
        if settings.shuffle:
            splits = _read_shuffled(builder, settings, slices)
        else:
            splits = {name: _read(builder, settings, expression, slices[name]) for name, expression in expressions.items()}
    data = Data(
        name=settings.name,
        source=f"{builder.info.full_name.replace('/', ':')}",
        description=builder.info.description.strip(),
        classes=targets.classes,
        ordered=builder.info.disable_shuffling and not settings.shuffle,
        slices=slices,
        folder=Path(os.fspath(builder.data_dir_root)),
        **splits,
    )
    data = conversion.to_utf8(data, settings.encoding)
    validation.check_finite(data)
    if not settings.allow_overlap:
        validation.warn_of_duplicates(data)
    return data


def _slices(builder: tfds.core.DatasetBuilder, settings: schema.Dataset, expression: str) -> list[Slice]:
    """The slices that a TFDS expression like "train[:90%]" names.

    Raises:
        UserError: there is no such split, or the slice is empty.
    """
    try:
        instructions = tfds.core.ReadInstruction.from_spec(expression).to_absolute(builder.info.splits)
    except (KeyError, ValueError) as error:
        reason, available = str(error).splitlines()[0], ", ".join(builder.info.splits)
        raise UserError(f"dataset.splits: {settings.builder} has no '{expression}' ({reason}); it has: {available}.") from None
    slices = []
    for instruction in instructions:
        base = instruction.splitname
        count = builder.info.splits[base].num_examples
        slices.append(Slice(base, instruction.from_ or 0, count if instruction.to is None else instruction.to))
    if not sum(stop - start for _, start, stop in slices):
        raise UserError(f"The slice '{expression}' of {settings.builder} is empty; type a larger one.")
    return slices


def _read(builder: tfds.core.DatasetBuilder, settings: schema.Dataset, split: str, slices: Sequence[Slice]) -> Split:
    """Read a split, given as a TFDS expression and as the slices that it names, into memory."""
    count = sum(stop - start for _, start, stop in slices)
    feature = builder.info.features[settings.inputs]
    if None in feature.shape:
        raise UserError(
            f"dataset={settings.name}: '{settings.inputs}' has no fixed shape ({feature.shape}), which is not supported."
        )
    if feature.np_dtype is np.object_ or feature.np_dtype is np.str_:  # texts: about their size on disk
        required = count * builder.info.dataset_size // sum(info.num_examples for info in builder.info.splits.values())
    else:
        required = count * int(np.prod(feature.shape, dtype=np.int64)) * np.dtype(feature.np_dtype).itemsize
    if required > psutil.virtual_memory().available / 2:  # half, since decoding and encoding each hold a copy
        raise UserError(
            f"dataset={settings.name} needs {required / 2**30:.1f} GiB for '{split}' in memory; type a smaller slice, "
            f"""like 'dataset.splits.train="train[:10%]"'."""
        )
    targets = Targets(builder, settings)
    examples = builder.as_dataset(
        split=split,
        decoders=tfds.decode.PartialDecoding(dict.fromkeys((settings.inputs, *targets.names), True)),
        read_config=tfds.ReadConfig(interleave_cycle_length=1),  # in the order of the files
    )
    pairs = examples.map(lambda example: (example[settings.inputs], targets.of_example(example)))
    return Split(*next(pairs.batch(count).as_numpy_iterator()))


def _read_shuffled(
    builder: tfds.core.DatasetBuilder, settings: schema.Dataset, slices: Mapping[str, Sequence[Slice]]
) -> dict[str, Split]:
    """Read all splits as `_read` does, with the rows of the builder's splits shuffled before they are sliced."""
    parts: dict[str, dict[int, tuple[Any, Any]]] = {name: {} for name in slices}  # of each split, by the index of the slice
    for base in {base for of_split in slices.values() for base, _, _ in of_split}:  # one at a time is in memory as a whole
        whole = _read(builder, settings, base, [Slice(base, 0, builder.info.splits[base].num_examples)])
        order = shuffled_rows(whole.targets, stratify=settings.shuffle == "stratified")
        for name, of_split in slices.items():
            for index, (other, start, stop) in enumerate(of_split):
                if other == base:
                    rows = order[start:stop]
                    parts[name][index] = whole.array[rows], whole.targets[rows]
    splits = {}
    for name, by_index in parts.items():
        inputs, targets = zip(*(by_index[index] for index in sorted(by_index)))
        splits[name] = Split(np.concatenate(inputs), np.concatenate(targets))
    return splits


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
