"""Checks of the times of a series: their order and regularity."""

import datetime

import numpy as np
from pandas.tseries.frequencies import to_offset

from src.datasets.builders.files.steps import Row, Steps
from src.errors import UserError


def check_order(steps: Steps, column: str, allow_equal: bool) -> None:
    """Check that the steps of a series are in order of time.

    Args:
        steps: of a split.
        column: that holds the times.
        allow_equal: whether several rows may have the same time.

    Raises:
        UserError: they are not.
    """
    differences = np.diff(steps.times).astype(np.int64)
    wrong = np.flatnonzero(differences < 0 if allow_equal else differences <= 0)
    if not len(wrong):
        return
    step = int(wrong[0])
    before, after = steps.row(step), steps.row(step + 1)
    if differences[step] == 0:
        raise UserError(
            f"{after}: {after.text(column)}{steps.name} comes twice; keep one row for each time (where clocks are set back, "
            "write the offset from UTC, as in 2016-10-30T02:00+01:00)."
        )
    raise _order_error(before, after, steps, column)


def check_follows(steps: Steps, previous: Steps, column: str) -> None:
    """Check that the steps of a series come after those of the split before.

    Args:
        steps: of a split.
        previous: of the split before.
        column: that holds the times.

    Raises:
        UserError: they do not.
    """
    before, after = previous.row(-1), steps.row(0)
    if steps.times[0] == previous.times[-1]:
        raise UserError(
            f"{after}: {after.text(column)}{steps.name} is at the same time, or in the same interval, as "
            f"{before.text(column)} ({before}); leave one of them out."
        )
    if steps.times[0] < previous.times[-1]:
        raise _order_error(before, after, steps, column)


def _order_error(before: Row, after: Row, steps: Steps, column: str) -> UserError:
    return UserError(
        f"{after}: {after.text(column)}{steps.name} comes after {before.text(column)}; sort the rows by time, the oldest first."
    )


def check_regular(steps: Steps, column: str) -> None:
    """Check that all steps of a series are as long as most are.

    Args:
        steps: of a split, in order of time.
        column: that holds the times.

    Raises:
        UserError: they are not.
    """
    monthly = _are_monthly(steps.times)
    lengths = np.diff(steps.times.astype("datetime64[M]") if monthly else steps.times).astype(np.int64)
    if len(lengths) < 2:
        return
    different_lengths, counts = np.unique(lengths, return_counts=True)
    usual = int(different_lengths[counts.argmax()])
    different = np.flatnonzero(lengths != usual)
    if not len(different):
        return
    step = int(different[0])
    before, after = steps.row(step), steps.row(step + 1)
    what = (
        f"{after}: {after.text(column)}{steps.name} comes after {before.text(column)}, but most rows are "
        f"{_describe(usual, monthly)} apart"
    )
    resampling = f"dataset.resample={_frequency(usual, monthly)}"
    missing, remainder = divmod(int(lengths[step]) - usual, usual)
    if missing >= 1 and not remainder:
        gap = f"missing rows: {missing:,}, gaps in all: {len(different):,}"
        raise UserError(f"{what} ({gap}); add the missing rows, with an empty value, or type {resampling}.")
    raise UserError(f"{what} ({len(different):,} rows are irregular); type {resampling} for the means over regular intervals.")


def _are_monthly(times: np.ndarray) -> bool:
    """Whether all times are at the same time of the same day of a month, or all on its last day."""
    in_month = times - times.astype("datetime64[M]")
    next_day = times + np.timedelta64(1, "D")
    return bool((in_month == in_month[0]).all() or (next_day == next_day.astype("datetime64[M]")).all())


def _describe(step: int, monthly: bool) -> str:
    """A number of months, or of microseconds, in words."""
    if monthly:
        return "1 month" if step == 1 else f"{step} months"
    return str(datetime.timedelta(microseconds=step)).removesuffix(", 0:00:00")


def _frequency(step: int, monthly: bool) -> str:
    """The frequency of pandas that is a number of months, or of microseconds."""
    if monthly:
        return "MS" if step == 1 else f"{step}MS"
    frequency = to_offset(datetime.timedelta(microseconds=step)).freqstr
    return frequency if frequency[0].isdigit() else f"1{frequency}"
