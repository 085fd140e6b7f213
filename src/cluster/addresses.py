"""The addresses of the workers: from the settings, from the environment variable TF_CONFIG, from submitit, or from SLURM."""

import ipaddress
import json
import os
from dataclasses import dataclass
from typing import Any

from src.config.schema import MultiWorker
from src.errors import UserError

TF_CONFIG = "TF_CONFIG"  # TensorFlow's own; the training operators of Kubernetes and cloud trainers set it
SLURM = "SLURM_STEP_NODELIST"  # set by srun
SUBMITIT = "SUBMITIT_LOCAL_NTASKS"  # set by hydra/launcher=submitit_local, which starts the tasks of a job on this machine
# The ports of a job follow from its number, since several jobs may share a node. They lie below those that systems give away.
FIRST_PORT, PORTS_OF_JOB, JOBS = 20_000, 16, 700
MAX_TASKS = 1024  # on a node
ROLES = ("chief", "master", "worker")  # in TF_CONFIG, the chief first; master is its older name


@dataclass(frozen=True)
class Addresses:
    """The workers of a cluster.

    Attributes:
        workers: host:port of each; the first one is the chief.
        index: of this worker.
    """

    workers: tuple[str, ...]
    index: int

    @property
    def are_local(self) -> bool:
        """Whether all workers are on this machine, by their addresses."""
        return all(_is_loopback(split(worker)[0]) for worker in self.workers)


def find(settings: MultiWorker) -> Addresses:
    """Find the workers.

    Raises:
        UserError: they are named nowhere, or not as they have to be.
    """
    if settings.local is not None:
        raise UserError("strategy.local starts workers from the command line alone: python -m src.run … strategy.local=2.")
    if settings.workers is not None:
        return _checked(Addresses(settings.workers, settings.index or 0), "strategy.workers")
    if TF_CONFIG in os.environ:
        return _checked(_from_tf_config(os.environ[TF_CONFIG]), TF_CONFIG)
    if SUBMITIT in os.environ:  # first: such jobs may run within one of SLURM
        return _checked(_from_submitit(), SUBMITIT)
    if SLURM in os.environ:
        return _checked(_from_slurm(), SLURM)
    raise UserError(
        "strategy=multi_worker finds no cluster: there is neither TF_CONFIG nor SLURM; type strategy.workers=[host:port,…] and "
        "strategy.index=<place in it, from 0> on each machine, or strategy.local=2 to try it on this one."
    )


def split(address: str) -> tuple[str, int]:
    """Host and port of "host:port".

    Raises:
        ValueError: the address has another form.
    """
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 2**16:
        raise ValueError(address)
    return host.strip("[]"), int(port)  # the brackets of IPv6


def _from_tf_config(text: str) -> Addresses:
    try:
        config: dict[str, Any] = json.loads(text)
        cluster, task = config["cluster"], config["task"]
        others = sorted(set(cluster) - {*ROLES})
        if others:
            raise UserError(
                f"TF_CONFIG has the roles {', '.join(others)}, but only a chief and workers train here; remove them."
            )
        roles = [role for role in ROLES if cluster.get(role)]
        index = sum(len(cluster[role]) for role in roles[: roles.index(task["type"])]) + int(task["index"])
        return Addresses(tuple(address for role in roles for address in cluster[role]), index)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"TF_CONFIG cannot be read ({type(error).__name__}: {error}); it has to be like "
            """{"cluster": {"worker": ["host:port", "host:port"]}, "task": {"type": "worker", "index": 0}}."""
        ) from None


def _port(job: str) -> int:
    """The port of the first task of a job on a node; those of the next ones follow."""
    return FIRST_PORT + int(job) % JOBS * PORTS_OF_JOB


def _from_submitit() -> Addresses:
    first, tasks = _port(os.environ["SUBMITIT_LOCAL_JOB_ID"]), int(os.environ[SUBMITIT])
    workers = tuple(f"127.0.0.1:{first + task}" for task in range(tasks))
    return Addresses(workers, int(os.environ["SUBMITIT_LOCAL_GLOBALID"]))


def _from_slurm() -> Addresses:
    import tensorflow as tf  # takes seconds, and only SLURM needs it here

    # SLURM assigns GPUs itself. TensorFlow would divide by their number, which may be 0.
    options = {"auto_set_gpu": False, "gpus_per_task": 1, "gpus_per_node": MAX_TASKS}
    port = _port(os.environ["SLURM_JOB_ID"])
    resolver = tf.distribute.cluster_resolver.SlurmClusterResolver(port_base=port, **options)
    workers = resolver.cluster_spec().as_dict()["worker"]
    return Addresses(tuple(workers), resolver.task_id)


def _checked(addresses: Addresses, source: str) -> Addresses:
    workers, index = addresses.workers, addresses.index
    for address in workers:
        try:
            split(address)
        except ValueError:
            raise UserError(f"{source}: '{address}' is no address; write it like 10.0.0.5:5000.") from None
    if repeated := [address for address in workers if workers.count(address) > 1]:
        raise UserError(f"{source} names {repeated[0]} twice; each worker needs an address of its own.")
    if len(workers) < 2:
        raise UserError(f"{source} names only one worker; on one machine, type strategy=single or strategy=mirrored.")
    if not 0 <= index < len(workers):
        raise UserError(f"{source} has {len(workers)} workers, so there is no worker {index}; count from 0.")
    return addresses


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:  # the name of a host
        return False
