"""Checks of the timestamps of a series: their form, order and regularity."""

import datetime
import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from src.datasets.builders.files.tables import Table
from src.errors import UserError

TOLERANCE = 1e-6  # of a step: numbers as timestamps are rounded


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
    """Check that the rows are in order of time, without duplicates and gaps.

    Between two splits there may be a gap.

    Args:
        tables: {split: tables}, in order of time.
        column: that holds the timestamps.

    Raises:
        UserError: they are not, or one cannot be read.
    """
    last: Timestamp | None = None
    for split, of_split in tables.items():
        times = list(_read(of_split, column))
        if not times:
            continue
        if last is not None:
            _check_order(last, times[0], split)
        last = times[-1]
        _check_regular(times)


def _read(tables: Sequence[Table], column: str) -> Iterator[Timestamp]:
    kind: type | None = None
    for table in tables:
        for number, (value,) in table.rows([column]):
            time = _parse(value, column, table.at(number))
            if kind is not None and not isinstance(time.value, kind):
                raise UserError(f"{time.place}: '{time.text}' is a number, or a date, where those before it are not.")
            kind = type(time.value)
            yield time


def _parse(value: Any, column: str, place: str) -> Timestamp:
    if value is None or value != value:  # NaN differs from itself
        raise UserError(f"{place}: the column '{column}' is empty; write the time of the row there.")
    if isinstance(value, datetime.datetime):
        return Timestamp(str(value), place, _utc(value))
    if isinstance(value, datetime.date):
        return Timestamp(str(value), place, datetime.datetime(value.year, value.month, value.day))
    if isinstance(value, int | float) and not isinstance(value, bool):
        return Timestamp(str(value), place, float(value))
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


def _check_order(before: Timestamp, after: Timestamp, split: str = "") -> None:
    if after.value == before.value:
        hint = " (where clocks are set back, write the offset from UTC, as in 2016-10-30T02:00+01:00)" if split == "" else ""
        raise UserError(f"{after.place}: {after.text} comes twice; keep one row for each time{hint}.")
    if after.value < before.value:  # type: ignore[operator]  # both are dates, or both are numbers
        raise UserError(f"{after.place}: {after.text} comes after {before.text}; sort the rows by time, the oldest first.")


def _check_regular(times: Sequence[Timestamp]) -> None:
    """Check the order of the timestamps of a split, and that all steps are as long as most are."""
    for before, after in itertools.pairwise(times):
        _check_order(before, after)
    if len(times) < 3:
        return
    positions, unit = _positions([time.value for time in times])
    steps = np.diff(positions)
    lengths, counts = np.unique(steps, return_counts=True)
    usual = lengths[counts.argmax()]
    different = np.flatnonzero(np.abs(steps - usual) > TOLERANCE * usual)
    if not len(different):
        return
    row = different[0] + 1
    missing = steps[row - 1] / usual - 1
    before, after = times[row - 1], times[row]
    what = f"{after.place}: {after.text} comes after {before.text}, but most rows are {_length(usual, unit)} apart"
    if abs(missing - round(missing)) < TOLERANCE and missing >= 1:
        gaps = f"{round(missing):,} are missing (the first of {len(different):,} gaps)"
        raise UserError(f"{what}, so {gaps}; add these rows, with an empty value.")
    raise UserError(f"{what} ({len(different):,} rows are irregular); resample the series to regular times.")


def _positions(values: Sequence[Any]) -> tuple[np.ndarray, str]:
    """The timestamps as numbers, and the unit of these: months if all are of one day of the month, or of its last day."""
    if not isinstance(values[0], datetime.datetime):
        return np.array(values, float), ""
    if len({(time.day, time.time()) for time in values}) == 1 or all(_ends_month(time) for time in values):
        return np.array([12 * time.year + time.month for time in values], float), "months"
    return np.array(values, "datetime64[us]").astype(np.int64) / 1e6, "seconds"


def _ends_month(time: datetime.datetime) -> bool:
    return (time + datetime.timedelta(days=1)).day == 1 and time.time() == datetime.time()


def _length(step: float, unit: str) -> str:
    match unit:
        case "months":
            return f"{step:g} months"
        case "seconds":
            return str(datetime.timedelta(seconds=step)).removesuffix(", 0:00:00")
        case _:
            return f"{step:g}"
