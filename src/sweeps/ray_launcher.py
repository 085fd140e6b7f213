"""hydra/launcher=ray: the jobs of a sweep on a Ray cluster (https://docs.ray.io), which this machine alone can be too.

hydra-ray-launcher requires an older cloudpickle than the other packages here, and brings what it takes to rent machines from
one provider; this launcher only runs jobs.
"""

import json
import logging
import os
import socket
from collections.abc import Sequence
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.singleton import Singleton
from hydra.core.utils import JobReturn, configure_log, filter_overrides, run_job, setup_globals
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, open_dict

from src.cluster.addresses import TF_CONFIG
from src.config import to_dict
from src.config.command_line import COMMAND
from src.sweeps.job_store import FOLDER_VARIABLE

log = logging.getLogger(__name__)

SHUTDOWN_TIMEOUT = 60  # seconds that interrupted jobs have to save a checkpoint and end

# Set before Ray is imported, this makes the servers of a cluster of this machine alone listen on loopback, as on Windows and
# macOS. On Linux they listen at all addresses otherwise, whatever `ray.init` is given.
LOOPBACK = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}

# Prefixes of the environment variables that jobs get from this process.
FORWARDED_VARIABLES = ("HYDRA_FULL_ERROR", "MLFLOW_", "TFDS_DATA_DIR", FOLDER_VARIABLE, COMMAND)


class RayLauncher(Launcher):
    """Hydra's launcher plugin.

    Args:
        init: arguments of `ray.init`: the address of a cluster, or the resources of a local one.
        remote: arguments of `ray.remote`: the resources of a job, or of each of its workers.
        workers: processes that train the model of a job together.
    """

    def __init__(self, init: DictConfig, remote: DictConfig, workers: int):
        self.init, self.remote, self.workers = to_dict(init), to_dict(remote), workers

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.hydra_context, self.task_function, self.config = hydra_context, task_function, config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Run the jobs, as many in parallel as the cluster has resources for, and wait for all of them.

        Args:
            job_overrides: overrides of each job.
            initial_job_idx: number of the first job.
        """
        os.environ.setdefault("RAY_DEDUP_LOGS", "0")  # else Ray hides lines that several jobs print
        if not self.init.get("address"):
            os.environ.update(LOOPBACK)
        import ray

        setup_globals()
        configure_log(self.config.hydra.hydra_logging, self.config.hydra.verbose)
        if not ray.is_initialized():
            ray.init(**self.init)
        environment = {name: value for name, value in os.environ.items() if name.startswith(FORWARDED_VARIABLES)}
        run, run_together = ray.remote(**self.remote)(_run_remote_job), ray.remote(num_cpus=0)(_run_on_workers)
        pending = []
        for number, overrides in enumerate(job_overrides, initial_job_idx):
            log.info("\t#%d : %s", number, " ".join(filter_overrides(overrides)))
            job = (
                self.hydra_context, self.config, list(overrides), number, self.task_function,
                Singleton.get_state(), os.getcwd(), environment,
            )  # fmt: skip
            pending.append(run.remote(*job) if self.workers == 1 else run_together.remote(self.remote, self.workers, *job))
        try:
            return ray.get(pending)
        except KeyboardInterrupt:
            for job in pending:
                ray.cancel(job)  # as Ctrl-C would
            ray.wait(pending, num_returns=len(pending), timeout=SHUTDOWN_TIMEOUT)
            raise


def _run_on_workers(resources: dict[str, Any], workers: int, *job: Any) -> JobReturn:
    """Run a job in several processes of the cluster, on different machines if possible, once there is room for all of them.

    Args:
        resources: arguments of `ray.remote` for each of them.
        workers: their number.
        job: arguments of `_run_remote_job`.

    Returns:
        What the first one, the chief, returns.
    """
    import ray
    from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

    needed = {"CPU": resources.get("num_cpus"), "GPU": resources.get("num_gpus"), "memory": resources.get("memory")}
    bundle = {name: number for name, number in (needed | (resources.get("resources") or {})).items() if number}
    group, running = ray.util.placement_group([bundle] * workers, strategy="SPREAD"), []
    try:
        places = [PlacementGroupSchedulingStrategy(group, index) for index in range(workers)]
        find_address = ray.remote(num_cpus=0)(_find_address)
        addresses = [find_address.options(scheduling_strategy=place).remote() for place in places]
        # TensorFlow trains with others once in a process, and a worker that is started again would come too late.
        run = ray.remote(**resources | {"max_calls": 1, "max_retries": 0})(_run_remote_job)
        for index, place in enumerate(places):
            running.append(run.options(scheduling_strategy=place).remote(*job, index, *addresses))
        return ray.get(running[0])
    finally:
        if running:  # the others end after the chief; without the group they would be killed
            ray.wait(running, num_returns=workers, timeout=SHUTDOWN_TIMEOUT)
        ray.util.remove_placement_group(group)


def _find_address() -> str:
    """Address of this machine in the cluster, with a port that is free."""
    import ray

    host = ray.util.get_node_ip_address()
    with socket.create_server((host, 0)) as server:
        return f"{host}:{server.getsockname()[1]}"


def _run_remote_job(
    context: HydraContext, config: DictConfig, overrides: list[str], number: int, task: TaskFunction,
    singletons: dict[Any, Any], directory: str, environment: dict[str, str], index: int = 0, *workers: str,
) -> JobReturn:  # fmt: skip
    """Run a job in a process of the cluster, whose machines see the folder of the sweep under the same path.

    `workers` are the addresses of the processes that train together, and `index` is the place of this one; none: it is alone.
    """
    os.chdir(directory)
    os.environ.update(environment)
    if workers:
        os.environ[TF_CONFIG] = json.dumps({"cluster": {"worker": workers}, "task": {"type": "worker", "index": index}})
    setup_globals()
    Singleton.set_state(singletons)
    composed = context.config_loader.load_sweep_config(config, overrides)
    with open_dict(composed):
        composed.hydra.job.id = f"{composed.hydra.job.name}_{number}"
        composed.hydra.job.num = number
    HydraConfig.instance().set_config(composed)
    return run_job(
        hydra_context=context, task_function=task, config=composed,
        job_dir_key="hydra.sweep.dir", job_subdir_key="hydra.sweep.subdir",
    )  # fmt: skip
