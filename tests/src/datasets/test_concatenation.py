"""Arrays one after the other, against NumPy's copy of them."""

import numpy as np
import pytest

from src.datasets import Split, pipeline
from src.datasets.concatenation import concatenate, parts_of

DRAW = np.random.default_rng(0)
PARTS = {"a": DRAW.random((3, 2)), "b": DRAW.random((1, 2)), "c": DRAW.random((6, 2))}
COPY = np.concatenate(list(PARTS.values()))


@pytest.mark.parametrize(
    "index", [0, 3, 9, slice(2, 8), slice(0, 100, 3), np.array([9, 0, 3, 3, 4]), np.array([], int), np.array([[1, 9], [4, 0]])]
)
def test_rows_are_those_of_the_copy(index):
    np.testing.assert_array_equal(concatenate(PARTS)[index], COPY[index])


def test_it_looks_like_the_copy():
    array = concatenate(PARTS)
    assert (len(array), array.shape, array.dtype, array.size, array.nbytes) == (10, (10, 2), COPY.dtype, 20, COPY.nbytes)
    np.testing.assert_array_equal(np.asarray(array), COPY)
    np.testing.assert_array_equal(array - COPY[:1], COPY - COPY[:1])
    np.testing.assert_array_equal(np.asarray(array, np.float32), COPY.astype(np.float32))
    assert parts_of(array) == PARTS
    assert concatenate({"": COPY}) is COPY
    assert list(parts_of(COPY)) == [""]
    assert list(parts_of(concatenate({"a": COPY}))) == ["a"]


@pytest.mark.parametrize("count", [1, 3, 4, 7, 10, 99])
def test_the_first_rows_are_views(count):
    head = Split(concatenate(PARTS), COPY).take(count).inputs
    np.testing.assert_array_equal(np.asarray(head), COPY[:count])
    assert all(np.shares_memory(part, PARTS[name]) for name, part in parts_of(head).items())


@pytest.mark.parametrize("max_copy", [0, pipeline.MAX_COPY])
def test_batches_are_those_of_the_copy(monkeypatch, max_copy):
    monkeypatch.setattr(pipeline, "MAX_COPY", max_copy)
    one, other = Split(concatenate(PARTS), concatenate(PARTS)), Split(COPY, COPY)
    for make in (lambda split: pipeline.training(split, 4, 1).take(6), lambda split: pipeline.evaluation(split, 4)):
        assert make(one).element_spec == make(other).element_spec
        for mine, theirs in zip(make(one), make(other), strict=True):
            for part, expected in zip(mine, theirs, strict=True):
                np.testing.assert_array_equal(part, expected)
