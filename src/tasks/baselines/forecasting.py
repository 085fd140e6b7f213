"""Baselines of forecasting.

Shapes: windows (windows, window, features), without gaps; targets and forecasts (windows, horizon, features), with NaN where a
target is missing; series (time, features), with NaN where a value is missing. An origin is the index of the last step in a
series that a forecast may use.

References: Hyndman, Athanasopoulos: Forecasting: principles and practice, 3rd edition (2021), sections 5.2 and 8.3.
Assimakopoulos, Nikolopoulos: The theta model. International Journal of Forecasting 16 (2000). Hyndman, Billah: Unmasking the
Theta method. International Journal of Forecasting 19 (2003).
"""

import warnings
from collections.abc import Callable, Sequence

import numpy as np
from scipy.linalg import LinAlgWarning
from sklearn.linear_model import LinearRegression, Ridge
from statsmodels.tsa.forecasting.theta import ThetaModel
from statsmodels.tsa.holtwinters import ExponentialSmoothing

from src.datasets.concatenation import concatenate
from src.tasks.baselines.interface import spaced_rows
from src.tasks.gaps import fill_gaps

PENALTIES = 10.0 ** np.arange(-1, 4.5, 0.5)  # λ of the ridge regression, of inputs with standard deviation 1
MAX_VALUES = 50_000_000  # inputs of one regression, 400 MB; of longer series evenly spaced windows are used
CONSECUTIVE_ORDERS = 36  # of autoregressions that are tried; beyond, multiples of the season and those plus one


def repeat_last(windows: np.ndarray, horizon: int) -> np.ndarray:
    """Repeat the last value."""
    return np.repeat(windows[:, -1:], horizon, axis=1)


def drift(windows: np.ndarray, series: np.ndarray, origins: np.ndarray, horizon: int) -> np.ndarray:
    """Continue the last value with the mean slope of the series up to the origin."""
    steps = np.where(np.isnan(series), -1, np.arange(len(series))[:, None])
    last = np.maximum.accumulate(steps, axis=0)[origins]  # (windows, features), steps with a value
    first = np.where(steps < 0, len(series), steps).min(axis=0)
    rise = np.take_along_axis(series, np.maximum(last, 0), axis=0) - np.take_along_axis(series, first[None], axis=0)
    slope = np.where(last > first, rise / np.maximum(last - first, 1), 0.0)
    return windows[:, -1:] + np.arange(1, horizon + 1)[:, None] * slope[:, None]


def seasonal_naive(windows: np.ndarray, season: int, horizon: int) -> np.ndarray:
    """Repeat the value of one season ago."""
    return windows[:, np.arange(horizon) % season - season]


def seasonal_naive_with_drift(
    windows: np.ndarray, series: np.ndarray, origins: np.ndarray, season: int, horizon: int
) -> np.ndarray:
    """The seasonal naive forecast plus the mean change from season to season up to the origin."""
    changes = series[season:] - series[:-season]
    observed = np.cumsum(~np.isnan(changes), axis=0)
    means = np.cumsum(np.nan_to_num(changes), axis=0) / np.maximum(observed, 1)
    seasons_ahead = np.arange(horizon) // season + 1
    return seasonal_naive(windows, season, horizon) + seasons_ahead[:, None] * means[origins - season][:, None]


def ridge(
    inputs: np.ndarray, targets: np.ndarray, penalty: float, targeted: np.ndarray | None = None
) -> Callable[[np.ndarray], np.ndarray]:
    """Ridge regression from all values of a window to all steps of the horizon, as differences from the last value.

    A missing target leaves its window out of the regression of its step alone.

    Args:
        inputs: windows, of about standard deviation 1.
        targets: of the windows.
        penalty: λ, of the sum of squared weights; the intercept has none.
        targeted: indices of the features of windows that are the targets; None: all are.

    Returns:
        The function from windows to forecasts.
    """
    columns = slice(None) if targeted is None else targeted

    def design(windows: np.ndarray) -> np.ndarray:
        return (windows - windows[:, -1:]).reshape(len(windows), -1)

    x, y = design(inputs), (targets - inputs[:, -1:, columns]).reshape(len(inputs), -1)
    masks, group_of = _masks(targets)
    models = {group: Ridge(alpha=penalty) for group, mask in enumerate(masks.T) if mask.any()}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LinAlgWarning)  # of inputs that are nearly equal, where λ is small
        for group, model in models.items():
            model.fit(x[masks[:, group]], y[:, group_of == group][masks[:, group]])

    def forecast(windows: np.ndarray) -> np.ndarray:
        changes = np.zeros((len(windows), y.shape[1]))
        for group, model in models.items():
            changes[:, group_of == group] = model.predict(design(windows)).reshape(len(windows), -1)
        return windows[:, -1:, columns] + changes.reshape(len(windows), *targets.shape[1:])

    return forecast


def count_masks(targets: np.ndarray) -> int:
    """How many regressions `ridge` needs for targets: 1 if none is missing."""
    return _masks(targets)[0].shape[1]


