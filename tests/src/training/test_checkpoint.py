"""A training that was cut short, and goes on, ends as one that was not: the same weights and the same history, bit for bit."""

import dataclasses
import json
import shutil

import keras
import numpy as np
import pytest

from src import datasets
from src.errors import UserError
from src.tasks import registry
from src.training import checkpoint, loop, strategies
from src.training.checkpoint import Keeper, State
from tests.src.training.test_grid import DATASETS, FEW, PAIRS, SMALL, Judge, float32_afterwards  # noqa: F401

FIRST = dict(reversed(PAIRS))  # a task for each recipe
STATE = State(
    1,
    2,
    {"variable/0/0": np.arange(6.0).reshape(2, 3)},
    {"epoch": 1, "step": 2, "variables": [[[2, 3], "float32", 1]], "callbacks": []},
)


@pytest.fixture
def trained(settings, tmp_path, monkeypatch):
    """trained(recipe, task, strategy, *more, since=path): (weights, history) of a training, or of what follows a checkpoint.

    It leaves all its checkpoints in tmp_path: those that it would have left if it had been killed after any of them.
    """
    monkeypatch.setattr(checkpoint, "KEPT", 100)

    def train(recipe, task_name, strategy, *more, since=None):
        chosen = settings(
            f"model={recipe}", f"dataset={DATASETS[task_name]}", f"strategy={strategy}", "dataset.limit=32",
            "training.batch_size=8", "training.epochs=3", *SMALL.get(recipe, []), *FEW.get(task_name, []),
            "checkpoint.every=3", "checkpoint.unit=steps", *more,
        )  # fmt: skip
        data = datasets.load(chosen.dataset)
        loop.prepare(chosen)
        task = registry.create(chosen.task, data, chosen.dataset.limit, judge=Judge())
        model = loop.build(chosen, task, strategies.create(chosen.strategy))
        history = {}
        told = lambda metrics, epoch: history.update({(epoch, name): value for name, value in metrics.items()})  # noqa: E731
        keeper = Keeper(tmp_path / "kept")
        if since:
            shutil.copytree(since.parent, tmp_path / since.stem, ignore=lambda _, names: set(names) - {since.name})
            keeper = Keeper(tmp_path / "afterwards", checkpoint.read(tmp_path / since.stem))
        loop.fit(model, chosen, task, told, keeper=keeper)
        return [keras.ops.convert_to_numpy(weight) for weight in model.weights], history

    return train


def same(whole, rest):
    for a, b in zip(whole[0], rest[0], strict=True):
        np.testing.assert_array_equal(a, b)
    assert rest[1]
    for key, value in rest[1].items():
        if key[1] != "examples_per_second":
            assert value == whole[1][key], key


@pytest.mark.parametrize(
    ("recipe", "strategy"),
    [
        *((recipe, "single") for recipe in sorted(FIRST)),
        *(pytest.param(recipe, "mirrored", marks=[] if recipe == "cnn" else pytest.mark.slow) for recipe in sorted(FIRST)),
    ],
)
def test_what_was_cut_short_ends_as_what_was_not(trained, tmp_path, recipe, strategy):
    more = ("training.ema=0.9", "training.gradient_norm=true", "training.restore_best_weights=true")
    whole = trained(recipe, FIRST[recipe], strategy, *more)
    middle = sorted((tmp_path / "kept").glob("*.npz"))[1]
    same(whole, trained(recipe, FIRST[recipe], strategy, *more, since=middle))


@pytest.mark.parametrize(
    "more",
    [
        ("compression=sparse", "compression.every=1", "training.epochs=6"),
        ("training.precision=mixed_float16",),
        ("training.gradient_accumulation=2",),
        ("training.early_stopping=1", "optimizer.learning_rate=0.3"),
        ("training.steps_per_epoch=3",),
    ],
    ids=lambda more: more[0],
)
def test_whatever_it_has_to_remember(trained, tmp_path, more):
    whole = trained("cnn", "image_classification", "single", *more)
    kept = sorted((tmp_path / "kept").glob("*.npz"))
    assert len(kept) >= 2
    for path in kept:
        same(whole, trained("cnn", "image_classification", "single", *more, since=path))


def test_a_file_is_there_whole_or_not_at_all(tmp_path, monkeypatch):
    checkpoint.write(STATE, tmp_path)
    later = dataclasses.replace(STATE, step=5, facts={**STATE.facts, "step": 5})

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(checkpoint.os, "fsync", full)
        with pytest.raises(OSError, match="No space"):
            checkpoint.write(later, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["000001-00000002.npz"]
    path = checkpoint.write(later, tmp_path)
    assert checkpoint.read(tmp_path).step == 5
    path.write_bytes(path.read_bytes()[:-100])
    assert checkpoint.read(tmp_path).step == 2  # the one before it
    np.testing.assert_array_equal(checkpoint.read(tmp_path).arrays["variable/0/0"], STATE.arrays["variable/0/0"])


def test_old_ones_are_removed(tmp_path):
    for step in range(5):
        checkpoint.write(dataclasses.replace(STATE, step=step, facts={**STATE.facts, "step": step}), tmp_path)
    assert len(list(tmp_path.iterdir())) == checkpoint.KEPT


def test_a_file_runs_no_code(tmp_path):
    class Evil:
        def __reduce__(self):
            return (open, (str(tmp_path / "owned"), "w"))

    facts = np.frombuffer(json.dumps(STATE.facts).encode(), np.uint8)
    np.savez(tmp_path / "1-1.npz", facts=facts, evil=np.array([Evil()], object))
    assert checkpoint.read(tmp_path) is None
    assert not (tmp_path / "owned").exists()


def test_the_checkpoint_of_another_model_is_refused():
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    with pytest.raises(UserError, match="resume=never"):
        checkpoint.restore(STATE, model, [])
