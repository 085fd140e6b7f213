"""Baselines of forecasting against statsmodels, closed forms and definitions."""

import numpy as np
import pytest
from statsmodels.tsa.ar_model import AutoReg
from statsmodels.tsa.forecasting.theta import ThetaModel
from statsmodels.tsa.holtwinters import ExponentialSmoothing, Holt

from src.tasks.baselines import forecasting

TIME = np.arange(80)
SERIES = 20 + 0.3 * TIME + np.array([2, -1, 4, -5])[TIME % 4] + np.random.default_rng(0).normal(0, 0.5, 80)
ORIGINS = np.array([50, 63, 77])
NAN = np.nan


def windows_of(series, window, horizon):
    """Inputs (n, window, 1) and targets (n, horizon, 1) of a series (time,)."""
    rows = np.lib.stride_tricks.sliding_window_view(series, window + horizon)
    return rows[:, :window, None], rows[:, window:, None]


def test_repeat_last_and_seasonal_naive_by_hand():
    window = np.array([[[1.0], [2.0], [3.0], [4.0]]])
    assert forecasting.repeat_last(window, 3).ravel().tolist() == [4, 4, 4]
    assert forecasting.seasonal_naive(window, 3, 5).ravel().tolist() == [2, 3, 4, 2, 3]


def test_drift_is_the_line_through_the_first_and_the_last_value():
    series = np.array([[NAN, 5.0], [1.0, 5.0], [2.0, 4.0], [NAN, 3.0], [7.0, NAN], [0.0, 0.0]])
    last = np.array([[[7.0, 3.0]]])  # the window ends at step 4, where the second feature is missing
    forecast = forecasting.drift(last, series, np.array([4]), 2)
    np.testing.assert_allclose(forecast[0], [[7 + 2, 3 - 2 / 3], [7 + 4, 3 - 4 / 3]])
    nothing_yet = forecasting.drift(last, series, np.array([0]), 1)
    np.testing.assert_array_equal(nothing_yet, last)


def test_seasonal_naive_with_drift_adds_the_mean_change_of_the_seasons_before():
    series = np.array([1.0, 2, 3, 5, NAN, 6, 100, 100])[:, None]  # changes over 2 steps: 2, 3, missing, 1
    window = np.array([[[4.0], [6.0]]])
    forecast = forecasting.seasonal_naive_with_drift(window, series, np.array([5]), season=2, horizon=3)
    np.testing.assert_allclose(forecast.ravel(), [4 + 2, 6 + 2, 4 + 4])


def test_ridge_is_the_closed_form():
    x, y = windows_of(SERIES, 6, 3)
    result = forecasting.ridge(x, y, penalty=2.0)(x[:5])
    differences, changes = (x - x[:, -1:])[..., 0], (y - x[:, -1:])[..., 0]
    means = differences.mean(axis=0), changes.mean(axis=0)
    centered = differences - means[0]
    weights = np.linalg.solve(centered.T @ centered + 2.0 * np.eye(6), centered.T @ (changes - means[1]))
    expected = x[:5, -1] + centered[:5] @ weights + means[1]
    np.testing.assert_allclose(result[..., 0], expected, rtol=1e-9)


def test_a_missing_target_leaves_its_window_out_of_its_step_alone():
    x, y = windows_of(SERIES, 6, 2)
    y = y.copy()
    y[3, 1] = NAN
    first, second = forecasting.ridge(x, y, 1.0)(x[:4])[..., 0].T
    everything = forecasting.ridge(x, np.nan_to_num(y), 1.0)(x[:4])[..., 0]
    np.testing.assert_allclose(first, everything[:, 0])
    without = np.delete(np.arange(len(x)), 3)
    np.testing.assert_allclose(second, forecasting.ridge(x[without], y[without], 1.0)(x[:4])[:, 1, 0])


@pytest.mark.parametrize("order", [1, 5])
def test_autoregression_is_that_of_statsmodels(order):
    series = np.stack([SERIES, SERIES[::-1]], axis=1)
    forecast = forecasting.autoregression([series], order, 4)(series[None, -8:])
    for feature, column in enumerate(series.T):
        expected = AutoReg(column, order, trend="c").fit().forecast(4)
        np.testing.assert_allclose(forecast[0, :, feature], expected, rtol=1e-8)


