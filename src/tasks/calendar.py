"""Calendar features: covariates of a series that are known in advance."""

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd

FIELDS: dict[str, Callable[[pd.DatetimeIndex], pd.Index]] = {  # from 0 to 1
    "minute": lambda times: times.minute / 59,
    "hour": lambda times: times.hour / 23,
    "weekday": lambda times: times.day_of_week / 6,
    "day": lambda times: (times.day - 1) / 30,
    "month": lambda times: (times.month - 1) / 11,
    "day_of_year": lambda times: (times.day_of_year - 1) / 365,
}


def encode(times: np.ndarray, fields: Sequence[str], shift: int) -> np.ndarray:
    """Fields of the calendar, each from −0.5 to 0.5 as in GluonTS and Informer: (time, fields), float32.

    Args:
        times: datetime64, (time,), evenly spaced.
        fields: names in `FIELDS`.
        shift: steps; the fields are those of the time so many steps later.
    """
    index = pd.DatetimeIndex(times)
    later = index + shift * (index[1:] - index[:-1]).median()
    return np.stack([np.asarray(FIELDS[field](later), np.float32) - np.float32(0.5) for field in fields], axis=1)
