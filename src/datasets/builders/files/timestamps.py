"""Checks of the timestamps of a series: their form, order and regularity."""

import array
import datetime
import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from src.datasets.builders.files.tables import Table
from src.errors import UserError

TOLERANCE = 1e-6  # of a step: numbers as timestamps are rounded
EPOCH = datetime.datetime(1970, 1, 1)


class Timestamp(NamedTuple):
    """The time of a row.

    Attributes:
        text: as the table has it.
        place: where, for messages.
        value: a date with a time, in UTC if the text has an offset, or a number.
    """

    text: str
    place: str
    value: datetime.datetime | float


def check(tables: Mapping[str, Sequence[Table]], column: str) -> None:
    """Check that the rows are in order of time, without duplicates, and in each split without gaps.

    Args:
        tables: {split: tables}, in order of time.
        column: that holds the timestamps.

    Raises:
        UserError: they are not, or one cannot be read.
    """
    last: Timestamp | None = None
    for of_split in tables.values():
        axis = Axis()
        for time in _read(of_split, column):
            if last is not None:
                _check_order(last, time)
            axis.add(time.value)
            last = time
        _check_regular(axis, of_split, column)


def _read(tables: Sequence[Table], column: str) -> Iterator[Timestamp]:
    for table in tables:
        for number, (value,) in table.rows([column]):
            yield _parse(value, column, table.at(number))


def _parse(value: Any, column: str, place: str) -> Timestamp:
    if value is None or value != value:  # NaN differs from itself
        raise UserError(f"{place}: the column '{column}' is empty; write the time of the row there.")
    if isinstance(value, datetime.datetime):
        return Timestamp(str(value), place, _utc(value))
    if isinstance(value, datetime.date):
        return Timestamp(str(value), place, datetime.datetime(value.year, value.month, value.day))
    text = str(value).strip()
    try:
        return Timestamp(text, place, _utc(datetime.datetime.fromisoformat(text)))
    except ValueError:
        pass
    try:
        return Timestamp(text, place, float(text))
    except ValueError:
        raise UserError(
            f"{place}: '{text}' in the column '{column}' is no time of a clear form; write it as ISO 8601, like 2016-07-01 "
            "12:00, or as a number."
        ) from None


def _utc(time: datetime.datetime) -> datetime.datetime:
    return time if time.tzinfo is None else time.astimezone(datetime.UTC).replace(tzinfo=None)


def _check_order(before: Timestamp, after: Timestamp) -> None:
    if isinstance(after.value, float) != isinstance(before.value, float):
        kinds = ("a number", "a date") if isinstance(after.value, float) else ("a date", "a number")
        raise UserError(f"{after.place}: {after.text} is {kinds[0]}, but {before.text} before it {kinds[1]}; write all alike.")
    if after.value == before.value:
        raise UserError(
            f"{after.place}: {after.text} comes twice; keep one row for each time (where clocks are set back, write the offset "
            "from UTC, as in 2016-10-30T02:00+01:00)."
        )
    if after.value < before.value:  # type: ignore[operator]  # both are dates, or both are numbers
        raise UserError(f"{after.place}: {after.text} comes after {before.text}; sort the rows by time, the oldest first.")


class Axis:
    """The timestamps of a split as numbers: months, if all are the same day of a month or its last one, else seconds."""

    def __init__(self) -> None:
        self._numbers, self._months = array.array("d"), array.array("d")
        self._days: set[tuple[int, datetime.time]] = set()  # of at most two different ones
        self._ends_months = True
        self._are_dates = False

    def add(self, value: datetime.datetime | float) -> None:
        """Append a timestamp."""
        if isinstance(value, float):
            self._numbers.append(value)
            return
        self._are_dates = True
        self._numbers.append((value - EPOCH).total_seconds())
        self._months.append(12 * value.year + value.month)
        if len(self._days) < 2:
            self._days.add((value.day, value.time()))
        ends_month = (value + datetime.timedelta(days=1)).day == 1 and value.time() == datetime.time()
        self._ends_months = self._ends_months and ends_month

    @property
    def _is_monthly(self) -> bool:
        return self._are_dates and (len(self._days) == 1 or self._ends_months)

    @property
    def positions(self) -> np.ndarray:
        """The timestamps (rows,)."""
        return np.array(self._months if self._is_monthly else self._numbers)

    def describe(self, step: float) -> str:
        """A difference of positions in words."""
        if self._is_monthly:
            return "1 month" if step == 1 else f"{step:g} months"
        return str(datetime.timedelta(seconds=step)).removesuffix(", 0:00:00") if self._are_dates else f"{step:g}"


def _check_regular(axis: Axis, tables: Sequence[Table], column: str) -> None:
    """Check that all steps are as long as most are."""
    steps = np.diff(axis.positions)
    if len(steps) < 2:
        return
    lengths, counts = np.unique(steps, return_counts=True)
    usual = lengths[counts.argmax()]
    different = np.flatnonzero(np.abs(steps - usual) > TOLERANCE * usual)
    if not len(different):
        return
    row = int(different[0])
    before, after = itertools.islice(_read(tables, column), row, row + 2)
    what = f"{after.place}: {after.text} comes after {before.text}, but most rows are {axis.describe(usual)} apart"
    missing = steps[row] / usual - 1
    if abs(missing - round(missing)) < TOLERANCE and missing >= 1:
        gap = f"missing rows: {round(missing):,}, gaps in all: {len(different):,}"
        raise UserError(f"{what} ({gap}); add the missing rows, with an empty value.")
    raise UserError(f"{what} ({len(different):,} rows are irregular); resample the series to regular times.")
