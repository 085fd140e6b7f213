"""A run that is interrupted and resumed ends as an uninterrupted one: the same weights and the same history, bit for bit."""

import dataclasses
import json
import shutil

import keras
import numpy as np
import pytest

from src import datasets
from src.errors import UserError
from src.tasks import factory
from src.training import checkpoint, loop, strategies
from src.training.checkpoint import CheckpointManager, TrainingState
from tests.src.training.test_grid import DATASETS, FEW, PAIRS, SMALL, FakeReferenceClassifier, float32_afterwards  # noqa: F401

FIRST = dict(reversed(PAIRS))  # a task for each recipe
STATE = TrainingState(
    1,
    2,
    {"variable/0/0": np.arange(6.0).reshape(2, 3)},
    {"epoch": 1, "step": 2, "variables": [[[2, 3], "float32", 1]], "callbacks": []},
)


@pytest.fixture
def trained(settings, tmp_path, monkeypatch):
    """trained(recipe, task, strategy, *more, since=path): (weights, history) of a run, new or resumed from a checkpoint.

    All its checkpoints stay in tmp_path: each is what there would be if the run had been killed after it.
    """
    monkeypatch.setattr(checkpoint, "MAX_TO_KEEP", 100)

    def train(recipe, task_name, strategy, *more, since=None):
        run_settings = settings(
            f"model={recipe}", f"dataset={DATASETS[task_name]}", f"strategy={strategy}", "dataset.limit=32",
            "training.batch_size=8", "training.epochs=3", *SMALL.get(recipe, []), *FEW.get(task_name, []),
            "checkpoint.every=3", "checkpoint.unit=steps", *more,
        )  # fmt: skip
        data = datasets.load(run_settings.dataset)
        loop.prepare(run_settings)
        task = factory.create(
            run_settings.task, data, run_settings.dataset.limit, reference_classifier=FakeReferenceClassifier()
        )
        model = loop.build(run_settings, task, strategies.create(run_settings.strategy))
        history = {}
        log_metrics = lambda metrics, epoch: history.update({(epoch, name): value for name, value in metrics.items()})  # noqa: E731
        manager = CheckpointManager(tmp_path / "kept")
        if since:
            shutil.copytree(since.parent, tmp_path / since.stem, ignore=lambda _, names: set(names) - {since.name})
            manager = CheckpointManager(tmp_path / "afterwards", checkpoint.read(tmp_path / since.stem))
        loop.fit(model, run_settings, task, log_metrics, checkpoints=manager)
        return [keras.ops.convert_to_numpy(weight) for weight in model.weights], history

    return train


def assert_same(whole, resumed):
    for a, b in zip(whole[0], resumed[0], strict=True):
        np.testing.assert_array_equal(a, b)
    assert resumed[1]
    for key, value in resumed[1].items():
        if key[1] != "examples_per_second":
            assert value == whole[1][key], key


QUICK = {("cnn", "mirrored"), ("gan", "single"), ("lstm", "single")}


@pytest.mark.parametrize(
    ("recipe", "strategy"),
    [
        pytest.param(recipe, strategy, marks=[] if (recipe, strategy) in QUICK else pytest.mark.slow)
        for strategy in ("single", "mirrored")
        for recipe in sorted(FIRST)
    ],
)
def test_a_resumed_run_ends_as_an_uninterrupted_one(trained, tmp_path, recipe, strategy):
    more = ("training.ema=0.9", "training.gradient_norm=true", "training.restore_best_weights=true")
    whole = trained(recipe, FIRST[recipe], strategy, *more)
    middle = sorted((tmp_path / "kept").glob("*.npz"))[1]
    assert_same(whole, trained(recipe, FIRST[recipe], strategy, *more, since=middle))


@pytest.mark.parametrize(
    "more",
    [
        ("compression=sparse", "compression.every=1", "training.epochs=4"),
        ("training.precision=mixed_float16", "training.gradient_accumulation=2"),
        ("training.early_stopping=1", "optimizer.learning_rate=0.3", "training.steps_per_epoch=3"),
    ],
    ids=lambda more: more[0],
)
def test_all_training_state_is_restored(trained, tmp_path, more):
    whole = trained("cnn", "image_classification", "single", *more)
    files = sorted((tmp_path / "kept").glob("*.npz"))
    assert len(files) >= 2
    for path in files:
        assert_same(whole, trained("cnn", "image_classification", "single", *more, since=path))


def test_files_are_written_atomically(tmp_path, monkeypatch):
    checkpoint.write(STATE, tmp_path)
    later = dataclasses.replace(STATE, step=5, metadata={**STATE.metadata, "step": 5})

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


def test_old_files_are_removed(tmp_path):
    for step in range(5):
        checkpoint.write(dataclasses.replace(STATE, step=step, metadata={**STATE.metadata, "step": step}), tmp_path)
    assert len(list(tmp_path.iterdir())) == checkpoint.MAX_TO_KEEP


def test_reading_a_file_runs_no_code(tmp_path):
    class Evil:
        def __reduce__(self):
            return (open, (str(tmp_path / "owned"), "w"))

    metadata = np.frombuffer(json.dumps(STATE.metadata).encode(), np.uint8)
    np.savez(tmp_path / "1-1.npz", facts=metadata, evil=np.array([Evil()], object))
    assert checkpoint.read(tmp_path) is None
    assert not (tmp_path / "owned").exists()


def test_checkpoint_of_another_model_is_rejected():
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    with pytest.raises(UserError, match="resume=never"):
        checkpoint.restore(STATE, model, [])
