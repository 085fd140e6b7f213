"""The times of the steps of a series."""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from src.errors import UserError


def parse_times(texts: Mapping[str, np.ndarray], name: str) -> dict[str, np.ndarray]:
    """Convert the times of the rows of each split to datetime64, in UTC if they have offsets.

    Args:
        texts: {split: the time of each row in ISO 8601, in which a year alone is one, too}.
        name: of the feature that holds them, for messages.

    Raises:
        UserError: it holds something else, or a split is not in order of time.
    """
    return {split: _parse([_text(value) for value in of_split], name, split) for split, of_split in texts.items()}


def _text(value: object) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _parse(texts: list[str], name: str, split: str) -> np.ndarray:
    try:
        times = pd.to_datetime(pd.Series(texts), format="ISO8601", utc=True).dt.tz_localize(None).to_numpy()
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
