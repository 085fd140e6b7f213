"""Forecasting without leakage: windows within splits, scales of the training set alone; metrics by hand."""

import keras
import numpy as np
import pytest

from recipes import lstm
from src.datasets import Data, Split
from src.errors import UserError
from src.tasks import factory, forecast_baselines
from src.tasks.baselines import store
from src.tasks.gaps import fill_gaps
from src.tasks.losses import StandardizedSquaredError
from tests.figures import overflowing, overlapping_ticks


def data(train, validation, test):
    splits = (Split(np.asarray(split, np.float32), np.asarray(split, np.float32)) for split in (train, validation, test))
    return Data("made", "made:1.0.0", "", *splits, classes=())


@pytest.fixture
def create(settings):
    def with_settings(made, *overrides):
        return factory.create(settings("model=lstm", "task.window=6", "task.horizon=3", "task.season=4", *overrides).task, made)

    return with_settings


COUNTING = data(np.arange(0, 30), np.arange(30, 50), np.arange(50, 70))


def test_every_window_lies_within_one_split(create):
    task = create(COUNTING)
    for split, first, last in ((task.train, 0, 30), (task.validation, 30, 50), (task.test, 50, 70)):
        assert len(split) == last - first - 9 + 1
        seen = np.concatenate([split.inputs, split.targets], axis=1)[..., 0]
        np.testing.assert_array_equal(seen, np.arange(first, last - 8)[:, None] + np.arange(9))


def test_windows_take_no_memory_of_their_own(create):
    task = create(COUNTING, "task.include_history=true")
    for name, split in (("train", task.train), ("validation", task.validation), ("test", task.test)):
        assert np.shares_memory(split.inputs, task.series[name][""])
        assert np.shares_memory(split.targets, task.series[name][""])


def test_chunks_change_nothing(create, monkeypatch):
    series = np.random.default_rng(0).normal(size=(3, 200)).cumsum(axis=1)
    series[0, 50] = np.nan
    whole = create(data(*series))
    monkeypatch.setattr(forecast_baselines, "CHUNK", 50)
    parts = create(data(*series))
    assert whole.loss().get_config() == parts.loss().get_config()
    for name, metrics in store.compute(whole).metrics.items():
        assert store.compute(parts).metrics[name] == pytest.approx(metrics), name


def test_include_history_forecasts_the_whole_split(create):
    task = create(COUNTING, "task.include_history=true")
    for split, first, last in ((task.train, 6, 30), (task.validation, 30, 50), (task.test, 50, 70)):
        np.testing.assert_array_equal(split.targets[:, 0, 0], np.arange(first, last - 2))
        np.testing.assert_array_equal(split.inputs[:, -1, 0], split.targets[:, 0, 0] - 1)
    for made in (create(COUNTING), task):  # a straight line, which these forecast exactly
        measured = store.compute(made).metrics
        for name in ("drift", "autoregression", "ridge", "exponential_smoothing", "seasonal_naive_with_drift", "theta"):
            assert measured[name]["mae"] == pytest.approx(0, abs=1.2 if name == "theta" else 1e-2), name


@pytest.mark.parametrize("center", ["last", "mean", "train"])
def test_scales_come_from_the_training_set_only(create, center):
    wild = data(COUNTING.train.inputs, COUNTING.validation.inputs * 1000, COUNTING.test.inputs * -1000)
    tame, wild = create(COUNTING, f"task.center={center}"), create(wild, f"task.center={center}")
    np.testing.assert_array_equal(tame.scale, wild.scale)
    np.testing.assert_array_equal(tame.naive_error, wild.naive_error)


def test_metrics_by_hand(create):
    task = create(COUNTING)
    result = task.metrics(task.test, task.test.targets + np.array([1.0, -2.0, 3.0])[None, :, None])
    # The series rises by 1 a step, so the seasonal naive forecast is 4 too low everywhere, in training too.
    sd = np.arange(30).std()
    expected = {"mae": 2.0, "rmse": np.sqrt(14 / 3), "mase": 2 / 4, "skill": 1 - 2 / 4}
    assert result == pytest.approx(expected | {"standardized_mae": 2 / sd, "standardized_mse": 14 / 3 / sd**2})


