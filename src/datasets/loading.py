"""Loading of data sets."""

import functools
import os
from pathlib import Path

import tensorflow_datasets as tfds

from src import terminal
from src.config import schema
from src.datasets import conversion, validation
from src.datasets.columns import Column, Inputs, Targets
from src.datasets.data import Data, Slice
from src.datasets.examples import Examples
from src.datasets.preparation import prepare
from src.datasets.splits import resolve_splits
from src.datasets.times import parse_times
from src.errors import UserError


@functools.lru_cache(maxsize=1)  # the jobs of a sweep mostly share a data set
def load(settings: schema.Dataset) -> Data:
    """Load a data set; prepare it first if necessary.

    Raises:
        UserError: there is no such builder, split or feature; the download failed; memory does not suffice; splits overlap;
            images differ in size; texts have another encoding; or a value is infinite.
    """
    builder = prepare(settings)
    settings = resolve_splits(settings, builder)
    inputs, targets = Inputs(builder, settings), Targets(builder, settings)
    expressions = settings.splits.model_dump()
    slices = {name: _slices(builder, settings, expression) for name, expression in expressions.items()}
    if not settings.allow_overlap:
        validation.check_overlap(slices)
    with terminal.phase(f"Reading {settings.name}"):
        splits = Examples(builder, settings, inputs, targets).splits(slices)
        times = {}
        if settings.time:
            rows = Examples(builder, settings, inputs, Column(builder, settings.time, "dataset.time")).splits(slices)
            times = parse_times({name: split.targets for name, split in rows.items()}, settings.time)
    data = Data(
        name=settings.name,
        source=f"{builder.info.full_name.replace('/', ':')}",
        description=builder.info.description.strip(),
        classes=targets.classes,
        variables=inputs.names,
        target_variables=targets.names,
        times=times,
        ordered=builder.info.disable_shuffling and not settings.shuffle,
        slices=slices,
        sample_rate=inputs.sample_rate,
        folder=Path(os.fspath(builder.data_dir_root)),
        **splits,
    )
    if settings.path is None:  # files are decoded when they are prepared
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
