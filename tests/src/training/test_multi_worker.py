"""Training on several machines, here several processes, gives the results of training on one."""

import numpy as np
import pytest

from tests import worker
from tests.src.training.test_strategies import RECIPES, TOLERANCE, train

FEWER = {"lstm": ("model.units=8", "dataset.limit=256")}  # examples, for the test that is not slow
LSTM = (*RECIPES["lstm"], "model.units=8", "dataset.limit=128", "training.epochs=1")


@pytest.mark.parametrize(
    "recipe", [recipe if recipe == "lstm" else pytest.param(recipe, marks=pytest.mark.slow) for recipe in RECIPES]
)
def test_workers_learn_what_replicas_on_one_machine_learn(settings, data_dir, recipe):
    """With the same random numbers, too: those of a replica follow from its number."""
    common = (*RECIPES[recipe], "training.epochs=2", "training.restore_best_weights=false", *FEWER.get(recipe, ()))
    one, two = worker.train((*common, f"dataset.data_dir={data_dir}"))
    assert one["weights"] == two["weights"]
    assert one["metrics"] == two["metrics"]
    mirrored, _ = train(settings(*common, "strategy=mirrored", "strategy.replicas=2"))
    for name in ("epoch/train/loss", "epoch/val/loss"):
        np.testing.assert_allclose(one["metrics"][name], mirrored[name], rtol=TOLERANCE.get(recipe, 1e-4), err_msg=name)


@pytest.mark.slow
@pytest.mark.parametrize(("workers", "devices"), [(4, 1), (2, 2)])
@pytest.mark.parametrize("recipe", ["cnn", "lstm"])
def test_workers_of_any_size_learn_what_one_device_learns(settings, data_dir, recipe, workers, devices):
    common = (*RECIPES[recipe], "training.epochs=2", "training.restore_best_weights=false", *FEWER.get(recipe, ()))
    results = worker.train((*common, f"dataset.data_dir={data_dir}"), workers, devices)
    assert len({result["weights"] for result in results}) == 1
    single, _ = train(settings(*common, "strategy=single"))
    for name in ("epoch/train/loss", "epoch/val/loss"):
        np.testing.assert_allclose(results[0]["metrics"][name], single[name], rtol=TOLERANCE.get(recipe, 1e-4), err_msg=name)


@pytest.mark.slow
def test_the_same_command_gives_the_same_weights(data_dir):
    dropout = (*LSTM, "model.dropout=0.3", f"dataset.data_dir={data_dir}")
    assert worker.train(dropout)[0]["weights"] == worker.train(dropout)[0]["weights"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("unpatched", "error"),
    [
        ("_collective_all_reduce_multi_worker", "Invalid reduction dimension 0 for input with 0 dimensions"),
        ("_maybe_symbolic_build", "PerReplica'>\\) to a Tensor"),
    ],
)
def test_unpatched_keras_does_not_train_on_several_workers(data_dir, unpatched, error):
    """The reason for each of the two patches: when this fails, Keras has changed and the patch can be removed."""
    with pytest.raises(RuntimeError, match=error):
        worker.train((*LSTM, f"dataset.data_dir={data_dir}"), unpatched=unpatched)
