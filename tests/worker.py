"""A worker of a cluster, which trains without a record: `python -m tests.worker`, or several of them with `train`.

Its input is JSON: the addresses of the workers (none: it trains alone), its index, the settings of the run, and which of the
repairs of Keras it goes without.
"""

import contextlib
import hashlib
import json
import subprocess
import sys
from collections.abc import Sequence

from src.cluster import Addresses, Cluster, local
from tests.commands import ROOT, environment


def train(overrides: Sequence[str], count: int = 2, devices: int = 1, unpatched: str = "", timeout: float = 300) -> list[dict]:
    """Train a model in several processes together.

    Args:
        overrides: the settings of the run, without the strategy.
        count: number of workers; 1: one process with strategy=single.
        devices: of each worker, which are logical CPU devices in place of GPUs.
        unpatched: name of a function or method of Keras's trainer that stays as it is in Keras.
        timeout: seconds.

    Returns:
        What each worker prints: {metric: [value after each epoch]} and a digest of the weights.
    """
    workers = [f"{local.HOST}:{port}" for port in local.free_ports(count)] if count > 1 else []
    strategy = "multi_worker" if workers else "single"
    processes = []
    for index in range(count):
        task = {
            "workers": workers, "index": index, "devices": devices, "overrides": [*overrides, f"strategy={strategy}"],
            "unpatched": unpatched,
        }  # fmt: skip
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.worker", json.dumps(task)], cwd=ROOT, text=True,
            env=environment(TF_NUM_INTRAOP_THREADS="1", TF_NUM_INTEROP_THREADS="1") if workers else environment(),
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        processes.append(process)
    outputs = [process.communicate(timeout=timeout) for process in processes]
    for process, (_, errors) in zip(processes, outputs):
        if process.returncode:
            raise RuntimeError(errors[-3000:])
    return [json.loads(output) for output, _ in outputs]


def _divide_cpu(devices: int) -> None:
    """Let MultiWorkerMirroredStrategy use several logical CPU devices, of which it takes the first one alone."""
    import tensorflow as tf
    from tensorflow.python.distribute.collective_all_reduce_strategy import CollectiveAllReduceExtended

    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * devices)
    CollectiveAllReduceExtended._initialize_local_devices = lambda self, resolver, worker: (
        tuple(f"{worker}/device:CPU:{index}" for index in range(devices)),
        "CPU",
    )


def main(task: dict) -> None:
    """Train as one of the workers, and print the result."""
    with contextlib.redirect_stdout(sys.stderr):
        from src import config, datasets, terminal

        terminal.load_tensorflow()
        from keras.src.backend.tensorflow import trainer

        from src.tasks import factory
        from src.training import loop, strategies

        (settings,) = config.parse(task["overrides"]).jobs
        cluster = None
        if task["workers"]:
            cluster = Cluster(Addresses(tuple(task["workers"]), task["index"]), timeout=30)
            cluster.meet(wait=60)
            _divide_cpu(task["devices"])
        strategy = strategies.create(settings.strategy, cluster)
        for owner in (trainer, trainer.TensorFlowTrainer):
            if hasattr(owner, task["unpatched"] or "-"):
                setattr(owner, task["unpatched"], getattr(owner, task["unpatched"]).__wrapped__)
        data = datasets.load(settings.dataset)
        loop.prepare(settings)
        encoded = factory.create(settings.task, data, settings.dataset.limit)
        model = loop.build(settings, encoded, strategy)
        history: list[dict[str, float]] = []
        loop.fit(model, settings, encoded, lambda metrics, epoch: history.append(metrics), cluster=cluster)
        if cluster:
            cluster.exchange("done")
            cluster.finish()
    weights = hashlib.blake2b(b"".join(weight.tobytes() for weight in model.get_weights())).hexdigest()
    metrics = {name: [epoch[name] for epoch in history] for name in history[0]}
    print(json.dumps({"speed": metrics.pop("examples_per_second"), "metrics": metrics, "weights": weights}))


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