def test_the_seasonal_naive_forecast_repeats_the_last_season(create):
    season = np.tile([1.0, 5.0, 2.0, 7.0], 20)
    task = create(data(season[:40], season[40:60], season[60:]), "task.horizon=7")
    assert store.compute(task).metrics["seasonal_naive"]["mae"] == 0


def test_exponential_smoothing_forecasts_the_windows_it_is_scored_on(create):
    time = np.arange(120)
    straight = 3.0 + 0.5 * time + np.array([2, -1, 4, -5])[time % 4]
    task = create(data(straight[:60], straight[60:90], straight[90:]))
    assert store.compute(task).metrics["exponential_smoothing"]["mae"] < 0.05


def test_gaps_are_filled_from_what_is_known_at_the_end_of_the_window():
    nan = np.nan
    series = np.array([nan, 1, nan, 3, nan, nan, 9, nan], np.float32)[:, None]
    expected = [
        [1, 1, 1],  # the third value is not known to lie between 1 and 3 before 3 has come
        [1, 2, 3],
        [2, 3, 3],
        [3, 3, 3],
        [5, 7, 9],  # a gap between two known values is interpolated, also where it begins before the window
        [7, 9, 9],
    ]
    np.testing.assert_array_equal(fill_gaps(series, 3, np.array([5.0]))[..., 0], expected)
    np.testing.assert_array_equal(fill_gaps(series, 1, np.array([5.0]))[0, 0], [5])  # nothing is known yet


def test_inputs_do_not_reveal_targets(create):
    """Other values after the end of a window do not change it."""
    draw = np.random.default_rng(0)
    one = draw.normal(size=60).astype(np.float32)
    one[draw.random(60) < 0.6] = np.nan
    other = one.copy()
    other[40:] = np.where(np.isnan(one[40:]), np.nan, 100.0)
    mean = np.zeros(1)
    ends = np.arange(6 - 1, 60)
    before, after = (fill_gaps(series[:, None], 6, mean) for series in (one, other))
    np.testing.assert_array_equal(before[ends < 40], after[ends < 40])
    assert not np.array_equal(before, after)


@pytest.mark.parametrize("center", ["last", "mean", "train"])
def test_predictions_are_in_the_unit_of_the_series(create, center):
    draw = np.random.default_rng(0).normal(400, 20, 60).cumsum() / 100
    task = create(data(draw[:30], draw[30:45], draw[45:]), f"task.center={center}", "task.linear=false")
    keras.utils.set_random_seed(0)
    model = task.build_model(lstm.build, {"units": 4})
    network = lstm.build(task.inputs, task.outputs, units=4)
    network.set_weights(model.get_weights())
    x = task.test.inputs.astype(np.float64)
    middle = {"last": x[:, -1:], "mean": x.mean(axis=1, keepdims=True), "train": task.train.inputs.astype(np.float64).mean()}[
        center
    ]
    expected = keras.ops.convert_to_numpy(network((x - middle) / task.scale)) * task.scale + middle
    np.testing.assert_allclose(keras.ops.convert_to_numpy(model(task.test.inputs)), expected, rtol=1e-4)


def test_a_linear_model_of_the_window_is_added_to_the_network(create):
    draw = np.random.default_rng(0)
    task = create(data(*np.split(draw.normal(400, 20, (60, 2)), [30, 45])), "task.linear=true")
    model = task.build_model(lstm.build, {"units": 4})
    kernel, bias = model.get_layer("linear").weights
    np.testing.assert_array_equal(kernel, np.zeros((6, 3)))  # at first, the network alone
    for weight in (kernel, bias):
        weight.assign(draw.normal(size=weight.shape))
    for weight in model.get_layer("lstm").get_layer("steps_ahead").weights:
        weight.assign(keras.ops.zeros_like(weight))  # the linear model alone
    x = task.test.inputs.astype(np.float64)
    scaled = (x - x[:, -1:]) / task.scale
    linear = np.einsum("bwf,wh->bhf", scaled, kernel.numpy()) + bias.numpy()[:, None]
    np.testing.assert_allclose(model.predict(task.test.inputs, verbose=0), linear * task.scale + x[:, -1:], rtol=1e-5)


