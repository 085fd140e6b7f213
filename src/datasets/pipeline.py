"""tf.data pipelines over a part of a data set that is held in memory.

Whole batches are gathered from memory, which costs a fraction of reading and batching single examples. Every batch has
the same shape, and every batch can be shared evenly by replicas.
"""

import tensorflow as tf
from keras import tree

from src.datasets.loading import Part


def training(part: Part, batch_size: int, seed: int) -> tf.data.Dataset:
    """Endless batches (inputs, targets): epoch after epoch, each in an order that follows from (seed, epoch) alone.

    An epoch is `len(part) // batch_size` batches; the examples that are left over come in other epochs.
    """
    arrays = _tensors(part)
    steps = len(part) // batch_size

    def epoch(number: tf.Tensor) -> tf.data.Dataset:
        order = tf.random.experimental.stateless_shuffle(
            tf.range(len(part)), seed=tf.stack([tf.constant(seed, tf.int64), number])
        )
        return tf.data.Dataset.from_tensor_slices(tf.reshape(order[: steps * batch_size], (steps, batch_size)))

    batches = tf.data.Dataset.range(tf.int64.max).flat_map(epoch)
    return batches.map(lambda rows: _gather(arrays, rows)).prefetch(tf.data.AUTOTUNE)


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

    return tf.data.Dataset.range(rows).batch(batch_size, drop_remainder=True).map(batch).prefetch(tf.data.AUTOTUNE)


def prediction(part: Part, batch_size: int) -> tf.data.Dataset:
    """Batches of inputs over the whole part, in order; the last one is filled up: cut the answer to `len(part)` rows."""
    return evaluation(part, batch_size).map(lambda inputs, targets, weights: inputs)


def _tensors(part: Part):
    return tree.map_structure(tf.constant, (part.inputs, part.targets))


def _gather(arrays, rows: tf.Tensor):
    return tree.map_structure(lambda array: tf.gather(array, rows), arrays)
