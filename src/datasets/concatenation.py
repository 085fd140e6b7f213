"""Arrays one after the other, without a copy: the windows of several series."""

from collections.abc import Mapping
from typing import Any, cast

import numpy as np


class ConcatenatedArray:
    """What `np.concatenate` returns, except that nothing is copied: rows are looked up in the arrays when they are indexed.

    It has the length, shape and type of that array. Indexing returns NumPy arrays; `np.asarray` copies all rows.

    Args:
        parts: {name: array}, none of them empty, which differ in their number of rows alone.
    """

    def __init__(self, parts: Mapping[str, np.ndarray]):
        self.parts = parts
        self._arrays = list(parts.values())
        self._ends = np.cumsum([len(part) for part in self._arrays])
        self.shape, self.dtype = (int(self._ends[-1]), *self._arrays[0].shape[1:]), self._arrays[0].dtype

    def __len__(self) -> int:
        return self.shape[0]

    @property
    def size(self) -> int:
        """Number of values in all rows."""
        return sum(part.size for part in self._arrays)

    @property
    def nbytes(self) -> int:
        """Bytes that a copy takes."""
        return self.size * self.dtype.itemsize

    def __getitem__(self, index: int | slice | np.ndarray) -> np.ndarray:
        rows = np.arange(*index.indices(len(self))) if isinstance(index, slice) else np.asarray(index)
        of_part = np.searchsorted(self._ends, rows.ravel(), side="right")
        values = np.empty((rows.size, *self.shape[1:]), self.dtype)
        by_part = np.argsort(of_part, kind="stable")
        parts, firsts = np.unique(of_part[by_part], return_index=True)
        for part, chosen in zip(parts, np.split(by_part, firsts[1:])):
            start = self._ends[part] - len(self._arrays[part])
            values[chosen] = self._arrays[part][rows.ravel()[chosen] - start]
        return values.reshape(*rows.shape, *self.shape[1:])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.concatenate(self._arrays, dtype=dtype)

    def head(self, count: int) -> np.ndarray:
        """The first rows, which are not copied either."""
        starts = self._ends - [len(part) for part in self._arrays]
        parts = zip(self.parts.items(), starts)
        return concatenate({name: part[: count - start] for (name, part), start in parts if start < count})


def concatenate(parts: Mapping[str, np.ndarray]) -> np.ndarray:
    """Arrays one after the other: a `ConcatenatedArray`, which stands in for a NumPy array; one without a name stays as it is.

    Args:
        parts: {name: array}, which differ in their number of rows alone.
    """
    return parts[""] if list(parts) == [""] else cast(np.ndarray, ConcatenatedArray(parts))


def parts_of(array: np.ndarray | ConcatenatedArray) -> Mapping[str, np.ndarray]:
    """{name: array} of what `concatenate` returned."""
    return array.parts if isinstance(array, ConcatenatedArray) else {"": array}