def test_autoregression_learns_from_no_missing_value():
    """An exact recursion stays exact: no lag is missing here, and a missing target counts nowhere."""
    series = np.array([0.5**step for step in range(30)])
    series[-1] = NAN
    forecast = forecasting.autoregression([series[:, None]], 1, 3)(np.array([[[8.0]]]))
    np.testing.assert_allclose(forecast.ravel(), [4, 2, 1], atol=1e-9)


def test_candidate_orders():
    assert forecasting.candidate_orders(season=24, window=168, steps=8640) == sorted(
        {*range(1, 37), 24, 25, 48, 49, 72, 73, 96, 97, 120, 121, 144, 145, 168}
    )
    assert forecasting.candidate_orders(season=4, window=6, steps=9) == [1, 2, 3]


@pytest.mark.parametrize("seasonal", [4, 1])
def test_theta_is_that_of_statsmodels_at_the_end_of_the_training_set(seasonal):
    model = ThetaModel(SERIES, period=seasonal, deseasonalize=seasonal > 1, use_test=False, method="additive")
    result = forecasting.theta(SERIES, len(SERIES), seasonal, np.array([len(SERIES) - 1]), 7)
    np.testing.assert_allclose(result[0], model.fit().forecast(7), rtol=1e-8)


def test_theta_at_a_later_origin_by_definition():
    """Exponential smoothing up to the origin, plus half the slope of the training set's line (Hyndman & Billah 2003)."""
    fitted = ThetaModel(SERIES[:41], period=4, deseasonalize=True, use_test=False, method="additive").fit()
    alpha, slope = fitted.params["alpha"], fitted.params["b0"]
    terms = np.asarray(fitted.forecast_components(4).seasonal)  # of steps 41, 42, 43, 44
    adjusted = SERIES - terms[(TIME - 41) % 4]
    for row, origin in zip(forecasting.theta(SERIES, 41, 4, ORIGINS, 6), ORIGINS):
        level = adjusted[0]
        for value in adjusted[: origin + 1]:
            level = alpha * value + (1 - alpha) * level
        h = np.arange(1, 7)
        trend = slope * (h - 1 + (1 - (1 - alpha) ** (origin + 1)) / alpha)
        np.testing.assert_allclose(row, level + trend / 2 + terms[(origin + h - 41) % 4], rtol=1e-9)


def test_holt_winters_forecasts_are_those_of_statsmodels():
    result = forecasting.holt_winters(SERIES, training_steps=40, season=4, origins=ORIGINS, horizon=6)
    kind = {"trend": "add", "seasonal": "add", "seasonal_periods": 4}
    fitted = ExponentialSmoothing(SERIES[:40], **kind, initialization_method="estimated").fit().params
    for row, origin in zip(result, ORIGINS):
        model = ExponentialSmoothing(
            SERIES[: origin + 1], **kind, initialization_method="known", initial_level=fitted["initial_level"],
            initial_trend=fitted["initial_trend"], initial_seasonal=fitted["initial_seasons"],
        )  # fmt: skip
        constants = {name: fitted[name] for name in ("smoothing_level", "smoothing_trend", "smoothing_seasonal")}
        np.testing.assert_allclose(row, model.fit(**constants, optimized=False).forecast(6), rtol=1e-6)


def test_without_a_season_holt_winters_is_the_method_of_holt():
    result = forecasting.holt_winters(SERIES, training_steps=40, season=1, origins=ORIGINS, horizon=6)
    fitted = Holt(SERIES[:40], initialization_method="estimated").fit().params
    level, trend = fitted["initial_level"], fitted["initial_trend"]
    levels, trends = [], []
    for value in SERIES:
        before = level
        level = fitted["smoothing_level"] * value + (1 - fitted["smoothing_level"]) * (level + trend)
        trend = fitted["smoothing_trend"] * (level - before) + (1 - fitted["smoothing_trend"]) * trend
        levels.append(level)
        trends.append(trend)
    for row, origin in zip(result, ORIGINS):
        np.testing.assert_allclose(row, levels[origin] + trends[origin] * np.arange(1, 7), rtol=1e-6)