def test_half_precision_keeps_the_accuracy_of_the_series(create, settings, load):
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        task = factory.create(settings("model=lstm").task, load("co2"))
        model = task.build_model(lstm.build, {"units": 4})
        for weight in model.get_layer("lstm").get_layer("steps_ahead").weights:
            weight.assign(keras.ops.zeros_like(weight))  # then the forecast is the last value, 26 times
        np.testing.assert_array_equal(
            model.predict(task.test.inputs[:3], verbose=0), np.repeat(task.test.inputs[:3, -1:], 26, axis=1)
        )
    finally:
        keras.config.set_dtype_policy("float32")


def test_the_loss_does_not_depend_on_the_unit():
    target, prediction = np.random.default_rng(0).normal(size=(2, 5, 3, 2))
    one = StandardizedSquaredError([2.0, 3.0])(target, prediction)
    np.testing.assert_allclose(one, np.mean(((target - prediction) / [2.0, 3.0]) ** 2), rtol=1e-6)
    np.testing.assert_allclose(StandardizedSquaredError([2000.0, 3000.0])(1000 * target, 1000 * prediction), one, rtol=1e-5)


def test_a_too_short_split_is_reported_in_one_sentence(create):
    with pytest.raises(UserError, match=r"The test split has 8 steps, too few for task.window=6 and task.horizon=3"):
        create(data(np.arange(30), np.arange(20), np.arange(8)))
    with pytest.raises(UserError, match="holds no number at all"):
        create(data(np.arange(30), np.full(20, np.nan), np.arange(20)))


def test_figures_are_drawn(create, tmp_path):
    task = create(COUNTING)
    baselines = store.compute(task)
    figures = task.figures(None, task.test.targets + 0.5, baselines.predictions)
    for name, figure in figures.items():
        figure.savefig(tmp_path / name)
        assert not overflowing(figure)
        assert not overlapping_ticks(figure)
    assert {path.name for path in tmp_path.iterdir()} == {"forecast.png", "error_by_step.png"}
    panel, (errors,) = figures["forecast.png"].axes[0], figures["error_by_step.png"].axes
    past, target, baseline, model = panel.lines[1:]
    for line in (target, baseline, model):  # the forecast of the next step is at 1 in both figures, and there is no gap
        np.testing.assert_array_equal(line.get_xdata()[:2], [past.get_xdata()[-1], 1])
        assert line.get_ydata()[0] == past.get_ydata()[-1] == task.test.inputs[0, -1, 0]
    np.testing.assert_array_equal(errors.lines[0].get_xdata(), np.arange(1, task.outputs.horizon + 1))
    np.testing.assert_allclose(errors.lines[0].get_ydata(), 0.5, rtol=1e-5)
    strongest = min(baselines.metrics.items(), key=lambda item: item[1]["mae"])[0]
    assert baseline.get_label() == f"baseline: {strongest.replace('_', ' ')}"
    assert errors.get_ylabel() == f"mean absolute error ({task.settings.unit})"
    assert errors.get_xlabel() == f"{task.settings.time_unit}s ahead"


def test_baselines_that_would_take_too_long_are_skipped(create, monkeypatch):
    monkeypatch.setattr(forecast_baselines, "MAX_STEPS", 10)
    monkeypatch.setattr(forecast_baselines, "MAX_PRODUCTS", 100)
    result = store.compute(create(COUNTING))
    assert set(result.metrics) == {"repeat_last", "drift", "seasonal_naive", "seasonal_naive_with_drift"}
    assert result.skipped == {
        "ridge": "7.9e+02 multiplications for each λ are more than 1.0e+02",
        "autoregression": "30 steps times features are more than 10",
        **dict.fromkeys(("exponential_smoothing", "theta"), "70 steps times features are more than 10"),
    }


def test_limit_takes_the_first_windows(settings, load):
    task = factory.create(settings("model=lstm").task, load("co2"), limit=7)
    assert [len(task.train), len(task.validation), len(task.test)] == [7, 7, 7]
    assert {len(result.predictions) for result in store.compute(task).results.values()} == {7}
