"""`texts` and `pairs`: columns of tables."""

import functools
from collections.abc import Iterator, Sequence
from typing import Any

import tensorflow_datasets as tfds

from src.config.files import SPLITS, SUPPORTED
from src.datasets.builders.files.base import Draw, FilesBuilder
from src.datasets.builders.files.tables import Table
from src.errors import UserError

SPLIT_COLUMN = "split"  # its values, if there is such a column, are train, validation and test


class Texts(FilesBuilder):
    """A column of texts, and one of labels; or the texts alone, if both settings name them."""

    DESCRIPTION = "Texts of the user's own"

    @property
    def draw(self) -> Draw:
        return "random" if self.settings.inputs == self.settings.targets else "stratified"

    def describe_features(self) -> tfds.features.FeaturesDict:
        return tfds.features.FeaturesDict({column: tfds.features.Text() for column in self._columns})

    @property
    def _columns(self) -> list[str]:
        """The column of inputs, and that of targets if it is another one."""
        return list(dict.fromkeys([self.settings.inputs, self.settings.targets]))

    @functools.cached_property
    def tables(self) -> dict[str, list[Table]]:
        """{split: tables}

        Raises:
            UserError: a table lacks a column.
        """
        tables = {split: [Table(file, self.settings.encoding) for file in files] for split, files in self.files.items()}
        for table in (table for of_split in tables.values() for table in of_split):
            table.check_columns({"dataset.inputs": self.settings.inputs, "dataset.targets": self.settings.targets})
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

    def examples(self, split: str) -> Iterator[dict[str, str]]:
        numbers_only = True
        table = None
        for table, number, (text, *target) in self._rows(split):
            example = {self.settings.inputs: _text(text, self.settings.inputs, table.at(number))}
            numbers_only = numbers_only and _is_number(text)
            if target:
                example[self.settings.targets] = self.target(target[0], table.at(number))
            yield example
        if table and numbers_only:
            raise UserError(
                f"The column '{self.settings.inputs}' of {table.path} holds numbers, not texts, and tables of numbers are not "
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

    def target(self, value: Any, place: str) -> str:
        """The target of an example: its label.

        Args:
            value: as the table has it.
            place: where, for messages.

        Raises:
            UserError: it is missing, or no label.
        """
        return _label(value, self.settings.targets, place)


class Pairs(Texts):
    """Two columns of texts."""

    DESCRIPTION = "Pairs of texts of the user's own"

    @property
    def draw(self) -> Draw:
        return "random"

    def target(self, value: Any, place: str) -> str:
        """The target of an example: its second text."""
        return _text(value, self.settings.targets, place)


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


def _is_number(value: Any) -> bool:
    try:
        float(value)
    except ValueError:
        return False
    return True
