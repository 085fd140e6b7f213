"""Quantile forecasting: losses and scores against closed forms of the normal distribution, calibration, baselines, serving."""

import keras
import numpy as np
import pytest
from scipy import stats

from recipes import lstm
from src import uncertainty
from src.datasets import Data, Split
from src.errors import UserError
from src.tasks import factory
from src.tasks.baselines import store
from src.tasks.losses import MedianError, PinballLoss
from tests.figures import overflowing
from tests.served import save_and_load

LINE = ("model=lstm", "task.name=quantile_forecasting", "task.window=6", "task.horizon=3", "task.season=4")
LEVELS = (0.1, 0.25, 0.5, 0.75, 0.9)


def data(*splits):
    splits = (Split(np.asarray(split, np.float32), np.asarray(split, np.float32)) for split in splits)
    return Data("made", "made:1.0.0", "", *splits, classes=())


@pytest.fixture
def create(settings):
    return lambda made, *overrides: factory.create(settings(*LINE, *overrides).task, made)


NOISE = data(*np.split(np.random.default_rng(0).normal(0, 2, 8_000), [4_000, 6_000]))


def of_normal(levels, shape, scale=2.0):
    """The quantiles of the normal distribution, the same for each value of an array."""
    return np.broadcast_to(stats.norm.ppf(levels, scale=scale), (*shape, len(levels)))


def test_the_loss_is_that_of_scikit_learn():
    draw = np.random.default_rng(0)
    targets, quantiles = draw.normal(size=(4, 3, 2)), draw.normal(size=(4, 3, 2, 2))
    scale = np.array([1.0, 5.0])
    errors = (targets[..., None] - quantiles) / scale[:, None]
    expected = np.mean([2 * np.where(errors[..., i] > 0, q, q - 1) * errors[..., i] for i, q in enumerate((0.2, 0.5))])
    np.testing.assert_allclose(PinballLoss((0.2, 0.5), scale.tolist())(targets, quantiles), expected, rtol=1e-6)
    absolute = np.abs(targets - quantiles[..., 1]) / scale
    np.testing.assert_allclose(PinballLoss((0.5,), scale.tolist())(targets, quantiles[..., 1:]), absolute.mean(), rtol=1e-6)


def test_a_linear_model_of_the_window_is_added_to_each_quantile(create):
    draw = np.random.default_rng(0)
    task = create(data(*np.split(draw.normal(0, 2, (60, 2)), [30, 45])), "task.linear=true")
    model = task.build_model(lstm.build, {"units": 4})
    kernel = model.get_layer("linear").kernel
    kernel.assign(draw.normal(size=kernel.shape))
    for weight in model.get_layer("lstm").get_layer("steps_ahead").weights:
        weight.assign(keras.ops.zeros_like(weight))
    x = task.test.inputs
    scaled = (x - x[:, -1:]) / task.scale
    linear = np.einsum("bwf,whq->bhfq", scaled, kernel.numpy().reshape(6, 3, 5))
    expected = np.sort(linear, axis=-1) * task.scale[:, None] + x[:, -1:][..., None]
    np.testing.assert_allclose(model.predict(x, verbose=0), expected, rtol=1e-4, atol=1e-4)


def test_missing_targets_have_no_loss():
    draw = np.random.default_rng(0)
    targets, quantiles = draw.normal(size=(4, 3, 1)), draw.normal(size=(4, 3, 1, 2))
    whole = PinballLoss((0.2, 0.5), [1.0])(targets, quantiles)
    twice = np.concatenate([targets, np.full_like(targets, np.nan)])
    half = PinballLoss((0.2, 0.5), [1.0], observed=0.5)(twice, np.concatenate([quantiles, quantiles]))
    np.testing.assert_allclose(half, whole, rtol=1e-6)
    metric = MedianError(1, name="mae")
    metric.update_state(twice, np.concatenate([quantiles, quantiles]))
    np.testing.assert_allclose(metric.result(), np.abs(targets - quantiles[..., 1]).mean(), rtol=1e-6)


def test_scores_are_those_of_the_normal_distribution(create):
    levels = tuple((np.arange(99) + 1) / 100)
    task = create(NOISE, f"task.quantiles=[{','.join(map(str, levels))}]")
    measured = task.metrics(task.test, of_normal(levels, task.test.targets.shape))
    # Of the true quantiles the expected pinball loss of level q is σ φ(Φ⁻¹(q)), the CRPS σ / √π (Gneiting & Raftery 2007).
    assert measured["pinball_loss"] == pytest.approx(2 * stats.norm.pdf(stats.norm.ppf(levels)).mean(), rel=0.03)
    assert measured["crps"] == pytest.approx(2 / np.sqrt(np.pi), rel=0.03)
    assert measured["coverage"] == pytest.approx(0.98, abs=0.01)
    assert measured["coverage_error"] == pytest.approx(abs(measured["coverage"] - 0.98))
    assert measured["interval_width"] == pytest.approx(4 * stats.norm.ppf(0.99))
    assert measured["mae"] == pytest.approx(2 * np.sqrt(2 / np.pi), rel=0.03)  # of the median, which is 0


