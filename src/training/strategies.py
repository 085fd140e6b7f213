"""Distribution strategies: one device, or several, on one machine or on many, that share each batch."""

import functools
import logging
import os
import textwrap
from collections import Counter
from collections.abc import Callable

import joblib
import keras
import tensorflow as tf

from src import signals
from src.cluster import Cluster
from src.config import check_even_split, schema
from src.datasets.pipeline import Share
from src.errors import UserError
from src.training import keras_patches, tensorflow_patches

log = logging.getLogger(__name__)

# The CPU is split into several logical devices, so that `mirrored` runs everywhere. TensorFlow only allows that before it first
# uses a device, so it is done for `single` too: a later job of the same sweep may be `mirrored`.
LOGICAL_CPUS = 8
DEFAULT_CPU_REPLICAS = 2


def create(settings: schema.Strategy, cluster: Cluster | None = None) -> tf.distribute.Strategy:
    """Create the strategy over the devices of this machine, or over those of all machines of a cluster.

    Args:
        settings: of the strategy.
        cluster: the workers, which have met; None: this machine alone, as where a finished run is evaluated.

    Raises:
        UserError: the machine lacks the devices that the settings require.
    """
    if cluster:
        return _multi_worker(cluster)
    gpus = prepare_devices()
    keras_patches.clip_gradients_of_whole_batch(sum_over_replicas, _count_replicas)
    if settings.name == "multi_worker":  # without its cluster
        return tf.distribute.get_strategy()
    if settings.name == "single":
        if settings.device == "gpu" and not gpus:
            raise UserError("TensorFlow finds no GPU on this machine; type strategy.device=auto or strategy.device=cpu.")
        avoid_gpu = gpus and settings.device == "cpu"
        return tf.distribute.OneDeviceStrategy("/CPU:0") if avoid_gpu else tf.distribute.get_strategy()
    kind, available = ("GPU", gpus) if gpus else ("CPU", LOGICAL_CPUS)
    replicas = _replicas(settings, gpus)
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
    keras_patches.seed_replicas_differently(_replica_index)
    return tf.distribute.MirroredStrategy([f"{kind}:{index}" for index in range(replicas)])


def _multi_worker(cluster: Cluster) -> tf.distribute.Strategy:
    """Create the strategy of a cluster; TensorFlow can do so once in a process, before it uses a device."""
    if _multi_worker_strategies:
        raise UserError("strategy=multi_worker trains one model in a process; type a command of its own for each run.")
    for gpu in tf.config.list_physical_devices("GPU"):
        tf.config.experimental.set_memory_growth(gpu, True)
    communication = tf.distribute.experimental.CommunicationImplementation
    strategy = tf.distribute.MultiWorkerMirroredStrategy(
        tf.distribute.cluster_resolver.SimpleClusterResolver(
            tf.train.ClusterSpec({"worker": cluster.addresses.workers}),
            task_type="worker",
            task_id=cluster.index,
            rpc_layer="grpc",
        ),
        tf.distribute.experimental.CommunicationOptions(
            implementation=communication.NCCL if _gpu_names() else communication.RING
        ),
    )
    _multi_worker_strategies.append(strategy)
    signals.install_handlers()  # TensorFlow has replaced them: SIGTERM would be ignored
    keras_patches.clip_gradients_of_whole_batch(sum_over_replicas, _count_replicas)
    keras_patches.seed_replicas_differently(_replica_index)
    keras_patches.train_on_several_workers(_spans_workers)
    cluster.on_failure = tensorflow_patches.abort_collectives
    return strategy


_multi_worker_strategies: list[tf.distribute.Strategy] = []


def _spans_workers(strategy: tf.distribute.Strategy) -> bool:
    return isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy)


