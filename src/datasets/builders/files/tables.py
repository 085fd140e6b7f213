"""Rows of tables in files: CSV, TSV, JSON lines and Parquet, with the line of each row for messages."""

import csv
import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet

from src.datasets.builders.files.encodings import encoding_error, python_encoding
from src.errors import UserError

DELIMITERS = {".csv": ",", ".tsv": "\t"}
Row = tuple[int, list[Any]]  # the number of its line or row, counted from 1, and the values of some columns; None: missing


class Table:
    """A table in a file, whose rows are read one after the other.

    Args:
        path: of the file, whose extension says its format.
        encoding: of its texts; of Parquet it is always UTF-8.

    Attributes:
        columns: the names of its columns.

    Raises:
        UserError: the file has no header, or cannot be read.
    """

    def __init__(self, path: Path, encoding: str):
        self.path, self.encoding = path, encoding
        self.format = path.suffix.lower()
        self.columns = self._read_columns()

    def at(self, number: int) -> str:
        """Where a row is, for messages: "reviews.csv, line 7"."""
        return f"{self.path}, {'row' if self.format == '.parquet' else 'line'} {number}"

    def check_columns(self, columns: Iterable[str], setting: str) -> None:
        """Check that there are these columns, which a setting names.

        Raises:
            UserError: there is no such column.
        """
        for column in columns:
            if column not in self.columns:
                hint = ""
                if self.format == ".csv" and len(self.columns) == 1 and ";" in self.columns[0]:
                    hint = " (it seems to be separated by semicolons; save it with commas)"
                raise UserError(
                    f"{self.path} has no column '{column}'{hint}; type {setting}=<one of: {', '.join(self.columns)}>."
                )

    def rows(self, columns: Sequence[str]) -> Iterator[Row]:
        """The rows, with the values of these columns: texts of CSV and TSV, otherwise what the file holds.

        Raises:
            UserError: a row cannot be read.
        """
        if self.format == ".parquet":
            yield from self._parquet_rows(columns)
        elif self.format in DELIMITERS:
            yield from self._delimited_rows(columns)
        else:
            for number, row in self._json_rows():
                yield number, [row.get(column) for column in columns]

    def _read_columns(self) -> list[str]:
        if self.format == ".parquet":
            with self._parquet() as file:
                return list(file.schema_arrow.names)
        if self.format in DELIMITERS:
            header = next(self._records(), (0, []))[1]
            if repeated := next((name for name in header if header.count(name) > 1), None):
                raise UserError(f"{self.path} has two columns '{repeated}'; rename one of them.")
            return header
        names: dict[str, None] = {}  # in the order in which they appear
        for _, row in self._json_rows():
            names |= dict.fromkeys(row)
        return list(names)

    # --- CSV, TSV -----------------------------------------------------------------------------------------------------

    def _delimited_rows(self, columns: Sequence[str]) -> Iterator[Row]:
        records = self._records()
        next(records, None)
        places = [self.columns.index(column) for column in columns]
        for number, record in records:
            if len(record) != len(self.columns):
                raise UserError(
                    f"{self.at(number)}: this row and the header differ in length ({len(record)} and {len(self.columns)}); put "
                    "a value that holds the separator or a line break in double quotes."
                )
            yield number, [record[place] if record[place].strip() else None for place in places]

    def _records(self) -> Iterator[tuple[int, list[str]]]:
        """The records with the lines that they start in; empty lines are none."""
        csv.field_size_limit(sys.maxsize)  # of texts: the default is 128 KiB
        with open(self.path, encoding=python_encoding(self.encoding), newline="") as file:
            reader = csv.reader(file, delimiter=DELIMITERS[self.format], strict=True)
            line = 1
            try:
                for record in reader:
                    if record:
                        yield line, record
                    line = reader.line_num + 1
            except csv.Error as error:
                raise UserError(f"{self.at(line)}: this row cannot be read ({error}); correct its quotes.") from None
            except UnicodeError:
                raise encoding_error(self.path, self.encoding) from None

    # --- JSON lines ---------------------------------------------------------------------------------------------------

    def _json_rows(self) -> Iterator[tuple[int, dict[str, Any]]]:
        with open(self.path, encoding=python_encoding(self.encoding)) as file:
            try:
                for number, line in enumerate(file, 1):
                    if line.strip():
                        yield number, self._parse(line, number)
            except UnicodeError:
                raise encoding_error(self.path, self.encoding) from None

    def _parse(self, line: str, number: int) -> dict[str, Any]:
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise UserError(
                f"{self.at(number)}: this is no JSON ({error.msg} at position {error.pos}); write one object in each line."
            ) from None
        if not isinstance(row, dict):
            raise UserError(f"""{self.at(number)}: this is no object; write one in each line, like {{"text": "…"}}.""")
        return row

    # --- Parquet ------------------------------------------------------------------------------------------------------

    def _parquet(self) -> pyarrow.parquet.ParquetFile:
        try:
            return pyarrow.parquet.ParquetFile(self.path)
        except (pyarrow.ArrowException, OSError) as error:
            raise UserError(f"{self.path} is no Parquet file ({str(error).splitlines()[0][:80]}).") from None

    def _parquet_rows(self, columns: Sequence[str]) -> Iterator[Row]:
        number = 0
        with self._parquet() as file:
            try:
                for batch in file.iter_batches(columns=list(dict.fromkeys(columns))):
                    for values in zip(*(batch.column(column).to_pylist() for column in columns)):
                        number += 1
                        yield number, list(values)
            except (pyarrow.ArrowException, OSError) as error:
                raise UserError(f"{self.path} cannot be read after row {number} ({str(error)[:80]}).") from None
