"""Forecasting of time series."""

import logging
import math
from collections.abc import Callable, Mapping
from types import MappingProxyType

import keras
import numpy as np
import tensorflow as tf
from keras import KerasTensor, layers, ops
from numpy.lib.stride_tricks import sliding_window_view

from recipes.specs import Forecast, Series
from src.config.tasks import ForecastingSettings
from src.datasets import Data, Split, conversion, validation
from src.errors import UserError
from src.tasks import calendar, forecast_figures
from src.tasks.base import Figures, Metrics, Task
from src.tasks.baselines.interface import Baselines, Prediction, spaced_rows
from src.tasks.forecast_baselines import ForecastBaselines, chunks
from src.tasks.gaps import fill_gaps
from src.tasks.losses import MeanAbsoluteError, StandardizedSquaredError
from src.tasks.serving import DEFAULT_FUNCTION, Serving, batch_spec

log = logging.getLogger(__name__)
MAX_SCALE_VALUES = 30_000_000  # values of windows that scales are measured on, 120 MB: all of ETTh1 with seven variables


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
        targets = series[window:] if len(self.targeted) == series.shape[1] else series[window:, self.targeted]
        if np.isnan(targets).all(axis=0).any():
            raise UserError(f"In the {name} split a feature has no value that could be a target; type a larger one.")
        return Split(inputs, sliding_window_view(targets, horizon, axis=0).swapaxes(1, 2))

    def wrap(self, network: keras.Model) -> keras.Model:
        # Whatever the precision of the network: in 16 bits, 371.3 ppm and 372.2 ppm are the same number.
        dtype = self.train.array.dtype.name
        series = keras.Input(network.input_shape[1:], dtype=dtype, name="series")
        scale = layers.Rescaling(1 / self.scale, dtype="float32", name="scale")
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
        return keras.Model(series, self.unscale(network(scale(centered)), center), name=network.name)

    def unscale(self, output: KerasTensor, center: KerasTensor) -> KerasTensor:
        """The forecast (batch, horizon, targets) in the unit of the series.

        Args:
            output: of the network, (batch, horizon, targets).
            center: what was subtracted from the targets in the window, (batch, 1, targets).
        """
        scaled = layers.Rescaling(self.scale[self.targeted], dtype="float32", name="unscale")(output)
        return layers.Add(dtype=center.dtype, name="uncenter")([scaled, center])

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

    @property
    def observed(self) -> float:
        """The fraction of the targets of the training set that are not missing."""
        return sum(np.count_nonzero(~np.isnan(windows)) for windows in chunks(self.train.targets)) / self.train.targets.size

    def loss(self) -> keras.losses.Loss:
        dtype = self.train.targets.dtype.name
        return StandardizedSquaredError(self.scale[self.targeted].tolist(), self.observed, dtype=dtype)

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
        naive = np.nanmean(np.abs(self.methods().seasonal_naive(split) - split.targets), axis=(0, 1))
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
        methods = self.methods()
        named: dict[str, Callable[[], Prediction]] = {
            "repeat_last": lambda: Prediction(methods.repeat_last(self.test)),
            "drift": lambda: Prediction(methods.drift(self.test)),
            "seasonal_naive": lambda: Prediction(methods.seasonal_naive(self.test)),
            "seasonal_naive_with_drift": lambda: Prediction(methods.seasonal_naive_with_drift(self.test)),
            "ridge": lambda: methods.ridge().predict(self.test),
            "autoregression": lambda: methods.autoregression().predict(self.test),
            "exponential_smoothing": lambda: Prediction(methods.exponential_smoothing(self.test)),
            "theta": lambda: Prediction(methods.theta(self.test)),
        }
        if len(self.series["train"]) < 2 * self.settings.season:
            for name in ("seasonal_naive_with_drift", "exponential_smoothing", "theta"):  # fitting needs two seasons
                del named[name]
        return named

    def methods(self) -> ForecastBaselines:
        """The baselines on the splits of this task."""
        splits = {"train": self.train, "validation": self.validation, "test": self.test}
        return ForecastBaselines(self.settings, self.series, splits, self.targeted, self.scale, self.constant)

    def serving(self, model: keras.Model) -> Serving:
        """Windows (batch, window, features) to `forecast` (batch, horizon, features), both in the series' own unit."""

        def forecast(inputs: tf.Tensor) -> dict:
            return {"forecast": model(inputs, training=False)}

        return Serving(
            "ArrayModel", {DEFAULT_FUNCTION: (forecast, {"inputs": batch_spec(self.train.array)})}, [model],
            example=self.test.raw[:1], settings={"unit": self.settings.unit, "time_unit": self.settings.time_unit},
            outputs={"forecast": (model.output.dtype, (self.settings.horizon, len(self.targeted)))},
        )  # fmt: skip

    def figures(
        self, model: keras.Model, predictions: np.ndarray, baselines: Mapping[str, np.ndarray] = MappingProxyType({})
    ) -> Figures:
        return self.draw(predictions, baselines)

    def draw(
        self, predictions: np.ndarray, baselines: Mapping[str, np.ndarray], band: forecast_figures.Band | None = None
    ) -> Figures:
        """Figures of point forecasts for the test set.

        Args:
            predictions: of the model, (windows, horizon, targets).
            baselines: {name: forecasts of the same shape}.
            band: between two quantiles of the first target.
        """
        errors = {name: np.nanmean(np.abs(forecasts - self.test.targets)) for name, forecasts in baselines.items()}
        best_first = {name: baselines[name] for name in sorted(errors, key=lambda name: errors[name])}
        units = {"unit": self.settings.unit, "time_unit": self.settings.time_unit}
        shown = int(self.targeted[0])  # the first target
        variable = ""
        if len(self.targeted) > 1:
            variable = self.variables[shown] if shown < len(self.variables) else f"first of {len(self.targeted)} series"
        first = {name: forecasts[..., 0] for name, forecasts in best_first.items()}
        windows, targets = self.test.array[..., shown], self.test.targets[..., 0]
        return {
            "forecast.png": forecast_figures.forecasts(
                windows, targets, predictions[..., 0], first, variable=variable, band=band, **units
            ),
            "error_by_step.png": forecast_figures.error_by_step(self.test.targets, predictions, best_first, **units),
        }
