"""`series`: a time series in a table, one row for each time step."""

import functools
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from src.datasets.builders.files import timestamps
from src.datasets.builders.files.base import FilesBuilder
from src.datasets.builders.files.tables import Table
from src.errors import UserError


class Series(FilesBuilder):
    """Columns of numbers, and perhaps one of timestamps, in UTC if they have offsets. An empty value is NaN: it is missing."""

    DESCRIPTION = "A time series of the user's own"

    @property
    def draw(self) -> None:
        return None

    def describe_features(self) -> tfds.features.FeaturesDict:
        features = {column: tfds.features.Scalar(np.float64) for column in self._columns}
        time = {self.settings.time: tfds.features.Text()} if self.settings.time else {}
        return tfds.features.FeaturesDict(time | features)

    @property
    def _columns(self) -> list[str]:
        """The columns of numbers."""
        return list(dict.fromkeys(self.inputs + self.targets))

    @functools.cached_property
    def tables(self) -> dict[str, list[Table]]:
        """{split: tables}, in order of time.

        Raises:
            UserError: a table lacks a column, or its timestamps are not those of a regular series.
        """
        settings = self.settings
        tables: dict[str, list[Table]] = {}
        for split in sorted(self.files, key=("train", "validation", "test").index):
            tables[split] = [Table(file, settings.encoding) for file in self.files[split]]
            for table in tables[split]:
                table.check_columns(self.inputs, "dataset.inputs")
                table.check_columns(self.targets, "dataset.targets")
                table.check_columns([settings.time] if settings.time else [], "dataset.time")
        if self.settings.time:
            timestamps.check(tables, self.settings.time)
        return tables

    def examples(self, split: str) -> Iterator[dict[str, Any]]:
        columns, time = self._columns, self.settings.time
        for table in self.tables[split]:
            for number, values in table.rows([*columns, *([time] if time else [])]):
                place = table.at(number)
                example: dict[str, Any] = {column: _number(value, column, place) for column, value in zip(columns, values)}
                if time:
                    example[time] = timestamps.parse(values[-1], time, place).isoformat()
                yield example


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