def test_each_quantile_stands_for_the_nearest_levels(create):
    task = create(NOISE, "task.quantiles=[0.1,0.5,0.8]")
    quantiles = of_normal((0.1, 0.5, 0.8), task.test.targets.shape)
    errors = task.test.targets[..., None] - quantiles
    losses = [np.where(errors[..., i] > 0, q, q - 1) * errors[..., i] for i, q in enumerate((0.1, 0.5, 0.8))]
    expected = 2 * (0.3 * losses[0] + 0.35 * losses[1] + 0.35 * losses[2]).mean()
    assert task.metrics(task.test, quantiles)["crps"] == pytest.approx(expected)


def test_the_true_quantiles_have_the_smallest_scores(create):
    task = create(NOISE)
    scores = {
        scale: task.metrics(task.test, of_normal(LEVELS, task.test.targets.shape, scale=scale))["crps"] for scale in (1, 2, 4)
    }
    assert scores[2] < scores[1]
    assert scores[2] < scores[4]


def test_a_model_learns_sorted_quantiles_in_the_unit_of_the_series(create):
    task = create(NOISE, "task.center=train")
    keras.utils.set_random_seed(0)
    model = task.build_model(lstm.build, {"units": 4})
    untrained = model.predict(task.test.inputs[:50], verbose=0)
    assert untrained.shape == (50, 3, 1, 5)
    assert (np.diff(untrained, axis=-1) >= 0).all()
    assert (np.diff(untrained, axis=-1) > 0).any()
    model.compile("adam", loss=task.loss(), weighted_metrics=task.training_metrics(model))
    model.optimizer.learning_rate = 0.005
    model.fit(task.train.inputs, task.train.targets, batch_size=64, epochs=6, verbose=0)
    learned = model.predict(task.test.inputs[:500], verbose=0)
    np.testing.assert_allclose(learned.mean(axis=(0, 1, 2)), stats.norm.ppf(LEVELS, scale=2), atol=0.25)


def test_baselines_add_the_quantiles_of_their_errors(create):
    task = create(NOISE)
    computed = store.compute(task)
    assert set(computed.results) == {"repeat_last", "seasonal_naive", "ridge", "autoregression"}
    errors = task.validation.targets - task.validation.inputs[:, -1:]
    expected = task.test.inputs[:, -1:, :, None] + np.quantile(errors, LEVELS, axis=0).transpose(1, 2, 0)[None]
    np.testing.assert_allclose(computed.predictions["repeat_last"], expected, rtol=1e-6)
    for metrics in computed.metrics.values():
        assert metrics["coverage"] == pytest.approx(0.8, abs=0.03)
    assert computed.metrics["ridge"]["crps"] < computed.metrics["repeat_last"]["crps"]


def test_an_interval_of_the_score_is_computed_from_the_examples(create):
    task = create(NOISE)
    predictions = of_normal(LEVELS, task.test.targets.shape)
    examples = task.example_results(task.test, predictions)
    np.testing.assert_array_equal(examples["quantile_0.25"], predictions[..., 1].ravel())
    interval = uncertainty.confidence_interval("crps", examples)
    assert interval.low < task.metrics(task.test, predictions)["crps"] < interval.high


@pytest.mark.parametrize("quantiles", ["[0.5,0.1,0.9]", "[0.1,0.9]", "[0.1,0.5,0.5,0.9]", "[0,0.5,0.9]"])
def test_other_levels_are_refused(settings, quantiles):
    with pytest.raises(UserError, match=r"rising levels between 0 and 1 with 0.5, .*; type for example task.quantiles="):
        settings(*LINE, f"task.quantiles={quantiles}")


def test_median_and_quantiles_are_served(create, tmp_path):
    task = create(NOISE)
    model = task.build_model(lstm.build, {"units": 4})
    answer = save_and_load(task, model, tmp_path).predict(task.test.inputs[:4])
    expected = model.predict(task.test.inputs[:4], verbose=0)
    np.testing.assert_allclose(answer["quantiles"], expected, rtol=1e-5)
    np.testing.assert_array_equal(answer["forecast"], answer["quantiles"][..., 2])


def test_figures_show_the_band_and_the_calibration(create):
    task = create(NOISE)
    predictions = of_normal(LEVELS, task.test.targets.shape)
    figures = task.figures(None, predictions, store.compute(task).predictions)
    assert set(figures) == {"forecast.png", "error_by_step.png", "calibration.png"}
    for figure in figures.values():
        figure.savefig("/dev/null", format="png")
        assert not overflowing(figure)
    (band,) = figures["forecast.png"].axes[0].collections
    assert band.get_label() == "quantiles 0.1 to 0.9"
    (axes,) = figures["calibration.png"].axes
    np.testing.assert_allclose(axes.lines[1].get_ydata(), LEVELS, atol=0.03)
