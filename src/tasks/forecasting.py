"""Forecasting of time series."""

import functools
import logging
import math
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TypeVar

import keras
import numpy as np
import tensorflow as tf
from keras import layers, ops
from numpy.lib.stride_tricks import sliding_window_view
from threadpoolctl import threadpool_limits

from recipes.specs import Forecast, Series
from src.config.tasks import ForecastingSettings
from src.datasets import Data, Split, conversion, validation
from src.errors import UserError
from src.tasks import calendar, forecast_figures
from src.tasks.base import Figures, Metrics, Task
from src.tasks.baselines import forecasting as methods
from src.tasks.baselines.interface import Baselines, Prediction, SkippedError, join_notes, sample_note, spaced_rows
from src.tasks.gaps import carry_forward, fill_gaps, interpolate
from src.tasks.losses import MeanAbsoluteError, StandardizedSquaredError
from src.tasks.serving import DEFAULT_FUNCTION, Serving, batch_spec

log = logging.getLogger(__name__)
T = TypeVar("T")
Forecaster = Callable[[np.ndarray], np.ndarray]  # from windows to forecasts

MAX_STEPS = 300_000  # steps times features of a series that is fitted feature by feature, in about a minute; more are skipped
MAX_PRODUCTS = 3e11  # multiplications of one ridge regression, a few seconds; more are skipped
MAX_SCALE_VALUES = 30_000_000  # values of windows that scales are measured on, 120 MB: all of ETTh1 with seven variables
CHUNK = 2**22  # values of windows that are copied at once


