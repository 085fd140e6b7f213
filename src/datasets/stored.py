"""A feature of examples on disk, read by row number where it is needed."""

import contextlib
import functools
import hashlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import filelock
import numpy as np
import tensorflow as tf

from src import terminal
from src.datasets.array_records import Records
from src.datasets.lazy import LazyArray, chunks
from src.errors import UserError

CHUNK = 256  # rows that are read at once where all are read in order
CHUNK_BYTES = 2**21  # of these rows in the files; fewer rows are read where they are larger, as long texts are
KEPT = "computed"  # folder beside the files of a data set


class StoredArray(LazyArray):
    """A feature of examples on disk, whose rows are read and decoded when they are indexed.

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
        super().__init__(shape, dtype)
        self.records, self.decode, self.version = records, decode, version

    def take(self, rows: np.ndarray) -> "StoredArray":
        records = self.records.take(rows)
        return StoredArray(records, self.decode, (len(records), *self.shape[1:]), self.dtype, self.version)

    @functools.cached_property
    def chunk(self) -> int:
        return max(1, min(CHUNK, int(CHUNK_BYTES / self.records.mean_size)))

    def gather(self, rows: tf.Tensor) -> tf.Tensor:
        """The rows with some numbers (n,): (n, …). Records are decoded in TensorFlow's threads."""
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