def share_of(strategy: tf.distribute.Strategy) -> Share | None:
    """The part of each batch that this worker takes; None where there is only one."""
    if not _spans_workers(strategy):
        return None
    resolver = strategy.cluster_resolver
    workers = len(resolver.cluster_spec().as_dict()["worker"])
    return Share(resolver.task_id, workers, strategy.num_replicas_in_sync // workers)


def distribute(strategy: tf.distribute.Strategy, make: Callable[[Share | None], tf.data.Dataset]) -> tf.data.Dataset:
    """Batches as `fit` takes them under a strategy.

    Args:
        strategy: of the model.
        make: from the part of each batch that a worker takes to its batches.
    """
    share = share_of(strategy)
    if share is None:
        return make(None)  # Keras divides each batch among the replicas
    return strategy.distribute_datasets_from_function(lambda context: make(share))


def check_batch(batch_size: int, strategy: tf.distribute.Strategy) -> None:
    """Raise a UserError unless a batch can be divided evenly among the replicas."""
    check_even_split(batch_size, strategy.num_replicas_in_sync)


@functools.cache
def prepare_devices() -> int:
    """Configure the devices of this process, once; returns the number of GPUs."""
    gpus = tf.config.list_physical_devices("GPU")
    if _multi_worker_strategies:  # which has configured them
        return len(gpus)
    for gpu in gpus:
        tf.config.experimental.set_memory_growth(gpu, True)  # leaves memory to other processes
    if not gpus:
        cpu = tf.config.list_physical_devices("CPU")[0]
        tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * LOGICAL_CPUS)
    return len(gpus)


def _replicas(settings: schema.Strategy, gpus: int) -> int:
    """The number of replicas on a machine with `gpus` GPUs."""
    match settings:
        case schema.Mirrored():
            return settings.replicas or gpus or DEFAULT_CPU_REPLICAS
        case schema.MultiWorker():
            return gpus or 1
    return 1


def _used_gpus(settings: schema.Strategy) -> list[str]:
    """The names of the GPUs that a strategy uses."""
    gpus = _gpu_names()
    return [] if settings.name == "single" and settings.device == "cpu" else gpus[: _replicas(settings, len(gpus))]


def _cores() -> int:
    """Cores that this process uses: of a parallel job its share, otherwise what the machine or container gives it."""
    return int(os.environ.get("TF_NUM_INTRAOP_THREADS") or joblib.cpu_count())


def in_force(settings: schema.Strategy) -> dict[str, str]:
    """What a strategy uses on this machine, where its settings leave that open: {tag: value}.

    With `tf32`, GPUs multiply matrices in float32 with 10 bits of the mantissa, TensorFlow's default.
    """
    gpus = _used_gpus(settings)
    share = share_of(_multi_worker_strategies[0]) if _multi_worker_strategies else None
    workers = share.workers if share else 1
    return {
        "device": ", ".join(gpus) or "CPU",
        "replicas": str(workers * _replicas(settings, len(_gpu_names()))),
        **({"workers": str(workers)} if share else {}),
        "cores": str(_cores()),
        "tf32": str(bool(gpus) and tf.config.experimental.tensor_float_32_execution_enabled()).lower(),
    }


def describe(settings: schema.Strategy) -> str:
    """Describe devices and strategy: "CPU (2 cores), strategy single"; "4 × NVIDIA A100, strategy mirrored (4 replicas)"."""
    replicas, cores = _replicas(settings, len(_gpu_names())), _cores()
    counts = Counter(_used_gpus(settings))
    names = ", ".join(name if number == 1 else f"{number} × {name}" for name, number in counts.items())
    devices = textwrap.shorten(names, 70, placeholder=" …") or f"CPU ({cores} core{'s' * (cores != 1)})"
    suffix = f" ({replicas} replica{'s' * (replicas != 1)})" if settings.name == "mirrored" else ""
    if _multi_worker_strategies:
        share = share_of(_multi_worker_strategies[0])
        suffix = f" (worker {share.index} of {share.workers}, from 0)" if share else ""
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


def _replica_index() -> tf.Tensor | None:
    """The index of the replica that this code runs on, if there are several."""
    replica = _replica_context()
    return None if replica is None else replica.replica_id_in_sync_group


def _count_replicas() -> int:
    """The number of replicas that run this code."""
    replica = _replica_context()
    return 1 if replica is None else replica.num_replicas_in_sync