class Forecasting(Task):
    """Prediction of the `horizon` steps of a series that follow a window.

    Inputs (windows, window, features), targets (windows, horizon, targets), predictions and errors are in the unit of the
    series. The targets are some or all of the features. With `task.calendar` there are further features: what the calendar
    shows `horizon` steps after each step of a window, so that the last ones of a window show it for all steps of the forecast.

    A window lies within one split of the data, or, with `task.include_history`, begins in the one before; targets never do.
    Windows are views of the series, so that they need no memory of their own; only if values are missing, windows of inputs are
    copies. Scales are measured on the training set alone, on evenly spaced windows of it if it is large.

    Missing values are NaN in targets, which count in no loss and no metric; in inputs they are filled in (`fill_gaps`). The
    series is float32 if that holds its values exactly; otherwise it is float64 until it is centered, so that small changes of
    a large value survive.

    Attributes:
        series: {split: (time, features)}, with NaN where a value is missing; the last features are those of the calendar.
        targeted: indices of the features that are forecast, (targets,).
        constant: whether each of these keeps one value in the training set: it is scaled by 1, and left out of scaled errors.
    """

    def __init__(self, settings: ForecastingSettings, data: Data):
        validation.check_series(data)
        self.settings = settings
        self.units = {"mae": settings.unit, "rmse": settings.unit}
        self.series = {name: conversion.to_float(split.array) for name, split in data.splits.items()}
        self.variables = data.variables
        self.targeted = np.arange(self.series["train"].shape[1])
        if data.variables != data.target_variables:
            self.targeted = np.array([data.variables.index(name) for name in data.target_variables])
        self._log_gaps()
        if settings.calendar:
            self._add_calendar(data)
        # Of the training set alone, (features,) or (targets,) each:
        train = self.series["train"]
        constant = np.nanmin(train, axis=0) == np.nanmax(train, axis=0)
        self.constant = constant[self.targeted]
        self._log_constant(data.name)
        self.deviation = np.nanstd(train[:, self.targeted], axis=0)
        # Mean error of the seasonal naive forecast, one season ahead, within the training set (Hyndman & Koehler 2006).
        seasonal_changes = train[settings.season :, self.targeted] - train[: -settings.season, self.targeted]
        self.naive_error = np.nanmean(np.abs(seasonal_changes), axis=0)
        if settings.include_history:
            self._include_history()
        self.train, self.validation, self.test = (self._windows(name, series) for name, series in self.series.items())
        self.inputs = Series(settings.window, self.train.array.shape[2])
        self.outputs = Forecast(settings.horizon, len(self.targeted))
        windows = self.train.array[spaced_rows(len(self.train), MAX_SCALE_VALUES // self.train.array[0].size)]
        self.mean = windows.mean(axis=(0, 1))
        scale = (windows - self._center(windows)).std(axis=(0, 1))
        self.scale = np.where(constant | (scale == 0), 1, scale)

    def _log_gaps(self) -> None:
        for name, series in self.series.items():
            count = int(np.isnan(series).sum())
            if count:
                log.info(
                    "%.1f %% of the values of the %s split are missing: they are filled in where they are inputs, and count in "
                    "no loss and no metric where they are targets.", 100 * count / series.size, name,
                )  # fmt: skip

    def _log_constant(self, name: str) -> None:
        if self.constant.all():
            raise UserError(f"The training split of dataset={name} keeps one value, so there is nothing to learn from it.")
        if self.constant.any():
            log.warning(
                "Of the %d targets of the series these keep one value in the training split: %s (counted from 0); scaled "
                "errors leave them out.", len(self.constant), ", ".join(map(str, np.flatnonzero(self.constant))),
            )  # fmt: skip

    def _add_calendar(self, data: Data) -> None:
        """Append the features of the calendar to the series."""
        if not data.times:
            raise UserError(
                f"task.calendar needs the time of each step of dataset={data.name}; type dataset.time=<name of the feature>."
            )
        for name, series in self.series.items():
            features = calendar.encode(data.times[name], self.settings.calendar or (), self.settings.horizon)
            self.series[name] = np.concatenate([series, features.astype(series.dtype)], axis=1)

    def _include_history(self) -> None:
        """Prepend the last window of each split to the next one."""
        for name, previous in (("test", "validation"), ("validation", "train")):
            self.series[name] = np.concatenate([self.series[previous][-self.settings.window :], self.series[name]])

    def _windows(self, name: str, series: np.ndarray) -> Split:
        window, horizon = self.settings.window, self.settings.horizon
        if len(series) < window + horizon:
            raise UserError(
                f"The {name} split has {len(series)} steps, too few for task.window={window} and task.horizon={horizon}; "
                f"type a smaller window or a larger dataset.splits.{name}."
            )
        inputs = fill_gaps(series[:-horizon], window, np.asarray(np.nanmean(self.series["train"], axis=0)))
        targets = self._of_targets(series[window:])
        if np.isnan(targets).all(axis=0).any():
            raise UserError(f"In the {name} split a feature has no value that could be a target; type a larger one.")
        return Split(inputs, sliding_window_view(targets, horizon, axis=0).swapaxes(1, 2))

    def wrap(self, network: keras.Model) -> keras.Model:
        # Whatever the precision of the network: in 16 bits, 371.3 ppm and 372.2 ppm are the same number.
        dtype = self.train.array.dtype.name
        series = keras.Input(network.input_shape[1:], dtype=dtype, name="series")
        scale = layers.Rescaling(1 / self.scale, dtype="float32", name="scale")
        unscale = layers.Rescaling(self.scale[self.targeted], dtype="float32", name="unscale")
        match self.settings.center:
            case "last":
                center = series[:, -1:]
            case "mean":
                center = ops.mean(series, axis=1, keepdims=True)
            case "train":
                center = layers.Rescaling(0.0, offset=self.mean, dtype=dtype, name="training_mean")(series[:, -1:])
        if self.settings.calendar:  # its features stay as they are
            center = layers.Rescaling(self._is_variable.astype(dtype), dtype=dtype, name="variables")(center)
        centered = layers.Subtract(dtype=dtype, name="center")([series, center])
        if len(self.targeted) < self.inputs.features:
            center = ops.take(center, self.targeted, axis=-1)
        forecast = layers.Add(dtype=dtype, name="uncenter")([unscale(network(scale(centered))), center])
        return keras.Model(series, forecast, name=network.name)

    def _center(self, windows: np.ndarray) -> np.ndarray:
        """The values that are subtracted from windows (windows, window, features): (windows or 1, 1, features)."""
        match self.settings.center:
            case "last":
                center = windows[:, -1:]
            case "mean":
                center = windows.mean(axis=1, keepdims=True)
            case "train":
                center = self.mean[None, None]
        return center * self._is_variable if self.settings.calendar else center

    @property
    def _is_variable(self) -> np.ndarray:
        """Whether each feature is one of the series, and not of the calendar, (features,)."""
        return np.arange(self.inputs.features) < self.inputs.features - len(self.settings.calendar or ())

    def _of_targets(self, windows: np.ndarray) -> np.ndarray:
        """The features of windows or of a series (…, features) that are forecast."""
        return windows if len(self.targeted) == windows.shape[-1] else windows[..., self.targeted]

    def loss(self) -> keras.losses.Loss:
        observed = sum(np.count_nonzero(~np.isnan(windows)) for windows in _chunks(self.train.targets))
        return StandardizedSquaredError(
            self.scale[self.targeted].tolist(), observed / self.train.targets.size, dtype=self.train.targets.dtype.name
        )

    def training_metrics(self, model: keras.Model) -> list[keras.metrics.Metric]:
        return [MeanAbsoluteError(name="mae")]

    def metrics(self, split: Split, predictions: np.ndarray) -> Metrics:
        """MAE and RMSE in the unit of the series; MASE and skill compare with the seasonal naive forecast.

        mase: MAE relative to that of the seasonal naive forecast within the training set; without features that it forecasts
            exactly.
        skill: 1 − MAE relative to that of the seasonal naive forecast on the same windows; 0 equals naive, 1 is perfect.
        standardized_mae, standardized_mse: in standard deviations of the training set, as in the literature on ETT; without
            constant features.
        """
        error = predictions.astype(np.float64) - split.targets  # (windows, horizon, features); NaN where targets are missing
        absolute = np.nanmean(np.abs(error), axis=(0, 1))  # (features,)
        naive = np.nanmean(np.abs(self._seasonal_naive(split) - split.targets), axis=(0, 1))
        inexact = self.naive_error > 0
        standardized = error[..., ~self.constant] / self.deviation[~self.constant]
        return {
            "mae": float(absolute.mean()),
            "rmse": float(np.sqrt(np.nanmean(np.square(error)))),
            "mase": float((absolute[inexact] / self.naive_error[inexact]).mean()) if inexact.any() else math.nan,
            "skill": float(1 - absolute.mean() / naive.mean()) if naive.any() else math.nan,
            "standardized_mae": float(np.nanmean(np.abs(standardized))),
            "standardized_mse": float(np.nanmean(np.square(standardized))),
        }

    def example_results(self, split: Split, predictions: np.ndarray) -> dict[str, np.ndarray]:
        """A row for each window, step and target: target, forecast, and the target's standard deviation in the training set.

        The deviation of a constant target is NaN.
        """
        window, step, feature = (index.ravel() for index in np.indices(predictions.shape))
        deviation = np.where(self.constant, np.nan, self.deviation)
        values = {"target": split.targets.ravel(), "forecast": predictions.ravel(), "deviation": deviation[feature]}
        return {"window": window, "step": step, "feature": feature, **values}

    def baselines(self) -> Baselines:
        """Those that continue the last values of a window need nothing else; the others are fitted on the training set.

        Drift, exponential smoothing and Theta see all history up to the end of a window, unlike a recipe. A constant feature
        is forecast as its last value.
        """
        season, horizon = self.settings.season, self.settings.horizon
        train, windows = self.series["train"], self._of_targets(self.test.array)
        named: dict[str, Callable[[], Prediction]] = {
            "repeat_last": lambda: Prediction(methods.repeat_last(windows, horizon)),
            "drift": lambda: Prediction(methods.drift(windows, *self._history(filled=False), horizon)),
            "seasonal_naive": lambda: Prediction(self._seasonal_naive(self.test)),
            "seasonal_naive_with_drift": lambda: Prediction(
                methods.seasonal_naive_with_drift(windows, *self._history(filled=False), season, horizon)
            ),
            "ridge": self._ridge,
            "autoregression": self._autoregression,
            "exponential_smoothing": lambda: self._from_history(methods.holt_winters),
            "theta": lambda: self._from_history(methods.theta),
        }
        if len(train) < 2 * season:
            for name in ("seasonal_naive_with_drift", "exponential_smoothing", "theta"):  # fitting needs two seasons
                del named[name]
        return named

    def _seasonal_naive(self, split: Split) -> np.ndarray:
        return methods.seasonal_naive(self._of_targets(split.array), self.settings.season, self.settings.horizon)

    def _history(self, filled: bool) -> tuple[np.ndarray, np.ndarray]:
        """The whole series (time, targets), float64, and the index of the last step of each test window.

        Args:
            filled: whether missing values are filled in, interpolated in the training set and else with the value before.
        """
        train, validation, test = (self._of_targets(self.series[name]) for name in ("train", "validation", "test"))
        prepended = self.settings.window * self.settings.include_history  # steps that belong to the split before
        later = np.concatenate([validation[prepended:], test[prepended:]])
        if filled:
            train = interpolate(train)
            later = carry_forward(later, initial=train[-1])
        history = np.concatenate([train, later]).astype(np.float64)
        origins = np.arange(len(history) - len(test), len(history))[self.settings.window - 1 : -self.settings.horizon]
        return history, origins[: len(self.test)]

    def _from_history(self, method: Callable[..., np.ndarray]) -> Prediction:
        """Forecasts of a method of `src.tasks.baselines.forecasting` that is fitted to each feature."""
        history, origins = self._history(filled=True)
        steps = len(self.series["train"])
        _check_steps(history)
        forecasts = methods.repeat_last(self._of_targets(self.test.array).astype(np.float64), self.settings.horizon)
        with threadpool_limits(1):  # matrices are small: several threads spend most of their time waiting for each other
            for feature in np.flatnonzero(~self.constant):
                arguments = steps, self.settings.season, origins, self.settings.horizon
                forecasts[..., feature] = method(history[:, feature], *arguments)
        return Prediction(forecasts)

    def _ridge(self) -> Prediction:
        size = self.train.array[0].size
        rows = spaced_rows(len(self.train), methods.MAX_VALUES // size)
        products = len(rows) * size**2 * methods.count_masks(self.train.targets[rows])
        if products > MAX_PRODUCTS:
            raise SkippedError(f"{products:.1e} multiplications for each λ are more than {MAX_PRODUCTS:.1e}")
        scale = self.scale[self.targeted]
        inputs, targets = self.train.array[rows] / self.scale, self.train.targets[rows].astype(np.float64) / scale

        def fit(penalty: float) -> Callable[[np.ndarray], np.ndarray]:
            forecast = methods.ridge(inputs, targets, penalty, self.targeted)
            return lambda windows: forecast(windows / self.scale) * scale

        fits = {penalty: functools.partial(fit, penalty) for penalty in methods.PENALTIES}
        penalty, forecast = self._best(fits, self.validation.array)
        note = join_notes(f"λ = {penalty:g}", sample_note(len(rows), len(self.train), "windows"))
        return Prediction(_in_chunks(forecast, self.test.array), note)

    def _autoregression(self) -> Prediction:
        train = self._of_targets(self.series["train"]).astype(np.float64)
        _check_steps(train)
        orders = methods.candidate_orders(self.settings.season, self.settings.window, len(train))
        fits = {order: functools.partial(methods.autoregression, train, order, self.settings.horizon) for order in orders}
        order, forecast = self._best(fits, self._of_targets(self.validation.array))
        return Prediction(_in_chunks(forecast, self._of_targets(self.test.array)), f"p = {order}")

    def _best(self, fits: Mapping[T, Callable[[], Forecaster]], windows: np.ndarray) -> tuple[T, Forecaster]:
        """The hyperparameter with the smallest mean absolute error on the validation set, and the forecaster fitted with it.

        Args:
            fits: {hyperparameter: function that fits a forecaster with it}.
            windows: what a forecaster takes of the validation set.
        """
        best: tuple[float, T, Forecaster] | None = None
        with threadpool_limits(1):  # as above
            for hyperparameter, fit in fits.items():
                forecaster = fit()
                error = float(np.nanmean(np.abs(_in_chunks(forecaster, windows) - self.validation.targets)))
                if best is None or error < best[0] or np.isnan(best[0]):  # an unstable one has no number as error
                    best = error, hyperparameter, forecaster
        if best is None:
            raise ValueError("There is no hyperparameter to choose from.")
        return best[1:]

    def serving(self, model: keras.Model) -> Serving:
        """Windows (batch, window, features) to `forecast` (batch, horizon, features), both in the series' own unit."""

        def forecast(inputs: tf.Tensor) -> dict:
            return {"forecast": model(inputs, training=False)}

        return Serving(
            "ArrayModel", {DEFAULT_FUNCTION: (forecast, {"inputs": batch_spec(self.train.array)})}, [model],
            example=self.test.raw[:1], settings={"unit": self.settings.unit, "time_unit": self.settings.time_unit},
            outputs={"forecast": (model.output.dtype, (self.outputs.horizon, self.outputs.features))},
        )  # fmt: skip

    def figures(
        self, model: keras.Model, predictions: np.ndarray, baselines: Mapping[str, np.ndarray] = MappingProxyType({})
    ) -> Figures:
        errors = {name: np.nanmean(np.abs(forecasts - self.test.targets)) for name, forecasts in baselines.items()}
        best_first = {name: baselines[name] for name in sorted(errors, key=lambda name: errors[name])}
        units = {"unit": self.settings.unit, "time_unit": self.settings.time_unit}
        shown = int(self.targeted[0])  # the first target
        variable = ""
        if self.outputs.features > 1:
            variable = self.variables[shown] if shown < len(self.variables) else f"first of {self.outputs.features} series"
        first = {name: forecasts[..., 0] for name, forecasts in best_first.items()}
        return {
            "forecast.png": forecast_figures.forecasts(
                self.test.array[..., shown], self.test.targets[..., 0], predictions[..., 0], first, variable=variable, **units
            ),
            "error_by_step.png": forecast_figures.error_by_step(self.test.targets, predictions, best_first, **units),
        }


def _chunks(windows: np.ndarray) -> list[np.ndarray]:
    """Windows (windows, …) in parts of about `CHUNK` values: what is computed from a view of a series is none."""
    return np.array_split(windows, -(-windows.size // CHUNK))


def _in_chunks(forecaster: Forecaster, windows: np.ndarray) -> np.ndarray:
    """What a forecaster forecasts for windows."""
    return np.concatenate([forecaster(chunk) for chunk in _chunks(windows)])


def _check_steps(series: np.ndarray) -> None:
    """Raise a SkippedError if a series is too long to be fitted feature by feature."""
    if series.size > MAX_STEPS:
        raise SkippedError(f"{series.size:,} steps times features are more than {MAX_STEPS:,}")
