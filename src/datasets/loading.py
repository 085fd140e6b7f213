"""Loading of data sets."""

import functools
import itertools
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from src import terminal
from src.config import schema
from src.datasets import conversion, validation
from src.datasets.columns import Column, Inputs, Targets
from src.datasets.data import Data, Slice
from src.datasets.examples import Examples
from src.datasets.preparation import prepare
from src.datasets.series import find_series, slices_of
from src.datasets.splits import resolve_splits
from src.datasets.times import parse_times


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
    with terminal.phase(f"Reading {settings.name}"):
        ranges = find_series(builder, settings, inputs)
        by_series = {name: slices_of(builder, settings, ranges, text) for name, text in settings.splits.model_dump().items()}
        if not settings.allow_overlap:
            validation.check_overlap(by_series)
        slices = {name: [*itertools.chain(*of_split.values())] for name, of_split in by_series.items()}
        splits = Examples(builder, settings, inputs, targets).splits(slices)
        series_lengths = _lengths(by_series) if settings.series_id else {}
        times = {}
        if settings.time:
            rows = Examples(builder, settings, inputs, Column(builder, settings.time, "dataset.time")).splits(slices)
            times = parse_times({name: split.targets for name, split in rows.items()}, settings.time, series_lengths)
    data = Data(
        name=settings.name,
        source=f"{builder.info.full_name.replace('/', ':')}",
        description=builder.info.description.strip(),
        classes=targets.classes,
        variables=inputs.names,
        target_variables=targets.names,
        times=times,
        ordered=builder.info.disable_shuffling and not settings.shuffle,
        slices=by_series,
        series_lengths=series_lengths,
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


def _lengths(slices: Mapping[str, Mapping[str, Sequence[Slice]]]) -> dict[str, dict[str, int]]:
    """{split: {series: number of its rows}} of the slices of each series."""
    return {
        split: {series: sum(stop - start for _, start, stop in own) for series, own in of_split.items()}
        for split, of_split in slices.items()
    }
