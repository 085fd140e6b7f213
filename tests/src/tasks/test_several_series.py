"""Forecasting of several series: windows of each by itself, against explicit copies, single series, and scikit-learn."""

import re

import keras
import numpy as np
import pytest
from sklearn.linear_model import LinearRegression, Ridge

from recipes import lstm
from src.datasets import Data, Split
from src.datasets.concatenation import parts_of
from src.errors import UserError
from src.evaluate import _with_test_set_of
from src.tasks import factory
from src.tasks.baselines import store
from tests.served import save_and_load

DRAW = np.random.default_rng(0)
LENGTHS = {"train": {"a": 60, "b": 41, "c": 50}, "validation": {"a": 20, "b": 14, "c": 18}, "test": {"a": 21, "b": 13}}
LEVELS = {"a": 0.0, "b": 100.0, "c": -50.0}
WINDOW, HORIZON, SEASON = 6, 3, 4


def random_walk(series, count):
    return LEVELS[series] + DRAW.normal(size=(count, 1)).cumsum(axis=0) + 3 * np.sin(np.arange(count) * np.pi / 2)[:, None]


VALUES = {split: {name: random_walk(name, n) for name, n in of_split.items()} for split, of_split in LENGTHS.items()}


def data(values, lengths=LENGTHS, **fields):
    """A data set of {split: {series: (time, features)}}."""
    splits = [Split(steps, steps) for steps in (np.concatenate(list(of_split.values())) for of_split in values.values())]
    return Data("made", "made:1.0.0", "", *splits, classes=(), series_lengths=lengths, **fields)


SEVERAL = data(VALUES)


def single(name, named=False):
    """The data set of one series alone, which may have a name nevertheless."""
    lengths = {split: {name: of_split[name]} for split, of_split in LENGTHS.items()} if named else {}
    return data({split: {name: of_split[name]} for split, of_split in VALUES.items()}, lengths)


def cut(values, length=WINDOW + HORIZON):
    """All windows of a series with the steps that follow them, copied one by one."""
    return np.array([values[start : start + length] for start in range(len(values) - length + 1)])


@pytest.fixture
def create(settings):
    def with_settings(made, *overrides, limit=None):
        line = ("model=lstm", f"task.window={WINDOW}", f"task.horizon={HORIZON}", f"task.season={SEASON}", *overrides)
        return factory.create(settings(*line).task, made, limit)

    return with_settings


def test_no_window_crosses_from_one_series_or_split_into_another(create):
    task = create(SEVERAL)
    for split, of_split in VALUES.items():
        expected = np.concatenate([cut(values) for values in of_split.values()])
        windows = getattr(task, split)
        assert len(windows) == sum(n - WINDOW - HORIZON + 1 for n in LENGTHS[split].values())
        np.testing.assert_array_equal(windows.inputs, expected[:, :WINDOW])
        np.testing.assert_array_equal(windows.targets, expected[:, WINDOW:])


def test_windows_take_no_memory_of_their_own(create):
    task = create(SEVERAL)
    for array in (task.train.inputs, task.train.targets):
        assert all(np.shares_memory(part, task.series["train"][name]) for name, part in parts_of(array).items())


def test_the_history_of_a_series_is_its_own(create):
    task = create(SEVERAL, "task.include_history=true")
    history = [np.concatenate([VALUES["validation"][name][-WINDOW:], values]) for name, values in VALUES["test"].items()]
    np.testing.assert_array_equal(task.test.inputs, np.concatenate([cut(values)[:, :WINDOW] for values in history]))
    expected = [cut(values, HORIZON) for values in VALUES["test"].values()]
    np.testing.assert_array_equal(task.test.targets, np.concatenate(expected))  # all steps of the split are forecast


@pytest.mark.parametrize("center", ["last", "mean", "train"])
def test_scales_are_those_of_all_windows(create, center):
    task = create(SEVERAL, f"task.center={center}")
    windows = np.concatenate([cut(values)[:, :WINDOW] for values in VALUES["train"].values()])
    middle = {"last": windows[:, -1:], "mean": windows.mean(axis=1, keepdims=True), "train": windows.mean()}[center]
    np.testing.assert_allclose(task.scale, (windows - middle).std(), rtol=1e-9)
    np.testing.assert_allclose(task.deviation, np.concatenate(list(VALUES["train"].values())).std(axis=0), rtol=1e-9)
    changes = [values[SEASON:] - values[:-SEASON] for values in VALUES["train"].values()]
    np.testing.assert_allclose(task.naive_error, np.abs(np.concatenate(changes)).mean(axis=0), rtol=1e-9)


