"""Arrays whose rows are read, or computed, when they are needed."""

import functools
import itertools
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import tensorflow as tf


class LazyArray(ABC):
    """What a NumPy array is to examples in memory: rows of equal shape, which are read when they are indexed.

    It has the length, shape and type of that array. Indexing returns NumPy arrays; `np.asarray` reads all rows.

    Args:
        shape: (rows, …).
        dtype: NumPy's type of the values.
    """

    def __init__(self, shape: tuple[int, ...], dtype: Any):
        self.shape, self.dtype = shape, np.dtype(dtype)

    @abstractmethod
    def gather(self, rows: tf.Tensor) -> tf.Tensor:
        """The rows with some numbers (n,), as a TensorFlow operation: (n, …)."""

    @abstractmethod
    def take(self, rows: np.ndarray) -> "LazyArray":
        """Some rows, still to be read."""

    @property
    @abstractmethod
    def chunk(self) -> int:
        """Number of rows that are read at once where all are read in order."""

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

    def __getitem__(self, index: Any) -> Any:
        rows = np.arange(len(self))[index]
        values = self._read(np.atleast_1d(rows))
        return values if np.ndim(rows) else values[0]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        values = np.empty(self.shape, self.dtype if dtype is None else dtype)
        for start, chunk in zip(range(0, len(self), self.chunk), chunks(self)):
            values[start : start + self.chunk] = chunk
        return values

    def _read(self, rows: np.ndarray) -> np.ndarray:
        if not len(rows):
            return np.empty((0, *self.shape[1:]), self.dtype)
        return self._traced(tf.constant(rows, tf.int64)).numpy()

    @functools.cached_property
    def _traced(self) -> Callable[[tf.Tensor], tf.Tensor]:
        return tf.function(self.gather, input_signature=[tf.TensorSpec([None], tf.int64)], autograph=False)


class EncodedArray(LazyArray):
    """What a function makes of the rows of a lazy array, when they are read.

    Args:
        encode: NumPy function from some rows of the array, and of the columns, to as many rows of the result.
        array: whose rows are encoded.
        columns: arrays in memory of the same length.
    """

    def __init__(self, encode: Callable[..., np.ndarray], array: LazyArray, *columns: np.ndarray):
        arrays: list[np.ndarray | LazyArray] = [array, *columns]
        example = encode(*(np.zeros((1, *each.shape[1:]), each.dtype) for each in arrays))
        super().__init__((len(array), *example.shape[1:]), example.dtype)
        self.encode, self.array, self.columns = encode, array, columns

    def gather(self, rows: tf.Tensor) -> tf.Tensor:
        def encode(values: np.ndarray, indices: np.ndarray) -> np.ndarray:
            return self.encode(values, *(column[indices] for column in self.columns))

        encoded = tf.numpy_function(encode, [self.array.gather(rows), rows], self.dtype)
        return tf.ensure_shape(encoded, (*rows.shape, *self.shape[1:]))

    def take(self, rows: np.ndarray) -> "EncodedArray":
        return EncodedArray(self.encode, self.array.take(rows), *(column[rows] for column in self.columns))

    @property
    def chunk(self) -> int:
        return self.array.chunk


def encode(function: Callable[..., np.ndarray], array: np.ndarray | LazyArray, *columns: np.ndarray) -> Any:
    """What a function makes of the rows of an array: at once if it is in memory, otherwise when they are read.

    Args:
        function: NumPy function from some rows of the array, and of the columns, to as many rows of the result.
        array: whose rows are encoded.
        columns: arrays in memory of the same length.
    """
    if isinstance(array, LazyArray):
        return EncodedArray(function, array, *columns)
    return function(array, *columns)


def is_lazy(array: Any) -> bool:
    """Whether an array is not in memory."""
    return isinstance(array, LazyArray)


def rows(array: np.ndarray | LazyArray) -> Iterator[Any]:
    """The rows of an array in order, one by one."""
    return itertools.chain.from_iterable(chunks(array))


def chunks(array: np.ndarray | LazyArray) -> Iterator[np.ndarray]:
    """All rows of an array in order, some at a time if they are not in memory."""
    if isinstance(array, np.ndarray):
        yield array
        return
    count, size = len(array), array.chunk
    starts = tf.data.Dataset.range(0, count, size)
    rows = starts.map(lambda start: tf.range(start, tf.minimum(start + size, count)))
    yield from rows.map(array.gather, num_parallel_calls=os.cpu_count(), deterministic=True).as_numpy_iterator()
