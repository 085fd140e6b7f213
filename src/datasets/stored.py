"""A feature of examples on disk, read by row number where it is needed."""

import contextlib
import functools
import hashlib
import itertools
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import filelock
import numpy as np
import tensorflow as tf

from src import terminal
from src.datasets.array_records import Records
from src.errors import UserError

CHUNK = 256  # rows that are read at once where all are read in order
CHUNK_BYTES = 2**21  # of these rows in the files; fewer rows are read where they are larger, as long texts are
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

    def take(self, rows: np.ndarray) -> "StoredArray":
        """Some rows, still on disk."""
        records = self.records.take(rows)
        return StoredArray(records, self.decode, (len(records), *self.shape[1:]), self.dtype, self.version)

    def __getitem__(self, index: Any) -> Any:
        rows = np.arange(len(self))[index]
        values = self._read(np.atleast_1d(rows))
        return values if np.ndim(rows) else values[0]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        values = np.empty(self.shape, self.dtype if dtype is None else dtype)
        for start, chunk in zip(range(0, len(self), self.chunk), chunks(self)):
            values[start : start + self.chunk] = chunk
        return values

    @functools.cached_property
    def chunk(self) -> int:
        """Number of rows that are read at once where all are read in order."""
        return max(1, min(CHUNK, int(CHUNK_BYTES / self.records.mean_size)))

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
        path = self._kept(f"{name}.npy")
        if path.exists():
            return np.load(path)
        result = compute()
        if _is_writable(path.parent):
            with _complete(path) as file:
                np.save(file, result)
        return result

    def convert(
        self, name: str, convert: Callable[[np.ndarray], np.ndarray], dtype: Any, end: np.ndarray | None = None
    ) -> np.ndarray:
        """What the rows are converted to, in a file beside the data that is mapped to memory; made on first use.

        Args:
            name: of the result; a part of a file name.
            convert: from some rows to an array whose values follow those of the rows before.
            dtype: NumPy's type of these values.
            end: values that stand after all others.

        Returns:
            (values,), of which only what is indexed is read.

        Raises:
            UserError: the folder is read-only.
        """
        path = self._kept(f"{name}.bin")
        if not _is_writable(path.parent) and not path.exists():
            raise UserError(
                f"{path.parent.parent} is read-only, so what is computed of data on disk cannot be kept there; type "
                "dataset.storage=memory, or another dataset.data_dir."
            )
        if not path.exists():
            path.parent.mkdir(exist_ok=True)
            with filelock.FileLock(path.with_suffix(".lock")):  # parallel first runs make it once
                if not path.exists():
                    with _complete(path) as file:
                        for chunk in terminal.track(chunks(self), -(-len(self) // self.chunk)):
                            file.write(np.ascontiguousarray(convert(chunk), dtype).data)
                        file.write(np.ascontiguousarray([] if end is None else end, dtype).data)
        return np.memmap(path, dtype, mode="r")

    def _kept(self, name: str) -> Path:
        """The path of what is computed of these rows, which says which they are."""
        key = hashlib.blake2b(f"{self.version} {self.shape} {self.dtype}".encode(), digest_size=16)
        key.update(np.ascontiguousarray(self.records.rows).data)
        for path in map(Path, self.records.paths):
            key.update(f"{path.name} {path.stat().st_size} {path.stat().st_mtime_ns}".encode())
        stem, suffix = os.path.splitext(name)
        return Path(self.records.paths[0]).parent / KEPT / f"{stem}-{key.hexdigest()}{suffix}"


def _is_writable(folder: Path) -> bool:
    """Whether files can be made in a folder, which may be made, too."""
    return os.access(folder if folder.exists() else folder.parent, os.W_OK)


@contextlib.contextmanager
def _complete(path: Path) -> Iterator[IO[bytes]]:
    """A file to be written, which gets its name when it is complete."""
    path.parent.mkdir(exist_ok=True)
    incomplete = path.with_name(f"{path.name}.{os.getpid()}.incomplete")  # parallel runs may compute the same
    try:
        with open(incomplete, "wb") as file:  # not a temporary file, which nobody else could read
            yield file
        os.replace(incomplete, path)
    finally:
        incomplete.unlink(missing_ok=True)


def is_on_disk(array: Any) -> bool:
    """Whether an array is on disk, and not in memory."""
    return isinstance(array, StoredArray)


def rows(array: np.ndarray | StoredArray) -> Iterator[Any]:
    """The rows of an array in order, one by one."""
    return itertools.chain.from_iterable(chunks(array))


def chunks(array: np.ndarray | StoredArray) -> Iterator[np.ndarray]:
    """All rows of an array in order, some at a time if they are on disk."""
    if isinstance(array, np.ndarray):
        yield array
        return
    count, size = len(array), array.chunk
    starts = tf.data.Dataset.range(0, count, size)
    rows = starts.map(lambda start: tf.range(start, tf.minimum(start + size, count)))
    yield from rows.map(array.gather, num_parallel_calls=os.cpu_count(), deterministic=True).as_numpy_iterator()