def test_missing_values_are_filled_in_from_their_own_series(create):
    values = {split: {name: steps.copy() for name, steps in of_split.items()} for split, of_split in VALUES.items()}
    for split in values:
        values[split]["b"][[0, 5, 6, -1]] = np.nan
    several, alone = create(data(values)), create(data({split: {"b": of_split["b"]} for split, of_split in values.items()}, {}))
    np.testing.assert_array_equal(parts_of(several.train.inputs)["a"], cut(VALUES["train"]["a"])[:, :WINDOW])
    for split in ("train", "validation", "test"):
        np.testing.assert_array_equal(parts_of(getattr(several, split).inputs)["b"], getattr(alone, split).inputs)
        np.testing.assert_array_equal(parts_of(getattr(several, split).targets)["b"], getattr(alone, split).targets)


def test_the_calendar_is_that_of_each_series(create):
    starts = {"a": "2026-01-01T00", "b": "2026-03-02T13", "c": "2026-05-05T05"}
    times = {
        split: np.concatenate([np.datetime64(starts[name]) + np.arange(n).astype("m8[h]") for name, n in of_split.items()])
        for split, of_split in LENGTHS.items()
    }
    task = create(data(VALUES, times=times), "task.calendar=[hour]")
    hours = [cut((int(starts[name][-2:]) + np.arange(n)) % 24) for name, n in LENGTHS["test"].items()]
    expected = np.concatenate(hours)[:, HORIZON:]  # the calendar is seen as many steps ahead
    np.testing.assert_allclose(23 * (task.test.array[:][..., 1] + 0.5), expected, atol=1e-4)


# --- baselines and metrics


def test_methods_with_a_memory_are_those_of_each_series_alone(create):
    predictions = store.compute(create(SEVERAL)).predictions
    for name in ("repeat_last", "seasonal_naive", "drift", "seasonal_naive_with_drift", "exponential_smoothing", "theta"):
        alone = [store.compute(create(single(series))).predictions[name] for series in LENGTHS["test"]]
        np.testing.assert_allclose(predictions[name], np.concatenate(alone), rtol=1e-6, err_msg=name)


def test_a_single_series_may_have_a_name(create):
    named, nameless = (store.compute(create(single("a", named))).metrics for named in (True, False))
    assert len(named) == 8
    for name, metrics in nameless.items():
        assert named[name] == pytest.approx(metrics), name


def test_regressions_are_fitted_to_the_windows_of_all_series(create):
    task = create(SEVERAL)
    computed = store.compute(task).results
    x, y = np.split(np.concatenate([cut(values)[..., 0] for values in VALUES["train"].values()]), [WINDOW], axis=1)
    test = np.asarray(task.test.array)[..., 0]
    penalty = float(re.fullmatch(r"λ = (\S+)", computed["ridge"].note)[1])
    scale = float(task.scale[0])
    ridge = Ridge(alpha=penalty).fit((x - x[:, -1:]) / scale, (y - x[:, -1:]) / scale)
    expected = test[:, -1:] + scale * ridge.predict((test - test[:, -1:]) / scale)
    np.testing.assert_allclose(computed["ridge"].predictions[..., 0], expected, rtol=1e-4)
    order = int(re.fullmatch(r"p = (\d+)", computed["autoregression"].note)[1])
    pairs = np.concatenate([cut(values, order + 1)[..., 0] for values in VALUES["train"].values()])
    model = LinearRegression().fit(pairs[:, :-1], pairs[:, -1])
    np.testing.assert_allclose(computed["autoregression"].predictions[:, 0, 0], model.predict(test[:, -order:]), rtol=1e-6)


