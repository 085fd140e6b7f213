"""Distribution strategies: one device, or several that share each batch. The only module that uses tf.distribute."""

import functools
import logging
import os
import textwrap
from collections import Counter

import joblib
import keras
import tensorflow as tf
from tensorflow.python.framework.ops import gradient_registry

from src.config import check_share, schema
from src.errors import UserError

log = logging.getLogger(__name__)

# The CPU is split into several logical devices, so that `mirrored` runs everywhere. TensorFlow only allows that before it first
# uses a device, so it is done for `single` too: a later job of the same sweep may be `mirrored`. It costs nothing.
LOGICAL_CPUS = 8
DEFAULT_CPU_REPLICAS = 2


def create(settings: schema.Strategy) -> tf.distribute.Strategy:
    """Create the strategy over the devices of this machine.

    Raises:
        UserError: the machine has not the devices that the settings require.
    """
    gpus = prepare_devices()
    _clip_gradients_of_whole_batch()
    if settings.name == "single":
        if settings.device == "gpu" and not gpus:
            raise UserError("TensorFlow finds no GPU on this machine; type strategy.device=auto or strategy.device=cpu.")
        avoid_gpu = gpus and settings.device == "cpu"
        return tf.distribute.OneDeviceStrategy("/CPU:0") if avoid_gpu else tf.distribute.get_strategy()
    kind, available = ("GPU", gpus) if gpus else ("CPU", LOGICAL_CPUS)
    replicas = settings.replicas or gpus or DEFAULT_CPU_REPLICAS
    if replicas > available:
        raise UserError(f"strategy.replicas={replicas}, but there are {available} devices ({kind}); type {available} or fewer.")
    if _earlier_replicas not in ([], [replicas]):
        raise UserError(
            f"TensorFlow cannot mirror over {replicas} devices in a process that did so over {_earlier_replicas[0]}; "
            "type a command of its own for each strategy.replicas."
        )
    _earlier_replicas[:] = [replicas]
    return _mirrored(kind, replicas)


_earlier_replicas: list[int] = []  # the number of replicas of earlier runs of this process, if there were any


@functools.cache
def _mirrored(kind: str, replicas: int) -> tf.distribute.Strategy:
    """Create a MirroredStrategy once in a process: a second one over the same devices fails on its second model."""
    _seed_replicas_differently()
    return tf.distribute.MirroredStrategy([f"{kind}:{index}" for index in range(replicas)])


def check_batch(batch_size: int, strategy: tf.distribute.Strategy) -> None:
    """Raise a UserError unless a batch can be divided evenly among the replicas."""
    check_share(batch_size, strategy.num_replicas_in_sync)


@functools.cache
def prepare_devices() -> int:
    """Configure the devices of this process, once; returns the number of GPUs."""
    gpus = tf.config.list_physical_devices("GPU")
    for gpu in gpus:
        tf.config.experimental.set_memory_growth(gpu, True)  # leaves memory to other processes
    if not gpus:
        cpu = tf.config.list_physical_devices("CPU")[0]
        tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * LOGICAL_CPUS)
    return len(gpus)


@functools.cache
def _seed_replicas_differently() -> None:
    """Make the seeds of Keras's random operations depend on the replica.

    Each replica has a copy of the state of a seed generator, and all copies are equal. So by default all replicas drop the same
    units and add the same noise, and there is less variety in a batch than there should be. With this patch the index of the
    replica is added to the seed; replica 0 has the seeds of a single device.
    """
    next_seed = keras.random.SeedGenerator.next

    @functools.wraps(next_seed)
    def next_replica_seed(self: keras.random.SeedGenerator, ordered: bool = True) -> tf.Tensor:
        seed = next_seed(self, ordered)
        replica = _replica_context()
        if replica is None:
            return seed
        index = tf.cast(replica.replica_id_in_sync_group, seed.dtype)
        return seed + tf.stack([index * 1_000_003, 0])  # a seed is [seed, counter]; any large odd step will do

    keras.random.SeedGenerator.next = next_replica_seed