def _masks(targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The different masks of observed targets (windows, masks), and the index of that of each step and feature (columns,)."""
    masks, mask_of = np.unique(~np.isnan(targets.reshape(len(targets), -1)), axis=1, return_inverse=True)
    return masks, mask_of


def autoregression(series: Sequence[np.ndarray], order: int, horizon: int) -> Callable[[np.ndarray], np.ndarray]:
    """AR(p) of each feature, with a constant, by least squares; steps beyond the first are forecast from forecasts.

    Args:
        series: one or several, to fit the same coefficients on; a step whose value is missing is no target.
        order: p.
        horizon: steps to forecast.

    Returns:
        The function from windows of at least `order` steps to forecasts.
    """
    models = []
    for feature in range(series[0].shape[1]):
        own = [each[:, [feature]] for each in series]
        lags = concatenate({str(n): fill_gaps(each[:-1], order, np.nanmean(each, axis=0)) for n, each in enumerate(own)})
        target = np.concatenate([each[order:, 0] for each in own])
        observed = np.flatnonzero(~np.isnan(target))
        observed = observed[spaced_rows(len(observed), MAX_VALUES // order)]
        models.append(LinearRegression().fit(lags[observed][..., 0], target[observed]))

    def forecast(windows: np.ndarray) -> np.ndarray:
        forecasts = np.empty((len(windows), horizon, len(models)))
        with np.errstate(over="ignore", invalid="ignore"):  # of an unstable one, which the validation set rejects
            for feature, model in enumerate(models):
                past = windows[:, -order:, feature].astype(np.float64)
                for step in range(horizon):
                    forecasts[:, step, feature] = past @ model.coef_ + model.intercept_
                    past = np.concatenate([past[:, 1:], forecasts[:, step, feature, None]], axis=1)
        return forecasts

    return forecast


def candidate_orders(season: int, window: int, steps: int) -> list[int]:
    """The orders of autoregressions to try: 1, 2, 3, …, then the season and its multiples, each also plus one, and the window.

    Args:
        season: steps in a season.
        window: largest order.
        steps: of the series to fit on, of which an autoregression needs three times its order.
    """
    seasonal = {season * number + more for number in range(1, window // season + 1) for more in (0, 1)}
    orders = set(range(1, CONSECUTIVE_ORDERS + 1)) | seasonal | {window}
    return sorted(order for order in orders if order <= min(window, max(steps // 3, 1)))


def holt_winters(series: np.ndarray, training_steps: int, season: int, origins: np.ndarray, horizon: int) -> np.ndarray:
    """Forecasts of additive Holt–Winters exponential smoothing, of Holt's if a season is one step: (origins, horizon).

    Args:
        series: (time,), without gaps.
        training_steps: number of first steps on which the smoothing constants and the initial state are fitted.
        season: steps in a season.
        origins: index of the last step that each forecast sees.
        horizon: steps to forecast.
    """
    options = {"trend": "add"} | ({"seasonal": "add", "seasonal_periods": season} if season > 1 else {})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the optimizer did not converge: the fit is good enough for a baseline
        fitted = ExponentialSmoothing(series[:training_steps], **options, initialization_method="estimated").fit().params
    initial = {name: fitted[name] for name in ("initial_level", "initial_trend")}
    constants = {name: fitted[name] for name in ("smoothing_level", "smoothing_trend")}
    if season > 1:
        initial["initial_seasonal"] = fitted["initial_seasons"]
        constants["smoothing_seasonal"] = fitted["smoothing_seasonal"]
    # With all constants given, this is one pass over the series, which yields the state after every step.
    state = ExponentialSmoothing(series, **options, initialization_method="known", **initial).fit(**constants, optimized=False)
    ahead = np.arange(1, horizon + 1)
    forecasts = np.asarray(state.level)[origins, None] + ahead * np.asarray(state.trend)[origins, None]
    if season > 1:
        forecasts += np.asarray(state.season)[origins[:, None] - season + 1 + (ahead - 1) % season]
    return forecasts


def theta(series: np.ndarray, training_steps: int, season: int, origins: np.ndarray, horizon: int) -> np.ndarray:
    """Forecasts of the Theta method, after an additive seasonal adjustment: (origins, horizon).

    The mean of a straight line and of exponential smoothing of the series with twice its curvature, which is exponential
    smoothing plus half the slope of the line (Hyndman & Billah 2003). At the end of the training steps it is statsmodels' own.

    Args:
        series: (time,), without gaps.
        training_steps: number of first steps on which the smoothing constant, the slope and the seasonal terms are fitted.
        season: steps in a season.
        origins: index of the last step that each forecast sees.
        horizon: steps to forecast.
    """
    train = series[:training_steps]
    model = ThetaModel(train, period=season, deseasonalize=season > 1, use_test=False, method="additive")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # as above
        fitted = model.fit()
    slope, alpha = fitted.params["b0"], fitted.params["alpha"]
    ahead = np.arange(horizon)
    # The first of these terms is that of the step after the training steps; rolled, it is that of step 0.
    terms = np.roll(fitted.forecast_components(season).seasonal, training_steps % season)
    adjusted = series - terms[np.arange(len(series)) % len(terms)]
    smoothing = ExponentialSmoothing(adjusted, initialization_method="known", initial_level=adjusted[0])
    level = np.asarray(smoothing.fit(smoothing_level=alpha, optimized=False).level)[origins, None]
    used = origins[:, None] + 1  # steps
    trend = slope * (ahead + ((1 - (1 - alpha) ** used) / alpha if alpha > 0 else used))
    return level + trend / 2 + terms[(used + ahead) % len(terms)]
