"""Training on several machines, here several processes, gives the results of training on one."""

import hashlib
import json
import subprocess
import sys

import numpy as np
import pytest

from src.cluster.local import _free_ports
from tests.commands import ROOT, environment
from tests.src.training.test_strategies import RECIPES, TOLERANCE, train


def train_as_workers(overrides, data_dir, count=2, **variables):
    """What each worker prints that trains together with the others."""
    workers = [f"127.0.0.1:{port}" for port in _free_ports(count)]
    overrides = [*overrides, "strategy=multi_worker", f"dataset.data_dir={data_dir}"]
    processes = []
    for index in range(count):
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.worker"], cwd=ROOT, text=True,
            env=environment(TF_NUM_INTRAOP_THREADS="1", **variables), stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        process.stdin.write(json.dumps({"workers": workers, "index": index, "overrides": overrides}))
        process.stdin.close()
        process.stdin = None
        processes.append(process)
    results = []
    for process in processes:
        output, errors = process.communicate(timeout=300)
        assert process.returncode == 0, errors[-3000:]
        results.append(json.loads(output))
    return results


def digest(weights):
    return hashlib.blake2b(b"".join(weight.tobytes() for weight in weights)).hexdigest()


@pytest.mark.parametrize(
    "recipe", [recipe if recipe == "lstm" else pytest.param(recipe, marks=pytest.mark.slow) for recipe in RECIPES]
)
def test_workers_learn_what_replicas_on_one_machine_learn(settings, data_dir, recipe):
    common = (*RECIPES[recipe], "training.epochs=3", "training.restore_best_weights=false")
    one, two = train_as_workers(common, data_dir)
    assert one == two
    mirrored, weights = train(settings(*common, "strategy=mirrored", "strategy.replicas=2"))
    for name in ("epoch/train/loss", "epoch/val/loss"):
        np.testing.assert_allclose(one["metrics"][name], mirrored[name], rtol=TOLERANCE.get(recipe, 1e-4), err_msg=name)
    print(recipe, "bit for bit" if digest(weights) == one["weights"] else "to rounding")
