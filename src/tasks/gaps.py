"""Filling in the missing values of a time series."""

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view


def fill_gaps(series: np.ndarray, window: int, mean: np.ndarray) -> np.ndarray:
    """Windows of a series, whose missing values are filled in from those that precede the end of the window.

    Gaps between two values are interpolated linearly; after the last value it is repeated, since interpolation there would
    reveal a value that is to be forecast. Before the first value there is the mean.

    Args:
        series: (time, features), with NaN where a value is missing.
        window: steps in a window.
        mean: (features,).

    Returns:
        (windows, window, features): a view of the series if nothing is missing in it.
    """

    def windows(values: np.ndarray) -> np.ndarray:
        return sliding_window_view(values, window, axis=0).swapaxes(1, 2)

    if not np.isnan(series).any():
        return windows(series)
    steps = np.broadcast_to(np.arange(len(series))[:, None], series.shape)
    last_observed = np.maximum.accumulate(np.where(np.isnan(series), -1, steps), axis=0)[window - 1 :, None]
    return np.where(windows(steps) <= last_observed, windows(interpolate(series)), windows(carry_forward(series, mean)))


def interpolate(series: np.ndarray) -> np.ndarray:
    """A series (time, features) with its gaps interpolated linearly, and those at its ends filled with the nearest value."""
    time, filled = np.arange(len(series)), series.copy()
    for column in filled.T:
        observed = ~np.isnan(column)
        if observed.any():
            column[:] = np.interp(time, time[observed], column[observed])
    return filled


def carry_forward(series: np.ndarray, initial: np.ndarray) -> np.ndarray:
    """A series (time, features) with each gap filled by the value before it, and at its start by `initial` (features,)."""
    extended = np.concatenate([initial[None].astype(series.dtype), series])
    steps = np.where(np.isnan(extended), 0, np.arange(len(extended))[:, None])
    return np.take_along_axis(extended, np.maximum.accumulate(steps, axis=0), axis=0)[1:]
