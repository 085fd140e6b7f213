"""A feature of examples on disk, read by row number where it is needed."""

import functools
import hashlib
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from src.datasets.array_records import Records

CHUNK = 256  # rows that are read at once where all are read in order
KEPT = "computed"  # folder beside the files of a data set


class StoredArray:
    """What a NumPy array is to examples in memory: rows of equal shape, read from disk and decoded when they are indexed.

    It has the length, shape and type of that array. Indexing returns NumPy arrays; `np.asarray` reads all rows.

    Args:
        records: one of each row.
        decode: TensorFlow function from a record to the value of the feature, of shape `shape[1:]`.
        shape: (rows, …).
        dtype: NumPy's type of the values.
        version: says how values are decoded; different where the values of the same records differ.
    """

    def __init__(
        self, records: Records, decode: Callable[[tf.Tensor], tf.Tensor], shape: tuple[int, ...], dtype: Any, version: str = ""
    ):
        self.records, self.decode, self.version = records, decode, version
        self.shape, self.dtype = shape, np.dtype(dtype)

    def __len__(self) -> int:
        return self.shape[0]

    @property
    def ndim(self) -> int:
        """Number of dimensions."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """Number of values in all rows."""
        return int(np.prod(self.shape, dtype=np.int64))

    def take(self, limit: int) -> "StoredArray":
        """The first `limit` rows, still on disk."""
        records = self.records.take(limit)
        return StoredArray(records, self.decode, (len(records), *self.shape[1:]), self.dtype, self.version)

    def __getitem__(self, index: Any) -> np.ndarray:
        rows = np.arange(len(self))[index]
        values = self._read(np.atleast_1d(rows))
        return values if np.ndim(rows) else values[0]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        values = np.empty(self.shape, self.dtype if dtype is None else dtype)
        for start, chunk in zip(range(0, len(self), CHUNK), chunks(self)):
            values[start : start + CHUNK] = chunk
        return values

    def _read(self, rows: np.ndarray) -> np.ndarray:
        if not len(rows):
            return np.empty((0, *self.shape[1:]), self.dtype)
        return self._traced(tf.constant(rows, tf.int64)).numpy()

    @functools.cached_property
    def _traced(self) -> Callable[[tf.Tensor], tf.Tensor]:
        return tf.function(self.gather, input_signature=[tf.TensorSpec([None], tf.int64)], autograph=False)

    def gather(self, rows: tf.Tensor) -> tf.Tensor:
        """The rows with some numbers (n,), as a TensorFlow operation: (n, …). Records are decoded in TensorFlow's threads."""
        records = tf.ensure_shape(tf.numpy_function(self.records.read, [rows], tf.string), rows.shape)
        specification = tf.TensorSpec(self.shape[1:], self.dtype)
        return tf.map_fn(self.decode, records, fn_output_signature=specification)

    def keep(self, name: str, compute: Callable[[], np.ndarray]) -> np.ndarray:
        """What `compute` returns for these rows, kept beside the data, since all rows are read for it.

        Args:
            name: of what is computed; a part of a file name.
            compute: returns an array that depends on nothing but the values of these rows, and the name.
        """
        key = hashlib.blake2b(f"{self.version} {self.shape} {self.dtype}".encode(), digest_size=16)
        key.update(np.ascontiguousarray(self.records.rows).data)
        for path in map(Path, self.records.paths):
            key.update(f"{path.name} {path.stat().st_size} {path.stat().st_mtime_ns}".encode())
        folder = Path(self.records.paths[0]).parent / KEPT
        path = folder / f"{name}-{key.hexdigest()}.npy"
        if path.exists():
            return np.load(path)
        result = compute()
        if os.access(folder if folder.exists() else folder.parent, os.W_OK):
            folder.mkdir(exist_ok=True)
            with tempfile.NamedTemporaryFile(dir=folder, delete=False) as file:  # renamed when it is complete
                np.save(file, result)
            os.replace(file.name, path)
        return result


def chunks(array: np.ndarray | StoredArray) -> Iterator[np.ndarray]:
    """All rows of an array in order, `CHUNK` at a time if they are on disk."""
    if isinstance(array, np.ndarray):
        yield array
        return
    count = len(array)
    starts = tf.data.Dataset.range(0, count, CHUNK)
    rows = starts.map(lambda start: tf.range(start, tf.minimum(start + CHUNK, count)))
    yield from rows.map(array.gather, num_parallel_calls=os.cpu_count(), deterministic=True).as_numpy_iterator()
