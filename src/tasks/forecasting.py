"""Forecasting of time series."""

import logging
import math
from collections.abc import Callable, Mapping
from types import MappingProxyType

import keras
import numpy as np
import tensorflow as tf
from keras import KerasTensor, layers, ops

from recipes.specs import Forecast, Series
from src.config.tasks import TASKS, ForecastingSettings
from src.datasets import Data, Split, conversion, validation
from src.datasets.concatenation import concatenate, parts_of
from src.errors import UserError
from src.tasks import forecast_figures, windows
from src.tasks.base import Figures, Metrics, Task
from src.tasks.baselines.interface import Baselines, Prediction, spaced_rows
from src.tasks.forecast_baselines import ForecastBaselines, chunks
from src.tasks.losses import MeanAbsoluteError, StandardizedSquaredError
from src.tasks.serving import DEFAULT_FUNCTION, Serving, batch_spec

log = logging.getLogger(__name__)
MAX_SCALE_VALUES = 30_000_000  # values of windows that scales are measured on, 120 MB: all of ETTh1 with seven variables


class Forecasting(Task):
    """Prediction of the `horizon` steps of a series that follow a window.

    Inputs (windows, window, features), targets (windows, horizon, targets), predictions and errors are in the unit of the
    series. The targets are some or all of the features. With `task.calendar` there are further features: what the calendar
    shows `horizon` steps after each step of a window, so that the last ones of a window show it for all steps of the forecast.

    A window lies within one series and one split of the data, or, with `task.include_history`, begins in the split before;
    targets never do. Windows are views of the series, so that they need no memory of their own; only if values are missing,
    windows of inputs are copies. Scales are measured on the training set alone, on evenly spaced windows of it if it is large.
    All series have the same: a window does not say which series it is of, so that a model also forecasts others. Levels are
    those of each window, unless `task.center` is that of the training set.

    Missing values are NaN in targets, which count in no loss and no metric; in inputs they are filled in (`fill_gaps`). The
    series is float32 if that holds its values exactly; otherwise it is float64 until it is centered, so that small changes of
    a large value survive.

    Attributes:
        series: {split: {series: (time, features)}}, with NaN where a value is missing; the last features are those of the
            calendar. The name of the only series is empty.
        targeted: indices of the features that are forecast, (targets,).
        constant: whether each of these keeps one value in the training set: it is scaled by 1, and left out of scaled errors.
    """

    def __init__(self, settings: ForecastingSettings, data: Data):
        validation.check_series(data)
        self.settings = settings
        self.units = {"mae": settings.unit, "rmse": settings.unit}
        steps = {name: conversion.to_float(split.array) for name, split in data.splits.items()}  # of all series
        _log_gaps(steps)
        self.variables = data.variables
        self.targeted = np.arange(steps["train"].shape[1])
        if data.variables != data.target_variables:
            self.targeted = np.array([data.variables.index(name) for name in data.target_variables])
        if settings.calendar:
            steps = windows.with_calendar(steps, data, settings.calendar, settings.horizon)
        self.series: windows.SeriesOfSplits = {name: data.by_series(name, of_split) for name, of_split in steps.items()}
        # Of the training set alone, (features,) or (targets,) each:
        train = steps["train"]
        constant = np.nanmin(train, axis=0) == np.nanmax(train, axis=0)
        self.constant = constant[self.targeted]
        self._log_constant(data.name)
        self.deviation = np.nanstd(train[:, self.targeted], axis=0)
        # Mean error of the seasonal naive forecast, one season ahead, within the training set (Hyndman & Koehler 2006).
        targets = [series[:, self.targeted] for series in self.series["train"].values()]
        seasonal_changes = np.concatenate([each[settings.season :] - each[: -settings.season] for each in targets])
        self.naive_error = np.nanmean(np.abs(seasonal_changes), axis=0)
        if settings.include_history:
            self.series = windows.with_history(self.series, settings.window)
        self.train, self.validation, self.test = (
            windows.windows_of(self.series, name, settings, self.targeted) for name in data.splits
        )
        self.inputs = Series(settings.window, self.train.array.shape[2])
        self.outputs = Forecast(settings.horizon, len(self.targeted))
        sample = self.train.array[spaced_rows(len(self.train), MAX_SCALE_VALUES // self.train.array[0].size)]
        self.mean = sample.mean(axis=(0, 1))
        scale = (sample - self._center(sample)).std(axis=(0, 1))
        self.scale = np.where(constant | (scale == 0), 1, scale)

    def _log_constant(self, name: str) -> None:
        if self.constant.all():
            raise UserError(f"The training split of dataset={name} keeps one value, so there is nothing to learn from it.")
        if self.constant.any():
            log.warning(
                "Of the %d targets of the series these keep one value in the training split: %s (counted from 0); scaled "
                "errors leave them out.", len(self.constant), ", ".join(map(str, np.flatnonzero(self.constant))),
            )  # fmt: skip

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
        scaled = scale(centered)
        output = network(scaled)
        if self.settings.linear:
            output = layers.Add(dtype="float32", name="network_and_linear")([output, self._linear(scaled)])
        return keras.Model(series, self.unscale(output, center), name=network.name)

    def _linear(self, window: KerasTensor) -> KerasTensor:
        """A linear model from the window of each target to its forecast, with the same weights for all targets.

        Starts at 0, so that the network with it forecasts at first what it would without.

        Args:
            window: scaled, (batch, window, features).

        Returns:
            (batch, horizon, targets · values), as the output of the network.
        """
        targets, horizon = len(self.targeted), self.settings.horizon
        values = self.outputs.features // targets  # of each step: one, or the quantiles
        history = ops.transpose(ops.take(window, self.targeted, axis=-1), (0, 2, 1))  # (batch, targets, window)
        forecast = layers.Dense(horizon * values, kernel_initializer="zeros", dtype="float32", name="linear")(history)
        forecast = ops.reshape(forecast, (-1, targets, horizon, values))
        return ops.reshape(ops.transpose(forecast, (0, 2, 1, 3)), (-1, horizon, targets * values))

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
        return sum(np.count_nonzero(~np.isnan(chunk)) for chunk in chunks(self.train.targets)) / self.train.targets.size

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

        The deviation of a constant target is NaN. Where there are several series, their names are in a column.
        """
        window, step, feature = (index.ravel() for index in np.indices(predictions.shape))
        deviation = np.where(self.constant, np.nan, self.deviation)
        values = {"target": np.asarray(split.targets).ravel(), "forecast": predictions.ravel(), "deviation": deviation[feature]}
        parts = parts_of(split.targets)
        names = np.repeat(np.array(list(parts), object), list(map(len, parts.values())))
        series = {"series": names[window]} if len(parts) > 1 else {}
        return {**series, "window": window, "step": step, "feature": feature, **values}

    def baselines(self) -> Baselines:
        """Those that continue the last values of a window need nothing else; the others are fitted on the training set.

        Drift, exponential smoothing and Theta see all history of a series up to the end of a window, unlike a recipe, and are
        fitted to each series by itself; ridge regression and autoregression to all together. Exponential smoothing and Theta
        forecast a constant feature as its last value.
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
        if min(map(len, self.series["train"].values())) < 2 * self.settings.season:
            for name in ("seasonal_naive_with_drift", "exponential_smoothing", "theta"):  # fitting needs two seasons
                del named[name]
        return named

    def methods(self) -> ForecastBaselines:
        """The baselines on the splits of this task."""
        splits = {"train": self.train, "validation": self.validation, "test": self.test}
        return ForecastBaselines(self.settings, self.series, splits, self.targeted, self.scale)

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
        return {**self.draw(predictions, baselines), **self.series_table(predictions, baselines)}

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
        inputs = concatenate({name: of_series[..., shown] for name, of_series in parts_of(self.test.array).items()})
        targets = np.asarray(self.test.targets)[..., 0]
        return {
            "forecast.png": forecast_figures.forecasts(
                inputs, targets, predictions[..., 0], first, variable=variable, band=band, **units
            ),
            "error_by_step.png": forecast_figures.error_by_step(self.test.targets, predictions, best_first, **units),
        }

    def series_table(self, predictions: np.ndarray, baselines: Mapping[str, np.ndarray]) -> Figures:
        """A page with the leading metric of each series on the test set; none where there is only one.

        Args:
            predictions: of the model for the test set, as `metrics` takes them.
            baselines: {name: predictions}, of which the best one is shown.
        """
        inputs, targets = parts_of(self.test.array), parts_of(self.test.targets)
        if len(targets) == 1:
            return {}
        splits = [Split(inputs[name], targets[name]) for name in targets]
        ends = np.cumsum(list(map(len, splits)))[:-1]
        metric = TASKS[self.settings.name].leading_metric

        def by_series(forecasts: np.ndarray) -> list[float]:
            return [self.metrics(split, own)[metric] for split, own in zip(splits, np.split(forecasts, ends))]

        best = sorted(baselines, key=lambda name: self.metrics(self.test, baselines[name])[metric])[:1]
        results = {"model": by_series(predictions), **{name: by_series(baselines[name]) for name in best}}
        counts = {name: len(split) for name, split in zip(targets, splits)}
        return {"series.html": forecast_figures.series_table(counts, results, f"{metric} ({self.units[metric]})")}


def _log_gaps(steps: Mapping[str, np.ndarray]) -> None:
    """Log how many values of each split (time, features) are missing."""
    for name, values in steps.items():
        count = int(np.isnan(values).sum())
        if count:
            log.info(
                "%.1f %% of the values of the %s split are missing: they are filled in where they are inputs, and count in "
                "no loss and no metric where they are targets.", 100 * count / values.size, name,
            )  # fmt: skip
