"""A worker of a cluster, which trains without a record and prints what it has learned: `python -m tests.worker`.

Its input is JSON: the addresses of the workers, the index of this one, and the settings of the run as overrides.
"""

import contextlib
import hashlib
import json
import sys

from src import config
from src.cluster import Addresses, Cluster


def main() -> None:
    """Train, and print {metric: [value after each epoch]} with a digest of the weights as JSON."""
    task = json.load(sys.stdin)
    (settings,) = config.parse(task["overrides"]).jobs
    cluster = Cluster(Addresses(tuple(task["workers"]), task["index"]), timeout=30)
    cluster.meet(wait=60)
    from src import datasets
    from src.tasks import factory
    from src.training import loop, strategies

    with contextlib.redirect_stdout(sys.stderr), cluster.explain_failure():
        strategy = strategies.create(settings.strategy, cluster)
        data = datasets.load(settings.dataset)
        loop.prepare(settings)
        model = loop.build(settings, factory.create(settings.task, data, settings.dataset.limit), strategy)
        history: list[dict[str, float]] = []
        trained = factory.create(settings.task, data, settings.dataset.limit)
        loop.fit(model, settings, trained, lambda metrics, epoch: history.append(metrics), cluster=cluster)
        cluster.exchange("done")
    cluster.finish()
    names = [name for name in history[0] if name != "examples_per_second"]
    weights = hashlib.blake2b(b"".join(weight.tobytes() for weight in model.get_weights())).hexdigest()
    print(json.dumps({"metrics": {name: [epoch[name] for epoch in history] for name in names}, "weights": weights}))


if __name__ == "__main__":
    main()
