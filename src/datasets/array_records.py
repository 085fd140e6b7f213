"""Records of a prepared data set on disk, read by row number from ArrayRecord files.

TFDS prepares either TFRecord files, which can only be read from their beginning, or ArrayRecord files. TFRecord files are
converted once, and stay for runs that read the data into memory.
"""

import functools
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import filelock
import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

from src import terminal
from src.errors import UserError

if TYPE_CHECKING:
    from array_record.python.array_record_data_source import ArrayRecordDataSource

FORMAT, TFRECORD = "array_record", "tfrecord"  # their names in TFDS, and the endings of files
WRITER_OPTIONS = "group_size:1"  # compresses each record by itself, so that it can be read without its neighbors


class Records:
    """Serialized examples of a data set, in an order of their own.

    Args:
        paths: of the ArrayRecord files.
        rows: numbers of the records, counted over all files, in the order in which they are wanted.
    """

    def __init__(self, paths: Sequence[str], rows: np.ndarray):
        self.paths, self.rows = tuple(paths), rows

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def mean_size(self) -> float:
        """Mean size of the records of the files in bytes, compressed."""
        return sum(map(os.path.getsize, self.paths)) / len(_open(self.paths))

    def take(self, indices: np.ndarray) -> "Records":
        """The records at some positions of the order."""
        return Records(self.paths, self.rows[indices])

    def read(self, indices: np.ndarray) -> np.ndarray:
        """The records at some positions of the order: bytes, (positions,)."""
        return np.array(_open(self.paths).__getitems__(self.rows[indices].tolist()), dtype=object)


@functools.lru_cache(maxsize=4)  # an open source has a reader for each file
def _open(paths: tuple[str, ...]) -> "ArrayRecordDataSource":
    try:
        from array_record.python.array_record_data_source import ArrayRecordDataSource
    except ImportError:  # there are no wheels of it for Windows
        raise UserError(
            "Reading data from disk needs the package array_record, which cannot be imported here; type dataset.storage=memory."
        ) from None
    return ArrayRecordDataSource(list(paths))


def are_random_access(builder: tfds.core.DatasetBuilder) -> bool:
    """Whether a builder's data is prepared as ArrayRecord files."""
    return builder.info.file_format is not None and builder.info.file_format.value == FORMAT


def files(builder: tfds.core.DatasetBuilder, base: str) -> list[str]:
    """The ArrayRecord files of a split of a builder, in order; converted from its TFRecord files if there are none yet."""
    info = builder.info.splits[base]
    sources = [os.fspath(path) for path in info.filepaths]
    if are_random_access(builder):
        return sources
    targets = [path.replace(f".{TFRECORD}-", f".{FORMAT}-") for path in sources]
    if not all(map(os.path.exists, targets)):
        folder = Path(os.fspath(builder.data_path))
        if not os.access(folder, os.W_OK):
            raise UserError(
                f"{folder} is read-only, so its files cannot be converted to be read from disk; type dataset.storage=memory, "
                "or another dataset.data_dir."
            )
        with (
            filelock.FileLock(folder / f".{FORMAT}.lock"),  # parallel first runs convert it once
            terminal.phase(f"Converting {base} of {builder.info.full_name}, to be read from disk", info.num_examples),
        ):
            converted = 0
            for source, target in zip(sources, targets):
                if not os.path.exists(target):
                    converted = _convert(source, target, converted)
    return targets


def _convert(source: str, target: str, converted: int) -> int:
    """Convert a TFRecord file to an ArrayRecord file, which gets its name when it is complete.

    Args:
        source: path of the TFRecord file.
        target: path of the ArrayRecord file.
        converted: number of records that were converted before.

    Returns:
        The number of records that have been converted now.
    """
    from array_record.python.array_record_module import ArrayRecordWriter

    incomplete = f"{target}.incomplete"
    writer = ArrayRecordWriter(incomplete, WRITER_OPTIONS)
    for record in tf.data.TFRecordDataset(source).as_numpy_iterator():
        writer.write(record)
        converted += 1
        terminal.update(converted)
    writer.close()
    os.replace(incomplete, target)
    return converted
