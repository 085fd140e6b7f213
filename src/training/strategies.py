"""Where a run computes: one device, or several that share each batch. The only module that knows tf.distribute."""

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

# A CPU is made to look like several devices, so that `mirrored` runs everywhere. It has to be done before TensorFlow first
# uses a device, so also for `single`, which a later job of the same sweep may follow with `mirrored`; it costs nothing.
LOGICAL_CPUS = 8
DEFAULT_CPU_REPLICAS = 2


def create(chosen: schema.Strategy) -> tf.distribute.Strategy:
    """The strategy that was chosen, over the devices that are there.

    Raises:
        UserError: the devices that it asks for are not there.
    """
    gpus = prepare_devices()
    _clip_the_gradient_of_the_whole_batch()
    if chosen.name == "single":
        if chosen.device == "gpu" and not gpus:
            raise UserError("TensorFlow finds no GPU on this machine; type strategy.device=auto or strategy.device=cpu.")
        avoid_gpu = gpus and chosen.device == "cpu"
        return tf.distribute.OneDeviceStrategy("/CPU:0") if avoid_gpu else tf.distribute.get_strategy()
    kind, there = ("GPU", gpus) if gpus else ("CPU", LOGICAL_CPUS)
    replicas = chosen.replicas or gpus or DEFAULT_CPU_REPLICAS
    if replicas > there:
        raise UserError(f"strategy.replicas={replicas}, but there are {there} devices ({kind}); type {there} or fewer.")
    if _replicas_before not in ([], [replicas]):
        raise UserError(
            f"TensorFlow cannot mirror over {replicas} devices in a process that did so over {_replicas_before[0]}; "
            "type a command of its own for each strategy.replicas."
        )
    _replicas_before[:] = [replicas]
    return _mirrored(kind, replicas)


_replicas_before: list[int] = []  # the number that this process has mirrored over, if it has


@functools.cache
def _mirrored(kind: str, replicas: int) -> tf.distribute.Strategy:
    """Made once in a process: a second MirroredStrategy over the same devices fails on its second model."""
    _draw_differently_on_each_replica()
    return tf.distribute.MirroredStrategy([f"{kind}:{index}" for index in range(replicas)])


def check_batch(batch_size: int, strategy: tf.distribute.Strategy) -> None:
    """Raises a UserError unless the replicas, now that their number is known, can share a batch evenly."""
    check_share(batch_size, strategy.num_replicas_in_sync)


@functools.cache
def prepare_devices() -> int:
    """Prepares this process's devices, once; returns how many GPUs there are."""
    gpus = tf.config.list_physical_devices("GPU")
    for gpu in gpus:
        tf.config.experimental.set_memory_growth(gpu, True)  # leave memory to others
    if not gpus:
        cpu = tf.config.list_physical_devices("CPU")[0]
        tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * LOGICAL_CPUS)
    return len(gpus)


@functools.cache
def _draw_differently_on_each_replica() -> None:
    """Makes Keras's random numbers depend on the replica.

    Every replica has a copy of a seed generator's state, and all copies are equal: left alone, all replicas drop the same
    units and add the same noise, so a batch holds less variety than it seems to. Here the replica's number goes into the
    seed. Replica 0 draws what a single device would.
    """
    draw = keras.random.SeedGenerator.next

    @functools.wraps(draw)
    def draw_on_replica(self: keras.random.SeedGenerator, ordered: bool = True) -> tf.Tensor:
        seed = draw(self, ordered)
        replica = _replica()
        if replica is None:
            return seed
        number = tf.cast(replica.replica_id_in_sync_group, seed.dtype)
        return seed + tf.stack([number * 1_000_003, 0])  # a seed is [seed, counter]; any large odd step will do

    keras.random.SeedGenerator.next = draw_on_replica


@functools.cache
def _clip_the_gradient_of_the_whole_batch() -> None:
    """Makes Keras's optimizers clip the gradient of the batch.

    Left alone they clip the gradient of each replica's share, and add them up then: a bound on the norm then means another
    thing for every number of replicas. Here the shares are added up first, and the rows of an embedding's gradient too; each
    replica hands on an equal part of what is left of the sum, since they are going to be added up once more.
    """
    clip = keras.optimizers.Optimizer._clip_gradients

    @functools.wraps(clip)
    def clip_sum(self: keras.optimizers.Optimizer, gradients: list) -> list:
        if not (self.clipnorm or self.global_clipnorm or self.clipvalue):
            return gradients
        replica, clipped = _replica(), clip(self, of_the_whole_batch(gradients))
        if replica is None:
            return clipped
        return [None if gradient is None else gradient / replica.num_replicas_in_sync for gradient in clipped]

    keras.optimizers.Optimizer._clip_gradients = clip_sum


def forget_gradients() -> None:
    """Lets go of the graphs of earlier models in this process.

    TensorFlow notes the gradient of every all-reduce that it traces, as Keras's optimizers and batch normalization have them
    on a single device too, and never forgets it; the gradient holds the graph that it belongs to: megabytes for every job.
    """
    noted = gradient_registry._registry
    for name in [name for name in noted if name.startswith("CustomGradient-")]:
        del noted[name]


def devices() -> str:
    """The accelerators that are there by their names, else CPU."""
    return ", ".join(_gpus()) or "CPU"


def described(chosen: schema.Strategy, strategy: tf.distribute.Strategy) -> str:
    """Where a run computes: "CPU (2 cores), strategy single"; "4 × NVIDIA A100, strategy mirrored (4 replicas)"."""
    replicas = strategy.num_replicas_in_sync
    gpus = [] if chosen.name == "single" and chosen.device == "cpu" else _gpus()[:replicas]
    names = ", ".join(name if number == 1 else f"{number} × {name}" for name, number in Counter(gpus).items())
    # Of the cores a job that runs beside others has a share; else what the machine, or its container, gives to this process.
    cores = int(os.environ.get("TF_NUM_INTRAOP_THREADS") or joblib.cpu_count())
    where = textwrap.shorten(names, 70, placeholder=" …") or f"CPU ({cores} core{'s' * (cores != 1)})"
    shared = f" ({replicas} replica{'s' * (replicas != 1)})" if chosen.name == "mirrored" else ""
    return f"{where}, strategy {chosen.name}{shared}"


def _gpus() -> list[str]:
    """Their names."""
    return [
        tf.config.experimental.get_device_details(gpu).get("device_name", "GPU")
        for gpu in tf.config.list_physical_devices("GPU")
    ]


def copies(variable: keras.Variable) -> tuple[tf.Variable, ...]:
    """What a variable consists of: one on a single device, else one on each replica, which need not be equal."""
    value = variable.value
    return tuple(value.values) if hasattr(value, "values") else (value,)


def of_the_whole_batch(gradients: list) -> list:
    """The sum over all replicas of the gradients that each has found on its share of a batch."""
    # An embedding's gradient comes as rows, one for each token that was looked up. A token that comes twice has two, and the
    # norm of those is not that of their sum.
    there = [tf.convert_to_tensor(gradient) for gradient in gradients if gradient is not None]
    replica = _replica()
    summed = iter(there if replica is None else replica.all_reduce(tf.distribute.ReduceOp.SUM, there))
    return [None if gradient is None else next(summed) for gradient in gradients]


def _replica() -> tf.distribute.ReplicaContext | None:
    """The replica that this code runs on, if it is one of several."""
    context = tf.distribute.get_replica_context()
    return context if context is not None and context.num_replicas_in_sync > 1 else None