@functools.cache
def _clip_gradients_of_whole_batch() -> None:
    """Make Keras's optimizers clip the gradient of the whole batch.

    By default they clip the gradient of each replica's share of the batch, and sum up the clipped gradients, so the effect of a
    maximum norm depends on the number of replicas. With this patch the gradients are summed first, including duplicate rows of
    embedding gradients. Each replica returns an equal fraction of the clipped sum, since Keras will sum them once more.
    """
    clip = keras.optimizers.Optimizer._clip_gradients

    @functools.wraps(clip)
    def clip_whole_batch(self: keras.optimizers.Optimizer, gradients: list) -> list:
        if not (self.clipnorm or self.global_clipnorm or self.clipvalue):
            return gradients
        replica, clipped = _replica_context(), clip(self, sum_over_replicas(gradients))
        if replica is None:
            return clipped
        return [None if gradient is None else gradient / replica.num_replicas_in_sync for gradient in clipped]

    keras.optimizers.Optimizer._clip_gradients = clip_whole_batch


def clear_gradient_registry() -> None:
    """Free the graphs of earlier models in this process.

    TensorFlow registers the gradient of every all-reduce that it traces, as in Keras's optimizers and batch normalization, and
    never removes it; a gradient refers to its graph, which leaks megabytes with each job.
    """
    registry = gradient_registry._registry
    for name in [name for name in registry if name.startswith("CustomGradient-")]:
        del registry[name]


def device_names() -> str:
    """The names of all GPUs, or CPU."""
    return ", ".join(_gpu_names()) or "CPU"


def describe(settings: schema.Strategy, strategy: tf.distribute.Strategy) -> str:
    """Describe devices and strategy: "CPU (2 cores), strategy single"; "4 × NVIDIA A100, strategy mirrored (4 replicas)"."""
    replicas = strategy.num_replicas_in_sync
    gpus = [] if settings.name == "single" and settings.device == "cpu" else _gpu_names()[:replicas]
    names = ", ".join(name if number == 1 else f"{number} × {name}" for name, number in Counter(gpus).items())
    # A parallel job has a share of the cores; otherwise this process has what the machine or container gives it.
    cores = int(os.environ.get("TF_NUM_INTRAOP_THREADS") or joblib.cpu_count())
    devices = textwrap.shorten(names, 70, placeholder=" …") or f"CPU ({cores} core{'s' * (cores != 1)})"
    suffix = f" ({replicas} replica{'s' * (replicas != 1)})" if settings.name == "mirrored" else ""
    return f"{devices}, strategy {settings.name}{suffix}"


def _gpu_names() -> list[str]:
    """The names of all GPUs."""
    return [
        tf.config.experimental.get_device_details(gpu).get("device_name", "GPU")
        for gpu in tf.config.list_physical_devices("GPU")
    ]


def replica_values(variable: keras.Variable) -> tuple[tf.Variable, ...]:
    """The TensorFlow variables of a Keras variable: one on each replica, whose values may differ."""
    value = variable.value
    return tuple(value.values) if hasattr(value, "values") else (value,)


def sum_over_replicas(gradients: list) -> list:
    """Sum the gradients of the replicas' shares of a batch; all are returned as dense tensors."""
    # An embedding's gradient has one row for each token that was looked up. A token that occurs twice has two rows, whose
    # norm is not that of their sum.
    dense = [tf.convert_to_tensor(gradient) for gradient in gradients if gradient is not None]
    replica = _replica_context()
    summed = iter(dense if replica is None else replica.all_reduce(tf.distribute.ReduceOp.SUM, dense))
    return [None if gradient is None else next(summed) for gradient in gradients]


def _replica_context() -> tf.distribute.ReplicaContext | None:
    """The context of the replica that this code runs on, if there are several."""
    context = tf.distribute.get_replica_context()
    return context if context is not None and context.num_replicas_in_sync > 1 else None
