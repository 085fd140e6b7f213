"""tf.data pipelines over a split, in memory or on disk.

An example is a row number. The order of rows is made first, whole batches of numbers at a time; then the rows of a batch are
gathered, from memory, which costs a fraction of reading and batching single examples, or from disk, several batches at once.
So both give the same batches, and a run that is resumed reads nothing of what lies before. Windows of a longer array and files
that are mapped to memory are views in NumPy: their rows are copied batch by batch, too. All batches have the same size, so
that replicas can share them evenly.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf
from keras import tree

from src.datasets.concatenation import ConcatenatedArray
from src.datasets.data import Array, Split
from src.datasets.lazy import LazyArray

PREFETCH = 2  # batches
MAX_ORDER = 2**20  # rows whose order is kept in memory; that of more rows is computed batch by batch
MAX_COPY = 2**26  # bytes of a view that is copied, since that is faster than to gather from it


@dataclass(frozen=True)
class Share:
    """The part of each batch that a worker takes, of several that share it evenly.

    Attributes:
        index: of the worker.
        workers: number of them.
        replicas: on this worker, each of which gets a batch of its own.
    """

    index: int
    workers: int
    replicas: int

    def of(self, batches: tf.data.Dataset) -> tf.data.Dataset:
        """Batches of row numbers for one replica after the other, from those for all workers."""

        def part(rows: tf.Tensor) -> tf.Tensor:
            return tf.reshape(rows, (self.workers, self.replicas, -1))[self.index]

        size = batches.element_spec.shape[0] // (self.workers * self.replicas)
        return batches.map(part).unbatch().map(lambda rows: tf.ensure_shape(rows, [size]))


def training(split: Split, batch_size: int, seed: int, start: int = 0, share: Share | None = None) -> tf.data.Dataset:
    """Endless batches (inputs, targets): epoch after epoch, each in an order that follows from (seed, epoch) alone.

    An epoch has `len(split) // batch_size` batches; the remaining examples differ between epochs.

    Args:
        split: the training set.
        batch_size: examples in a batch.
        seed: of shuffling.
        start: number of first batches to skip.
        share: the part of each batch that is read; None: all of it.
    """
    gather, threads = _reader(split)
    order = _computed_order if len(split) > MAX_ORDER else _shuffled_order
    batches = order(len(split), batch_size, seed, start)
    batches = share.of(batches) if share else batches
    return _prefetch(batches.map(gather, num_parallel_calls=threads))


def _shuffled_order(rows: int, batch_size: int, seed: int, start: int) -> tf.data.Dataset:
    """Endless batches of row numbers, each epoch shuffled as a whole."""
    steps = rows // batch_size

    def epoch(number: tf.Tensor) -> tf.data.Dataset:
        order = tf.random.experimental.stateless_shuffle(tf.range(rows), seed=tf.stack([tf.constant(seed, tf.int64), number]))
        return tf.data.Dataset.from_tensor_slices(tf.reshape(order[: steps * batch_size], (steps, batch_size)))

    return tf.data.Dataset.range(start // steps, tf.int64.max).flat_map(epoch).skip(start % steps)


def _computed_order(rows: int, batch_size: int, seed: int, start: int) -> tf.data.Dataset:
    """Endless batches of row numbers, by a cipher that permutes them: takes no memory, however many rows there are."""
    steps = rows // batch_size
    largest = tf.constant(rows - 1, tf.int64)

    def batch(step: tf.Tensor) -> tf.Tensor:
        places = step % steps * batch_size + tf.range(batch_size, dtype=tf.int64)
        key = tf.stack([tf.constant(seed, tf.int64), step // steps, tf.constant(0, tf.int64)])  # three numbers of 32 bits
        # The 4 rounds of `tf.random.experimental.index_shuffle` are too few: neighboring places are correlated by 0.4, and the
        # places of a row in two epochs by up to 0.9. From 12 rounds on they are as of a random permutation.
        return tf.raw_ops.RandomIndexShuffle(index=places, seed=key, max_index=largest, rounds=16)

    return tf.data.Dataset.range(start, tf.int64.max).map(batch)


def evaluation(split: Split, batch_size: int, share: Share | None = None) -> tf.data.Dataset:
    """Batches (inputs, targets, weights) over a split, once, in order.

    The last batch is padded with examples of weight 0. The weights of the others are such that the mean weight is 1: a loss
    that Keras divides by the number of rows is then the mean over the examples, bit by bit the same under every strategy.

    Args:
        split: to be evaluated.
        batch_size: examples in a batch.
        share: the part of each batch that is read; None: all of it.
    """
    gather, threads = _reader(split)
    rows = -(-len(split) // batch_size) * batch_size
    weight = rows / len(split)

    def batch(row: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        valid = row < len(split)
        row = tf.where(valid, row, 0)
        return *gather(row), tf.where(valid, weight, 0.0)

    batches = tf.data.Dataset.range(rows).batch(batch_size, drop_remainder=True)
    batches = share.of(batches) if share else batches
    return _prefetch(batches.map(batch, num_parallel_calls=threads))


def prediction(split: Split, batch_size: int) -> tf.data.Dataset:
    """Batches of inputs over a split, in order; the last one is padded: keep the first `len(split)` predictions."""
    return evaluation(split, batch_size).map(lambda inputs, targets, weights: inputs)


def _prefetch(batches: tf.data.Dataset) -> tf.data.Dataset:
    """Prepare batches in the background.

    Autotuning is off: the end of an iterator may wait for its thread, which sleeps for up to a minute (measured: 7 to 40 s at
    the end of every third or fourth `fit`, with idle processors).
    """
    options = tf.data.Options()
    options.autotune.enabled = False
    return batches.prefetch(PREFETCH).with_options(options)


def _reader(split: Split) -> tuple[Callable[[tf.Tensor], Any], int | None]:
    """The function from a batch of row numbers to inputs and targets, and the threads that it is to run in; None: one."""
    arrays = (split.inputs, split.targets)
    columns = tree.map_structure(_column, arrays)
    lazy = any(isinstance(array, LazyArray) for array in tree.flatten(arrays))

    def gather(rows: tf.Tensor) -> Any:
        return tree.map_structure(lambda values: values(rows), columns)

    return gather, os.cpu_count() if lazy else None  # a batch is decoded by one thread, several batches at once


def _column(array: Array) -> Callable[[tf.Tensor], tf.Tensor]:
    """The function from row numbers (n,) to these rows of an array (n, …)."""
    if isinstance(array, LazyArray):
        return array.gather
    is_view = isinstance(array, np.memmap | ConcatenatedArray) or not array.flags.c_contiguous
    if not is_view or array.nbytes <= MAX_COPY:
        constant = tf.constant(np.asarray(array))
        return lambda rows: tf.gather(constant, rows)

    def rows_of_view(rows: tf.Tensor) -> tf.Tensor:
        values = tf.numpy_function(lambda indices: np.ascontiguousarray(array[indices]), [rows], array.dtype)
        return tf.ensure_shape(values, (*rows.shape, *array.shape[1:]))

    return rows_of_view