def test_metrics_are_over_all_windows_and_a_table_has_those_of_each_series(create):
    task = create(SEVERAL)
    predictions = np.asarray(task.test.targets) + DRAW.normal(size=task.test.targets.shape)
    errors = np.abs(predictions - np.asarray(task.test.targets))
    assert task.metrics(task.test, predictions)["mae"] == pytest.approx(errors.mean())
    figures = task.figures(None, predictions, store.compute(task).predictions)
    assert set(figures) == {"forecast.png", "error_by_step.png", "series.html"}
    rows = re.findall(r"<tr><td>(\w)</td><td>([\d.]+)</td><td>([\d.]+)</td><td>(\d+)</td></tr>", figures["series.html"])
    counts = {name: n - WINDOW - HORIZON + 1 for name, n in LENGTHS["test"].items()}
    assert [(name, int(count)) for name, _, _, count in rows] == list(counts.items())
    by_series = np.split(errors, np.cumsum(list(counts.values()))[:-1])
    assert [float(value) for _, value, _, _ in rows] == pytest.approx([own.mean() for own in by_series], abs=1e-4)
    table = task.example_results(task.test, predictions)
    assert [np.abs(table["forecast"] - table["target"])[table["series"] == name].mean() for name in counts] == pytest.approx(
        [own.mean() for own in by_series]
    )


def test_quantiles_of_several_series(create):
    task = create(SEVERAL, "task.name=quantile_forecasting")
    computed = store.compute(task)
    assert set(computed.results) == {"repeat_last", "seasonal_naive", "ridge", "autoregression"}
    errors = [cut(values)[:, WINDOW:] - cut(values)[:, [WINDOW - 1]] for values in VALUES["validation"].values()]
    quantiles = np.quantile(np.concatenate(errors), task.levels, axis=0)
    last = np.concatenate([cut(values)[:, [WINDOW - 1]] for values in VALUES["test"].values()])
    expected = last[..., None] + np.moveaxis(quantiles, 0, -1)
    np.testing.assert_allclose(computed.predictions["repeat_last"], expected)
    page = task.figures(None, computed.predictions["ridge"], {})["series.html"]
    assert "<th>crps (" in page
    assert page.count("<tr>") == 3


# --- models


def test_the_model_of_several_series_is_served(create, tmp_path):
    task = create(SEVERAL)
    keras.utils.set_random_seed(0)
    model = task.build_model(lstm.build, {"units": 4})
    predictions = task.predict(model, task.test, 8)
    served = save_and_load(task, model, tmp_path).predict(np.asarray(task.test.array))
    np.testing.assert_allclose(served["forecast"], predictions, rtol=1e-5)


def test_limit_takes_the_first_windows(create):
    task = create(SEVERAL, limit=15)
    assert {name: len(part) for name, part in parts_of(task.test.targets).items()} == {"a": 13, "b": 2}
    assert {len(result.predictions) for result in store.compute(task).results.values()} == {15}
    np.testing.assert_array_equal(task.test.inputs, create(SEVERAL).test.array[:15])


# --- what cannot be


def test_a_series_that_is_too_short_is_named(create):
    with pytest.raises(UserError) as raised:
        create(SEVERAL, "task.window=11")
    assert str(raised.value) == (
        "The test split of the series 'b' has 13 steps, too few for task.window=11 and task.horizon=3; type a smaller window "
        "or a larger dataset.splits.test, or leave the series out of the data."
    )


def test_a_series_without_a_past_is_named(create):
    unknown = {"train": {"a": 60, "c": 91}, "validation": {"a": 20, "c": 32}, "test": {"a": 21, "b": 13}}
    with pytest.raises(UserError, match=r"^The test split of dataset=made has a series 'b', which the validation split has n"):
        create(data(VALUES, unknown))


def test_a_series_without_a_value_is_named(create):
    values = {**VALUES, "test": {"a": VALUES["test"]["a"], "b": np.full((13, 1), np.nan)}}
    with pytest.raises(UserError, match=r"^A feature of the series 'b' of the test split of dataset=made holds no number at"):
        create(data(values))


def test_another_test_set_brings_its_own_series():
    swapped = {split: {name: of_split[name] for name in reversed(of_split)} for split, of_split in VALUES.items()}
    lengths = {split: {name: len(values) for name, values in of_split.items()} for split, of_split in swapped.items()}
    joined = _with_test_set_of(data(swapped, lengths), SEVERAL)
    assert joined.series_lengths == {**lengths, "train": LENGTHS["train"]}
    assert list(joined.by_series("test", joined.test.array)) == ["b", "a"]
