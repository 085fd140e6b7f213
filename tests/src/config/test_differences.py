"""Names of runs and sweeps: short, and different where the settings are."""

import itertools

import pytest

from src.config import differences


@pytest.mark.parametrize(
    ("overrides", "name"),
    [
        (["model=lstm"], "lstm-seed0"),
        (["model=lstm", "seed=3", "tracking.log_model=false", "checkpoint.every=5"], "lstm-seed3"),
        (["model=lstm", "model.units=128"], "lstm-units=128-seed0"),
        (["model=lstm", "training.epochs=3"], "lstm-training.epochs=3-seed0"),  # not dataset.epochs
        (["model=lstm", "dataset=sunspots"], "lstm-sunspots-seed0"),
        (["model=lstm", "dataset=sunspots", "dataset.limit=64"], "lstm-sunspots-limit=64-seed0"),
        (["model=lstm", "optimizer=sgd"], "lstm-optimizer=sgd-seed0"),
        (["model=cnn", "strategy=mirrored", "model.filters=[4,8]"], "cnn-strategy=mirrored-filters=4,8-seed0"),
        (["model=cnn", "model.augmentation=0", "training.jit_compile=true"], "cnn-augmentation=0-jit_compile=true-seed0"),
        (["experiment=cnn_mnist"], "cnn_mnist-seed0"),
        (["experiment=cnn_mnist", "training.batch_size=32"], "cnn_mnist-batch_size=32-seed0"),
        (["model=cnn", "dataset.storage=disk"], "cnn-seed0"),  # the same numbers
        (["model=cnn", "training.steps_per_execution=5"], "cnn-seed0"),
    ],
)
def test_a_run_is_named_by_what_is_special_about_it(settings, overrides, name):
    run_settings = settings(*overrides)
    assert differences.run_name(run_settings) == name


def test_different_settings_have_different_names_also_where_these_are_shortened(settings):
    close = [f"optimizer.learning_rate=0.001234567890123{digit}" for digit in range(3)]
    slices = [f'dataset.splits.train="train[{start}:64]"' for start in range(2)]
    many = ["model.units=8", "model.layers=2", "model.dropout=0.1", "training.ema=0.9", "optimizer.clip_norm=2.0"]
    changes = [[*several, *one] for several, one in itertools.product([[], many], [[], *([each] for each in close + slices)])]
    names = [differences.run_name(settings("model=lstm", *change)) for change in changes]
    assert len(set(names)) == len(changes) == 12
    assert max(map(len, names)) <= 100
    assert names[1].startswith("lstm-learning_rate=0.001235-")
    assert names[1] == differences.run_name(settings("model=lstm", close[0]))  # the same every time
    assert "-and1more-" in names[6]


def test_a_recipe_without_a_file_is_named_all_the_same(settings):
    mine = settings("model=lstm")
    mine = mine.model_copy(update={"model": mine.model.model_copy(update={"name": "mine"})})
    assert differences.run_name(mine).startswith("mine-")


def test_a_sweep_is_named_by_what_was_typed():
    typed = ["model=cnn,lstm", "training.epochs=3", "hydra/launcher=joblib", "tracking.register=best", "seed=0,1"]
    assert differences.sweep_name("sweep", typed) == "sweep-model=cnn,lstm-seed=0,1-epochs=3"
    ranges = ["model=cnn", "'optimizer.learning_rate=tag(log,interval(1e-4,1e-1))'"]
    other = ["model=cnn", "'optimizer.learning_rate=tag(log,interval(1e-4,1e-2))'"]
    assert differences.sweep_name("search", ranges) != differences.sweep_name("search", other)


def test_short_names_are_unambiguous():
    names = differences.short_names(["model.units", "training.epochs", "dataset.epochs", "seed", "dataset.splits.train"])
    assert names == {
        "model.units": "units", "training.epochs": "training.epochs", "dataset.epochs": "dataset.epochs", "seed": "seed",
        "dataset.splits.train": "train",
    }  # fmt: skip


def test_settings_that_only_some_have_differ():
    assert differences.differing([{"a": 1, "b": 2}, {"a": 1, "b": 3}, {"a": 1, "c": None}]) == ["b", "c"]
