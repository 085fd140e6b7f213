"""`texts` and `pairs`: columns of tables."""

import functools
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from src.config.files import SPLITS, SUPPORTED
from src.datasets.builders.files.base import Draw, FilesBuilder
from src.datasets.builders.files.tables import Table
from src.errors import UserError

BOOLEANS = {"0": False, "false": False, "1": True, "true": True}  # whether a label applies
SPLIT_COLUMN = "split"  # its values, if there is such a column, are train, validation and test


class Texts(FilesBuilder):
    """A column of texts, and one of labels; or several, which say of each label whether it applies; or the texts alone."""

    DESCRIPTION = "Texts of the user's own"

    @property
    def draw(self) -> Draw:
        return "random" if self.has_several_labels or self.inputs == self.targets else "stratified"

    @property
    def has_several_labels(self) -> bool:
        """Whether an example has any number of labels, with a column for each."""
        return not isinstance(self.settings.targets, str)

    def describe_features(self) -> tfds.features.FeaturesDict:
        label = tfds.features.Scalar(np.bool_) if self.has_several_labels else tfds.features.Text()
        return tfds.features.FeaturesDict(dict.fromkeys(self.targets, label) | {self.input: tfds.features.Text()})

    @property
    def _columns(self) -> list[str]:
        """The column of inputs, and those of targets if they are others."""
        return list(dict.fromkeys([self.input, *self.targets]))

    @functools.cached_property
    def tables(self) -> dict[str, list[Table]]:
        """{split: tables}

        Raises:
            UserError: a table lacks a column.
        """
        tables = {split: [Table(file, self.settings.encoding) for file in files] for split, files in self.files.items()}
        for table in (table for of_split in tables.values() for table in of_split):
            table.check_columns(self.inputs, "dataset.inputs")
            table.check_columns(self.targets, "dataset.targets")
        return tables

    @functools.cached_property
    def _has_split_column(self) -> bool:
        """Whether a column says the split of each row."""
        tables = self.tables
        present = tables.keys() == {"train"} and all(SPLIT_COLUMN in table.columns for table in tables["train"])
        return present and SPLIT_COLUMN not in self._columns

    def split_names(self) -> Sequence[str]:
        if not self._has_split_column:
            return list(self.tables)
        tables = self.tables["train"]
        names = {_split(name, table.at(number)) for table in tables for number, (name,) in table.rows([SPLIT_COLUMN])}
        return sorted(names | {"train"})  # of which there must be some

    def examples(self, split: str) -> Iterator[dict[str, Any]]:
        numbers_only = True
        table = None
        targets = self._columns[1:]
        for table, number, (text, *values) in self._rows(split):
            example = {self.input: _text(text, self.input, table.at(number))}
            numbers_only = numbers_only and _is_number(text)
            yield example | {name: self.target(value, name, table.at(number)) for name, value in zip(targets, values)}
        if table and numbers_only:
            raise UserError(
                f"The column '{self.input}' of {table.path} holds numbers, not texts, and tables of numbers are not "
                f"supported as inputs; {SUPPORTED}."
            )

    def _rows(self, split: str) -> Iterator[tuple[Table, int, list[Any]]]:
        """The rows of a split, with the values of its columns."""
        if not self._has_split_column:
            for table in self.tables[split]:
                for number, values in table.rows(self._columns):
                    yield table, number, values
            return
        for table in self.tables["train"]:
            for number, (name, *values) in table.rows([SPLIT_COLUMN, *self._columns]):
                if _split(name, table.at(number)) == split:
                    yield table, number, values

    def target(self, value: Any, column: str, place: str) -> str | bool:
        """The target of an example: its label, or whether one of several applies.

        Args:
            value: as the table has it.
            column: that has it.
            place: where, for messages.

        Raises:
            UserError: it is missing, or no label.
        """
        return _applies(value, column, place) if self.has_several_labels else _label(value, column, place)


class Pairs(Texts):
    """Two columns of texts."""

    DESCRIPTION = "Pairs of texts of the user's own"

    @property
    def draw(self) -> Draw:
        return "random"

    def target(self, value: Any, column: str, place: str) -> str:
        """The target of an example: its second text."""
        return _text(value, column, place)


def _split(value: Any, place: str) -> str:
    name = SPLITS.get(str(value).strip().lower())
    if name is None:
        raise UserError(
            f"{place}: the column '{SPLIT_COLUMN}' holds '{value}', which is none of train, validation and test; correct it, "
            "or rename the column if it means something else."
        )
    return name


def _text(value: Any, column: str, place: str) -> str:
    if value is None or (isinstance(value, str) and not value.strip()):
        raise UserError(f"{place}: the column '{column}' is empty; write a text there, or leave the row out.")
    if not isinstance(value, str | int | float):
        raise UserError(f"{place}: the column '{column}' holds a {type(value).__name__}, not a text.")
    return str(value)


def _label(value: Any, column: str, place: str) -> str:
    if value is None or value != value or (isinstance(value, str) and not value.strip()):  # NaN differs from itself
        raise UserError(f"{place}: the column '{column}' is empty; write a label there, or leave the row out.")
    if not isinstance(value, str | int | float):
        raise UserError(
            f"{place}: the column '{column}' holds a {type(value).__name__}, not a label; classification needs one a text."
        )
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value).strip()


def _applies(value: Any, column: str, place: str) -> bool:
    text = str(value).strip().lower()
    if text not in BOOLEANS:
        raise UserError(
            f"{place}: the column '{column}' holds '{value}', but of several labels each column says whether its own applies, "
            "with 0 or 1, or false or true."
        )
    return BOOLEANS[text]


def _is_number(value: Any) -> bool:
    try:
        float(value)
    except ValueError:
        return False
    return True
