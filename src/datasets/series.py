"""Which rows of a data set belong to which series, and to which split of it."""

import collections
from collections.abc import Mapping

import numpy as np
import tensorflow_datasets as tfds

from src.config import schema
from src.datasets.columns import Column, Inputs
from src.datasets.data import Slice, as_text
from src.datasets.examples import Examples
from src.datasets.validation import of_series, or_leave_out
from src.errors import UserError

Ranges = Mapping[str, Mapping[str, range]]  # {split of the builder: {series: its rows}}; the name of the only series is empty


def find_series(builder: tfds.core.DatasetBuilder, settings: schema.Dataset, inputs: Inputs) -> Ranges:
    """The rows of each series in the splits of a builder, in the order in which the series come.

    Args:
        builder: of the prepared data.
        settings: of the data set.
        inputs: of the examples.

    Raises:
        UserError: there is no feature that `dataset.series_id` names, or the rows of a series do not follow each other.
    """
    counts = {base: split.num_examples for base, split in builder.info.splits.items()}
    if settings.series_id is None:
        return {base: {"": range(count)} for base, count in counts.items()}
    whole = {base: [Slice(base, 0, count)] for base, count in counts.items()}
    columns = [Column(builder, name, "dataset.series_id") for name in schema.as_tuple(settings.series_id)]
    read = [Examples(builder, settings, inputs, column).splits(whole) for column in columns]
    ranges = {}
    for base, count in counts.items():
        identifiers = [of_column[base].targets for of_column in read]
        changes = np.any([column[1:] != column[:-1] for column in identifiers], axis=0)
        starts = [0, *(np.flatnonzero(changes) + 1).tolist()]
        names = [", ".join(as_text(column[start]) for column in identifiers) for start in starts]
        repeated, times = collections.Counter(names).most_common(1)[0]
        if times > 1:
            raise UserError(
                f"The rows of the series '{repeated}' in the {base} split of {builder.name} do not follow each other; let the "
                "builder yield one series after the other."
            )
        ranges[base] = {name: range(*bounds) for name, *bounds in zip(names, starts, [*starts[1:], count])}
    return ranges


def slices_of(
    builder: tfds.core.DatasetBuilder, settings: schema.Dataset, ranges: Ranges, expression: str
) -> dict[str, list[Slice]]:
    """{series: the slices that a TFDS expression like "train[:90%]" names}, where each series is sliced by itself.

    Args:
        builder: of the prepared data.
        settings: of the data set.
        ranges: of the series.
        expression: of a split.

    Raises:
        UserError: there is no such split of the builder, or a slice is empty.
    """
    slices = {}
    for series in dict.fromkeys(series for of_base in ranges.values() for series in of_base):
        rows = {base: of_base.get(series, range(0)) for base, of_base in ranges.items()}
        own = [
            Slice(base, rows[base].start + start, rows[base].start + stop)
            for base, start, stop in _parse(builder, settings, expression, series, rows)
        ]
        if any(stop > start for _, start, stop in own):
            slices[series] = own
        elif any(rows[base] for base, _, _ in own):
            raise UserError(
                f"The slice '{expression}' of {settings.builder}{of_series(series)} is empty; type a larger one"
                f"{or_leave_out(series)}."
            )
    return slices


def _parse(
    builder: tfds.core.DatasetBuilder, settings: schema.Dataset, expression: str, series: str, rows: Mapping[str, range]
) -> list[Slice]:
    """The slices of a series that an expression names, counted from its first row.

    Raises:
        UserError: there is no such split, or a slice goes beyond it.
    """
    splits = builder.info.splits
    if settings.series_id is not None:
        splits = {base: tfds.core.SplitInfo(base, [len(of_base)], num_bytes=0) for base, of_base in rows.items()}
    try:
        instructions = tfds.core.ReadInstruction.from_spec(expression).to_absolute(splits)
    except (KeyError, ValueError) as error:
        reason, available = str(error).splitlines()[0], ", ".join(splits)
        raise UserError(
            f"dataset.splits: {settings.builder} has no '{expression}'{of_series(series)} ({reason}); it has: {available}."
        ) from None
    ends = [len(rows[each.splitname]) if each.to is None else each.to for each in instructions]
    return [Slice(each.splitname, each.from_ or 0, end) for each, end in zip(instructions, ends)]
