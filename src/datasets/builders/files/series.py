"""`series`: one time series or several in a table, one row for each time step."""

import functools
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from src.config import schema
from src.datasets.builders.files import timestamps
from src.datasets.builders.files.base import FilesBuilder
from src.datasets.builders.files.steps import Steps, read
from src.datasets.builders.files.tables import Table


class Series(FilesBuilder):
    """Columns of numbers, and perhaps one of times, in UTC if they have offsets. An empty value is NaN: it is missing.

    Where columns say which series a row belongs to, the examples are those of one series after the other.
    """

    DESCRIPTION = "A time series of the user's own"

    @property
    def draw(self) -> None:
        return None

    @property
    def series_id(self) -> tuple[str, ...]:
        """The columns that `dataset.series_id` names."""
        return schema.as_tuple(self.settings.series_id)

    def describe_features(self) -> tfds.features.FeaturesDict:
        texts = [*self.series_id, *([self.settings.time] if self.settings.time else [])]
        numbers = {column: tfds.features.Scalar(np.float64) for column in self._columns}
        return tfds.features.FeaturesDict({column: tfds.features.Text() for column in texts} | numbers)

    @property
    def _columns(self) -> list[str]:
        """The columns of numbers."""
        return list(dict.fromkeys(self.inputs + self.targets))

    @functools.cached_property
    def steps(self) -> dict[str, list[Steps]]:
        """{split: the steps of each series}.

        Raises:
            UserError: a table lacks a column, a value is none, or the times of a series are not in order or not regular.
        """
        steps: dict[str, list[Steps]] = {}
        previous: dict[tuple[str, ...], Steps] = {}  # of each series, in the split before
        time = self.settings.time
        for split in sorted(self.files, key=("train", "validation", "test").index):
            tables = [Table(file, self.settings.encoding) for file in self.files[split]]
            for table in tables:
                table.check_columns(self.inputs, "dataset.inputs")
                table.check_columns(self.targets, "dataset.targets")
                table.check_columns([time] if time else [], "dataset.time")
                table.check_columns(self.series_id, "dataset.series_id")
            steps[split] = read(tables, self._columns, time, self.series_id)
            if time:
                steps[split] = [self._regular(each, time, previous.get(each.series)) for each in steps[split]]
                previous |= {each.series: each for each in steps[split]}
        return steps

    def _regular(self, steps: Steps, time: str, previous: Steps | None) -> Steps:
        """The steps of a series at regular times: as they are, or resampled on request.

        Args:
            steps: of a split.
            time: the column of times.
            previous: the steps of the split before; None: there are none.

        Raises:
            UserError: they are not in order of time, or not regular.
        """
        frequency = self.settings.resample
        timestamps.check_order(steps, time, allow_equal=frequency is not None)
        if frequency:
            steps = steps.resampled(frequency)
        else:
            timestamps.check_regular(steps, time)
        if previous:
            timestamps.check_follows(steps, previous, time)
        return steps

    def examples(self, split: str) -> Iterator[dict[str, Any]]:
        for steps in self.steps[split]:
            series = dict(zip(self.series_id, steps.series))
            for step, values in enumerate(steps.values.tolist()):
                time = {self.settings.time: steps.times[step].item().isoformat()} if self.settings.time else {}
                yield series | time | dict(zip(self._columns, values))
