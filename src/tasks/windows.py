"""Windows of series, and the steps that follow them."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from src.config.tasks import ForecastingSettings
from src.datasets import Data, Split, validation
from src.datasets.concatenation import concatenate
from src.errors import UserError
from src.tasks import calendar
from src.tasks.gaps import fill_gaps

SeriesOfSplits = Mapping[str, Mapping[str, np.ndarray]]  # {split: {series: (time, features)}}; an only series has no name


def with_calendar(steps: Mapping[str, np.ndarray], data: Data, fields: Sequence[str], horizon: int) -> dict[str, np.ndarray]:
    """Append features of the calendar: {split: (time, features)}.

    Args:
        steps: {split: (time, features)}, of one series after the other.
        data: the data set.
        fields: of the calendar.
        horizon: how many steps later the calendar is looked at.

    Raises:
        UserError: the times of the steps are unknown.
    """
    if not data.times:
        raise UserError(
            f"task.calendar needs the time of each step of dataset={data.name}; type dataset.time=<name of the feature>."
        )
    extended = {}
    for split, values in steps.items():
        times = data.by_series(split, data.times[split]).values()
        features = np.concatenate([calendar.encode(of_series, fields, horizon) for of_series in times])
        extended[split] = np.concatenate([values, features.astype(values.dtype)], axis=1)
    return extended


def with_history(series: SeriesOfSplits, window: int) -> SeriesOfSplits:
    """Prepend the last window of each split of a series to the next one."""
    extended = {"train": series["train"]}
    for split, previous in (("validation", "train"), ("test", "validation")):
        extended[split] = {
            name: np.concatenate([series[previous][name][-window:], values]) for name, values in series[split].items()
        }
    return extended


def windows_of(series: SeriesOfSplits, split: str, settings: ForecastingSettings, targeted: np.ndarray) -> Split:
    """The windows of a split, of one series after the other, and the steps that follow them.

    They are views, of several series a `ConcatenatedArray` of views; only if values are missing, windows of inputs are copies.

    Args:
        series: of all splits. A value that is missing before the first one is filled in by the mean of the training set.
        split: its name.
        settings: of the task.
        targeted: indices of the features that are forecast, (targets,).

    Raises:
        UserError: a series has no window, or none of its values can be a target.
    """
    window, horizon = settings.window, settings.horizon
    inputs, targets = {}, {}
    for name, values in series[split].items():
        of_series, or_leave_out = validation.of_series(name), validation.or_leave_out(name)
        if len(values) < window + horizon:
            raise UserError(
                f"The {split} split{of_series} has {len(values)} steps, too few for task.window={window} and "
                f"task.horizon={horizon}; type a smaller window or a larger dataset.splits.{split}{or_leave_out}."
            )
        following = values[window:] if len(targeted) == values.shape[1] else values[window:, targeted]
        if np.isnan(following).all(axis=0).any():
            raise UserError(
                f"In the {split} split{of_series} a feature has no value that could be a target; type a larger one"
                f"{or_leave_out}."
            )
        inputs[name] = fill_gaps(values[:-horizon], window, np.nanmean(series["train"][name], axis=0))
        targets[name] = sliding_window_view(following, horizon, axis=0).swapaxes(1, 2)
    return Split(concatenate(inputs), concatenate(targets))
