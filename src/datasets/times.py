"""The times of the steps of a series."""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from src.datasets.data import as_text, by_series
from src.errors import UserError


def parse_times(
    texts: Mapping[str, np.ndarray], name: str, series_lengths: Mapping[str, Mapping[str, int]]
) -> dict[str, np.ndarray]:
    """Convert the times of the rows of each split to datetime64, in UTC if they have offsets.

    Args:
        texts: {split: the time of each row in ISO 8601, in which a year alone is one, too}.
        name: of the feature that holds them, for messages.
        series_lengths: {split: {series: number of its rows}}; empty: there is one series.

    Raises:
        UserError: it holds something else, or a series is not in order of time.
    """
    return {
        split: _parse([as_text(value) for value in of_split], name, split, series_lengths.get(split, {}))
        for split, of_split in texts.items()
    }


def _parse(texts: list[str], name: str, split: str, lengths: Mapping[str, int]) -> np.ndarray:
    try:
        times = pd.to_datetime(pd.Series(texts), format="ISO8601", utc=True).dt.tz_localize(None).to_numpy()
    except (ValueError, pd.errors.OutOfBoundsDatetime) as error:
        raise UserError(f"dataset.time={name} holds no times in ISO 8601, like 2026-07-01T12:00 ({error}).") from None
    series = np.concatenate([np.full(len(rows), index) for index, rows in enumerate(by_series(times, lengths).values())])
    unordered = np.flatnonzero((np.diff(times) <= np.timedelta64(0)) & (np.diff(series) == 0))
    if len(unordered):
        row = int(unordered[0]) + 1
        raise UserError(
            f"Row {row} of the {split} split (counted from 0) has the time {texts[row]}, and the row before it "
            f"{texts[row - 1]}; sort the rows by time, and leave out what comes twice."
        )
    return times
