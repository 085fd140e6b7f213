"""tf.data pipelines over a part of a data set that is held in memory.

Whole batches are gathered from memory, which costs a fraction of reading and batching single examples. Every batch has
the same shape, and every batch can be shared evenly by replicas.
"""

from typing import Any

import tensorflow as tf
from keras import tree

from src.datasets.loading import Part

AHEAD = 2  # batches that are made ready while one is trained on


def training(part: Part, batch_size: int, seed: int, start: int = 0) -> tf.data.Dataset:
    """Endless batches (inputs, targets): epoch after epoch, each in an order that follows from (seed, epoch) alone.

    An epoch is `len(part) // batch_size` batches; the examples that are left over come in other epochs. The first `start`
    batches are left out.
    """
    arrays = _tensors(part)
    steps = len(part) // batch_size

    def epoch(number: tf.Tensor) -> tf.data.Dataset:
        order = tf.random.experimental.stateless_shuffle(
            tf.range(len(part)), seed=tf.stack([tf.constant(seed, tf.int64), number])
        )
        return tf.data.Dataset.from_tensor_slices(tf.reshape(order[: steps * batch_size], (steps, batch_size)))

    batches = tf.data.Dataset.range(start // steps, tf.int64.max).flat_map(epoch).skip(start % steps)
    return _ahead(batches.map(lambda rows: _gather(arrays, rows)))


def evaluation(part: Part, batch_size: int) -> tf.data.Dataset:
    """Batches (inputs, targets, weights) over the whole part, once, in order.

    The last batch is filled up with examples of weight 0. The others weigh so much that the mean weight is 1: then a loss
    that Keras divides by the number of rows is the mean over the examples, to the last bit under every strategy.
    """
    arrays = _tensors(part)
    rows = -(-len(part) // batch_size) * batch_size
    weight = rows / len(part)

    def batch(row: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        real = row < len(part)
        row = tf.where(real, row, 0)
        return *_gather(arrays, row), tf.where(real, weight, 0.0)

    return _ahead(tf.data.Dataset.range(rows).batch(batch_size, drop_remainder=True).map(batch))


def prediction(part: Part, batch_size: int) -> tf.data.Dataset:
    """Batches of inputs over the whole part, in order; the last one is filled up: cut the answer to `len(part)` rows."""
    return evaluation(part, batch_size).map(lambda inputs, targets, weights: inputs)


def _ahead(batches: tf.data.Dataset) -> tf.data.Dataset:
    """Makes batches ready in the background.

    Nothing is left to tf.data's autotuning: the end of an iterator can wait for the thread that does it, which sleeps for up
    to a minute (seen here: 7 to 40 s at the end of every third or fourth `fit`, no processor at work).
    """
    options = tf.data.Options()
    options.autotune.enabled = False
    return batches.prefetch(AHEAD).with_options(options)


def _tensors(part: Part) -> Any:
    return tree.map_structure(tf.constant, (part.inputs, part.targets))


def _gather(arrays: Any, rows: tf.Tensor) -> Any:
    return tree.map_structure(lambda array: tf.gather(array, rows), arrays)
