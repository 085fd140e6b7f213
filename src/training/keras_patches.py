"""All patches of Keras, and all uses of its private parts outside of optimizer classes, each with its reason.

Tests hold each reason against the installed Keras: tests/src/training/test_keras_patches.py.
"""

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any

import keras
import tensorflow as tf
from keras.src.backend.tensorflow import trainer  # the public keras.Model has no name for it


@functools.cache
def seed_replicas_differently(replica_index: Callable[[], tf.Tensor | None]) -> None:
    """Make the seeds of Keras's random operations depend on the replica.

    Each replica has a copy of the state of a seed generator, and all copies are equal. So by default all replicas drop the same
    units and add the same noise, and there is less variety in a batch than there should be. With this patch the index of the
    replica is added to the seed; replica 0 has the seeds of a single device.

    Args:
        replica_index: returns the index of the replica that calls it, or None on a single device.
    """
    next_seed = keras.random.SeedGenerator.next

    @functools.wraps(next_seed)
    def next_replica_seed(self: keras.random.SeedGenerator, ordered: bool = True) -> tf.Tensor:
        seed = next_seed(self, ordered)
        index = replica_index()
        if index is None:
            return seed
        return seed + tf.stack([tf.cast(index, seed.dtype) * 1_000_003, 0])  # [seed, counter]; any large odd step will do

    keras.random.SeedGenerator.next = next_replica_seed


@functools.cache
def clip_gradients_of_whole_batch(sum_over_replicas: Callable[[list], list], count_replicas: Callable[[], int]) -> None:
    """Make Keras's optimizers clip the gradient of the whole batch.

    By default they clip the gradient of each replica's share of the batch, and sum up the clipped gradients, so the effect of a
    maximum norm depends on the number of replicas. With this patch the gradients are summed first, including duplicate rows of
    embedding gradients. Each replica returns an equal fraction of the clipped sum, since Keras will sum them once more.

    Args:
        sum_over_replicas: sums gradients over the replicas.
        count_replicas: returns the number of replicas, 1 on a single device.
    """
    clip = keras.optimizers.Optimizer._clip_gradients

    @functools.wraps(clip)
    def clip_whole_batch(self: keras.optimizers.Optimizer, gradients: list) -> list:
        if not (self.clipnorm or self.global_clipnorm or self.clipvalue):
            return gradients
        clipped, replicas = clip(self, sum_over_replicas(gradients)), count_replicas()
        if replicas == 1:
            return clipped
        return [None if gradient is None else gradient / replicas for gradient in clipped]

    keras.optimizers.Optimizer._clip_gradients = clip_whole_batch


@functools.cache
def train_on_several_workers(spans_workers: Callable[[tf.distribute.Strategy], bool]) -> None:
    """Make `fit` work under MultiWorkerMirroredStrategy, for models that are built and have an optimizer that is built.

    Keras reduces the metrics of each step over the workers as if they were batches, along an axis that scalars do not have.
    With this patch, those of a step are those of this worker, which saves an exchange, and those of an epoch are of all. Before
    the first step Keras reduces a batch over the replicas in order to build a model, which this strategy refuses.

    Args:
        spans_workers: whether a strategy is MultiWorkerMirroredStrategy.
    """
    reduces_over_workers, build = trainer._collective_all_reduce_multi_worker, trainer.TensorFlowTrainer._maybe_symbolic_build

    @functools.wraps(reduces_over_workers)
    def reduces_on_this_worker(strategy: tf.distribute.Strategy) -> bool:
        return False

    @functools.wraps(build)
    def build_if_needed(self: keras.Model, iterator: Any = None, data_batch: Any = None) -> None:
        if not spans_workers(self.distribute_strategy):
            build(self, iterator, data_batch)

    trainer._collective_all_reduce_multi_worker = reduces_on_this_worker
    trainer.TensorFlowTrainer._maybe_symbolic_build = build_if_needed


def train_step(model: keras.Model) -> Callable[[Any], Any]:
    """The training step of a model under its strategy: from a batch to the metrics, as Keras's `fit` takes it.

    Keras has it only within a function that reads the batch, too.
    """
    strategy = model.distribute_strategy

    @tf.function(reduce_retracing=True, jit_compile=model.jit_compile)
    def step(batch: Any) -> Any:
        return trainer.reduce_per_replica(strategy.run(model.train_step, args=(batch,)), strategy, "auto")

    return step


@contextlib.contextmanager
def observe_layers(observe: Callable[[keras.layers.Layer, Any], None]) -> Iterator[None]:
    """Call `observe` with each layer that is called, and its output. Keras has no hooks for that."""
    call = keras.layers.Layer.__call__

    def observed_call(layer: keras.layers.Layer, *args: Any, **kwargs: Any) -> Any:
        output = call(layer, *args, **kwargs)
        observe(layer, output)
        return output

    keras.layers.Layer.__call__ = observed_call
    try:
        yield
    finally:
        keras.layers.Layer.__call__ = call


def all_layers(model: keras.Model) -> list[keras.layers.Layer]:
    """A model and all its layers, also those within other layers; the public `model.layers` has the outermost alone."""
    return list(model._flatten_layers())
