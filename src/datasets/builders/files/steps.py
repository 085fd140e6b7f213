"""The steps of series, read from the rows of tables."""

import array
import datetime
import math
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from pandas.tseries.frequencies import to_offset

from src.datasets.builders.files.tables import Table
from src.errors import UserError

EPOCH = datetime.datetime(1970, 1, 1)
MAX_INTERVALS = 100  # for each row that is resampled; more would be missing values almost without exception


class Row(NamedTuple):
    """A row of a table.

    Attributes:
        table: that has it.
        number: of its line or row.
    """

    table: Table
    number: int

    def __str__(self) -> str:
        return self.table.at(self.number)

    def text(self, column: str) -> str:
        """The value of a column as the table has it."""
        return next(str(value).strip() for number, (value,) in self.table.rows([column]) if number == self.number)


class Steps(NamedTuple):
    """The steps of one series in one split.

    Attributes:
        series: which series it is: the values of the columns that `dataset.series_id` names; empty: there is only one.
        times: (steps,), datetime64[us], in UTC if they have offsets; empty: unknown.
        values: (steps, columns), NaN where one is missing.
        origins: the table and the line of each row, (rows, 2); a row is a step, unless it was resampled.
        tables: in which they are.
    """

    series: tuple[str, ...]
    times: np.ndarray
    values: np.ndarray
    origins: np.ndarray
    tables: Sequence[Table]

    @property
    def name(self) -> str:
        """Which series it is, for messages: " of the series 'Oslo, milk'"; empty if there is only one."""
        return f" of the series '{', '.join(self.series)}'" if self.series else ""

    def row(self, index: int) -> Row:
        """Where a row is."""
        table, number = self.origins[index]
        return Row(self.tables[table], int(number))

    def resampled(self, frequency: str) -> "Steps":
        """The means over intervals of time, NaN where an interval has no value.

        Args:
            frequency: of pandas. Hours and days are counted from 1970, so that several of them are the same intervals for all
                series; weeks and months are, anyway.

        Raises:
            UserError: nearly all intervals would be empty.
        """
        offset = to_offset(frequency)
        start = pd.Timestamp(EPOCH) + offset
        intervals = (self.times[-1] - self.times[0]) / (start + offset - start)
        if intervals > MAX_INTERVALS * len(self.times):
            raise UserError(
                f"dataset.resample={frequency} makes {intervals:,.0f} intervals of the {len(self.times):,} rows{self.name} "
                f"between {self.times[0].item()} and {self.times[-1].item()}; type a longer interval, or correct the times."
            )
        counted = {"origin": "epoch"} if isinstance(offset, pd.offsets.Tick | pd.offsets.Day) else {}
        means = pd.DataFrame(self.values, index=pd.DatetimeIndex(self.times)).resample(offset, **counted).mean()
        times = means.index.to_numpy().astype("datetime64[us]")
        return self._replace(times=times, values=means.to_numpy())


def read(tables: Sequence[Table], columns: Sequence[str], time: str | None, series_id: Sequence[str]) -> list[Steps]:
    """The steps of each series in the rows of tables, in their order; the series are in the order in which they first come.

    Args:
        tables: of one split.
        columns: of numbers.
        time: the column of times; None: there is none.
        series_id: the columns that say which series a row belongs to.

    Raises:
        UserError: a value is no number, no time, or missing where it has to be there.
    """
    values, times, origins, series = array.array("d"), array.array("q"), array.array("q"), array.array("q")
    index_of: dict[tuple[str, ...], int] = {}
    for index, table in enumerate(tables):
        for number, row in table.rows([*series_id, *columns, *([time] if time else [])]):
            place = table.at(number)
            name = tuple(_identifier(value, column, place) for value, column in zip(row, series_id))
            series.append(index_of.setdefault(name, len(index_of)))
            values.extend(_number(value, column, place) for value, column in zip(row[len(series_id) :], columns))
            if time:
                times.append((_time(row[-1], time, place) - EPOCH) // datetime.timedelta(microseconds=1))
            origins.extend((index, number))
    by_series = np.argsort(series, kind="stable")
    ends = np.cumsum(np.bincount(series, minlength=len(index_of)))
    all_values, all_origins = np.array(values).reshape(-1, len(columns)), np.array(origins).reshape(-1, 2)
    all_times = np.array(times, np.int64).view("datetime64[us]")
    return [
        Steps(name, all_times[rows] if time else all_times, all_values[rows], all_origins[rows], tables)
        for name, rows in zip(index_of, np.split(by_series, ends[:-1]))
    ]


def _identifier(value: Any, column: str, place: str) -> str:
    """What tells a series apart from others.

    Raises:
        UserError: it is missing.
    """
    text = "" if value is None else str(value).strip()
    if not text:
        raise UserError(f"{place}: the column '{column}' is empty; write there which series the row belongs to.")
    return text


def _number(value: Any, column: str, place: str) -> float:
    """A value of the series; NaN if it is missing.

    Raises:
        UserError: it is no finite number.
    """
    if value is None:
        return math.nan
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise UserError(
            f"{place}: the column '{column}' holds '{value}', which is no number; correct it, or leave a missing value empty."
        ) from None
    if math.isinf(number):
        raise UserError(f"{place}: the column '{column}' is infinite; correct it, or leave a missing value empty.")
    return number


def _time(value: Any, column: str, place: str) -> datetime.datetime:
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
