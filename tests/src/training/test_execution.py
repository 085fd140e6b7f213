"""Executions of several steps: they change no result, and end where an epoch, or a run, has to."""

import keras
import numpy as np
import pytest

from src.errors import UserError
from src.tasks import factory
from src.training import checkpoint, loop, strategies
from src.training.checkpoint import CheckpointManager
from src.training.execution import Execution

STEPS = 11  # of an epoch: a prime, so that executions of several steps do not divide it


@pytest.fixture
def fitted(settings, load, tmp_path):
    """fitted(recipe, *more, resumed=state): weights, metrics and the callback of a run of two epochs."""

    def fit(recipe, *more, resumed=None):
        small = {"cnn": ("dataset=digits", "model.filters=[8,8]"), "lstm": ("dataset=co2", "model.units=8")}[recipe]
        run_settings = settings(
            f"model={recipe}", *small, "training.epochs=2", f"training.steps_per_epoch={STEPS}", "training.batch_size=8", *more
        )
        data = load("digits" if recipe == "cnn" else "co2")
        loop.prepare(run_settings)
        task = factory.create(run_settings.task, data)
        model = loop.build(run_settings, task, strategies.create(run_settings.strategy))
        history = []
        loop.fit(
            model, run_settings, task, lambda metrics, epoch: history.append(metrics),
            checkpoints=CheckpointManager(tmp_path / "checkpoints", resumed),
        )  # fmt: skip
        assert int(keras.ops.convert_to_numpy(model.optimizer.iterations)) == 2 * STEPS
        for metrics in history:
            del metrics["examples_per_second"]
        return [keras.ops.convert_to_numpy(weight) for weight in model.weights], history

    return fit


def assert_same(one, other):
    assert one[1] == other[1]
    for a, b in zip(one[0], other[0], strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    ("recipe", "strategy"),
    [("cnn", "single"), pytest.param("cnn", "mirrored", marks=pytest.mark.slow), ("lstm", "mirrored"), ("lstm", "single")],
)
def test_the_number_of_steps_changes_no_bit(fitted, recipe, strategy):
    """With dropout, augmentation and batch normalization, which draw and keep numbers at each step."""
    strategy = f"strategy={strategy}"
    single_steps = fitted(recipe, strategy, "training.steps_per_execution=1")
    assert_same(single_steps, fitted(recipe, strategy, "training.steps_per_execution=3"))
    assert_same(single_steps, fitted(recipe, strategy))  # measured


def test_a_run_with_another_number_of_steps_is_the_same_run(settings):
    one, other = settings("model=cnn"), settings("model=cnn", "training.steps_per_execution=3")
    assert (one.digest(), one.fingerprint()) == (other.digest(), other.fingerprint())


def test_a_run_resumes_within_what_is_now_one_execution(fitted, tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "MAX_TO_KEEP", 100)
    whole = fitted("cnn", "checkpoint.every=1", "checkpoint.unit=steps")
    for path in sorted((tmp_path / "checkpoints").glob("*.npz")):
        if path.stem != "000001-00000004":
            path.unlink()
    state = checkpoint.read(tmp_path / "checkpoints")
    weights, history = fitted("cnn", "training.steps_per_execution=3", resumed=state)
    assert_same((whole[0], whole[1][1:]), (weights, history))


def test_an_execution_ends_with_the_step_that_is_not_finite(fitted):
    with pytest.raises(UserError, match=r"in epoch 1, step 2; "):
        fitted(
            "cnn", "optimizer=sgd", "optimizer.learning_rate=1e30", "optimizer.warmup=0", "model.normalization=false",
            "training.steps_per_execution=5",
        )  # fmt: skip


def test_measuring_leaves_the_training_state_as_it_is(settings, load):
    run_settings = settings("model=cnn", "model.filters=[8,8]", "dataset.limit=64", "training.batch_size=8")
    loop.prepare(run_settings)
    task = factory.create(run_settings.task, load("digits"), 64)
    model = loop.build(run_settings, task, strategies.create(run_settings.strategy))
    variables = [*model.variables, *model.optimizer.variables]
    before = [keras.ops.convert_to_numpy(variable) for variable in variables]
    batches = loop.pipeline.training(task.train, 8, seed=0)
    assert Execution(model, steps=8).measure(batches) >= 1
    for variable, value in zip(variables, before):
        np.testing.assert_array_equal(keras.ops.convert_to_numpy(variable), value)


@pytest.mark.parametrize(
    ("every", "measured", "size"),
    [(5, 100, 5), (4, 100, 4), (20, 6, 5), (1, 100, 1), (7, 100, 1)],
    ids=str,
)
def test_executions_end_where_checkpoints_are_due(settings, every, measured, size):
    """The largest number of steps that divides the interval and the 20 steps of an epoch."""
    run_settings = settings("model=cnn", f"checkpoint.every={every}", "checkpoint.unit=steps")

    class Measured:
        steps = 20  # of an epoch
        measure = staticmethod(lambda batches: measured)

    assert loop._execution_size(run_settings, Measured, lambda: None, None) == size


def test_what_happens_between_two_steps_needs_executions_of_one(settings):
    def size(*overrides):
        run_settings = settings("model=cnn", "training.steps_per_execution=10", *overrides)
        execution = type("Steps", (), {"steps": 20})
        return loop._execution_size(run_settings, execution, lambda: None, None)

    assert size() == 10
    assert size("compression=sparse") == 1
    assert size("training.profile=true") == 1
    assert size("training.steps_per_epoch=null", "checkpoint.every=null", "checkpoint.unit=steps") == 10
