"""Checks of the timestamps of a series: their form, order and regularity."""

import array
import datetime
import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from src.datasets.builders.files.tables import Table
from src.errors import UserError

EPOCH = datetime.datetime(1970, 1, 1)


class Timestamp(NamedTuple):
    """The time of a row.

    Attributes:
        text: as the table has it.
        place: where, for messages.
        time: what it says, in UTC if the text has an offset.
    """

    text: str
    place: str
    time: datetime.datetime


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
        for timestamp in _read(of_split, column):
            if last is not None:
                _check_order(last, timestamp)
            axis.add(timestamp.time)
            last = timestamp
        _check_regular(axis, of_split, column)


def _read(tables: Sequence[Table], column: str) -> Iterator[Timestamp]:
    for table in tables:
        for number, (value,) in table.rows([column]):
            yield Timestamp(str(value).strip(), table.at(number), parse(value, column, table.at(number)))


def parse(value: Any, column: str, place: str) -> datetime.datetime:
    """The time of a row, in UTC if it has an offset.

    Args:
        value: as the table has it: a date, or a text in ISO 8601; a year or a month is its beginning.
        column: that has it.
        place: where, for messages.

    Raises:
        UserError: it is missing, or has another form.
    """
    if value is None:
        raise UserError(f"{place}: the column '{column}' is empty; write the time of the row there.")
    text = value.isoformat() if isinstance(value, datetime.date) else str(value).strip()
    if match := re.fullmatch(r"(\d{4})(?:-(\d\d))?", text):
        text = f"{match[1]}-{match[2] or '01'}-01"
    try:
        time = datetime.datetime.fromisoformat(text)
    except ValueError:
        raise UserError(
            f"{place}: '{text}' in the column '{column}' is no time in ISO 8601; write it like 2016-07-01 12:00."
        ) from None
    return time if time.tzinfo is None else time.astimezone(datetime.UTC).replace(tzinfo=None)


def _check_order(before: Timestamp, after: Timestamp) -> None:
    if after.time == before.time:
        raise UserError(
            f"{after.place}: {after.text} comes twice; keep one row for each time (where clocks are set back, write the offset "
            "from UTC, as in 2016-10-30T02:00+01:00)."
        )
    if after.time < before.time:
        raise UserError(f"{after.place}: {after.text} comes after {before.text}; sort the rows by time, the oldest first.")


class Axis:
    """The timestamps of a split as numbers: months, if all are the same day of a month or its last one, else seconds."""

    def __init__(self) -> None:
        self._seconds, self._months = array.array("d"), array.array("d")
        self._days: set[tuple[int, datetime.time]] = set()  # of at most two different ones
        self._ends_months = True

    def add(self, time: datetime.datetime) -> None:
        """Append a timestamp."""
        self._seconds.append((time - EPOCH).total_seconds())
        self._months.append(12 * time.year + time.month)
        if len(self._days) < 2:
            self._days.add((time.day, time.time()))
        ends_month = (time + datetime.timedelta(days=1)).day == 1 and time.time() == datetime.time()
        self._ends_months = self._ends_months and ends_month

    @property
    def _is_monthly(self) -> bool:
        return len(self._days) == 1 or self._ends_months

    @property
    def positions(self) -> np.ndarray:
        """The timestamps (rows,)."""
        return np.array(self._months if self._is_monthly else self._seconds)

    def describe(self, step: float) -> str:
        """A difference of positions in words."""
        if self._is_monthly:
            return "1 month" if step == 1 else f"{step:g} months"
        return str(datetime.timedelta(seconds=step)).removesuffix(", 0:00:00")


def _check_regular(axis: Axis, tables: Sequence[Table], column: str) -> None:
    """Check that all steps are as long as most are."""
    steps = np.diff(axis.positions)
    if len(steps) < 2:
        return
    lengths, counts = np.unique(steps, return_counts=True)
    usual = lengths[counts.argmax()]
    different = np.flatnonzero(steps != usual)
    if not len(different):
        return
    row = int(different[0])
    before, after = itertools.islice(_read(tables, column), row, row + 2)
    what = f"{after.place}: {after.text} comes after {before.text}, but most rows are {axis.describe(usual)} apart"
    missing = steps[row] / usual - 1
    if missing >= 1 and missing.is_integer():
        gap = f"missing rows: {int(missing):,}, gaps in all: {len(different):,}"
        raise UserError(f"{what} ({gap}); add the missing rows, with an empty value.")
    raise UserError(f"{what} ({len(different):,} rows are irregular); resample the series to regular times.")
