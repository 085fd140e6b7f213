"""The times of the steps of a series."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import tensorflow_datasets as tfds

from src.datasets.data import Slice
from src.errors import UserError

BATCH = 1024  # rows that are read at once


def read_times(builder: tfds.core.DatasetBuilder, name: str, slices: Mapping[str, Sequence[Slice]]) -> dict[str, np.ndarray]:
    """The time of each row of the splits, datetime64.

    Args:
        builder: of the prepared data set.
        name: of the feature that holds the times as texts in ISO 8601, in which a year alone is one, too.
        slices: {split: where its rows are}.

    Raises:
        UserError: there is no such feature, it holds something else, or a split is not in order of time.
    """
    if name not in builder.info.features:
        available = ", ".join(sorted(builder.info.features))
        raise UserError(f"{builder.name} has no feature '{name}', which dataset.time names; it has: {available}.")
    return {split: _read(builder, name, split, of_split) for split, of_split in slices.items()}


def _read(builder: tfds.core.DatasetBuilder, name: str, split: str, slices: Sequence[Slice]) -> np.ndarray:
    texts: list[str] = []
    for base, start, stop in slices:
        dataset = builder.as_dataset(
            split=tfds.core.ReadInstruction(base, from_=start, to=stop, unit="abs"),
            decoders=tfds.decode.PartialDecoding({name: True}),
            read_config=tfds.ReadConfig(interleave_cycle_length=1),  # in the order of the files
        )
        for batch in dataset.batch(BATCH).as_numpy_iterator():
            texts += [value.decode() if isinstance(value, bytes) else str(value) for value in batch[name]]
    try:
        times = pd.to_datetime(pd.Series(texts), format="ISO8601").to_numpy()
    except (ValueError, pd.errors.OutOfBoundsDatetime) as error:
        raise UserError(f"dataset.time={name} holds no times in ISO 8601, like 2026-07-01T12:00 ({error}).") from None
    unordered = np.flatnonzero(np.diff(times) <= np.timedelta64(0))
    if len(unordered):
        row = int(unordered[0]) + 1
        raise UserError(
            f"Row {row} of the {split} split (counted from 0) has the time {texts[row]}, and the row before it "
            f"{texts[row - 1]}; sort the rows by time, and leave out what comes twice."
        )
    return times
