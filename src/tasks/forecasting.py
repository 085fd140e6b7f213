"""Forecasting of time series."""

import warnings
from typing import Any

import keras
import numpy as np
from keras import KerasTensor, layers, ops
from matplotlib.figure import Figure
from numpy.lib.stride_tricks import sliding_window_view
from statsmodels.tsa.holtwinters import ExponentialSmoothing

from recipes.specs import Forecast, Series
from src.config.tasks import ForecastingSettings
from src.datasets import Data, Split
from src.errors import UserError
from src.tasks.base import Metrics, ServingFunction, Task


class Forecasting(Task):
    """Prediction of the `horizon` steps of a series that follow a window.

    Inputs (windows, window, features), targets (windows, horizon, features), predictions and errors are in the unit of the
    series. A window lies within one split of the data, or, with `task.reach_back`, begins in the one before; targets never do.
    Scales are measured on the training set alone.
    """

    def __init__(self, settings: ForecastingSettings, data: Data):
        if not np.issubdtype(data.train.raw.dtype, np.floating):
            raise UserError(f"dataset={data.name}: forecasting needs a series of numbers, but the inputs are not numbers.")
        self.settings = settings
        self.units = {"mae": settings.unit, "rmse": settings.unit}
        self.series = {name: _interpolate(getattr(data, name).raw) for name in ("train", "validation", "test")}
        if settings.include_history:
            self._include_history()
        self.train, self.validation, self.test = (self._windows(name, series) for name, series in self.series.items())
        features = self.train.array.shape[2]
        self.inputs = Series(settings.window, features)
        self.outputs = Forecast(settings.horizon, features)
        # Of the training set alone, (features,) each:
        self.mean = self.train.array.mean(axis=(0, 1))
        self.scale = np.maximum((self.train.array - self._center(self.train.array)).std(axis=(0, 1)), 1e-6)
        train = self.series["train"]
        self.deviation = train.std(axis=0)  # (features,)
        # Mean error of the seasonal naive forecast, one season ahead, within the training set (Hyndman & Koehler 2006).
        self.naive_error = np.abs(train[settings.season :] - train[: -settings.season]).mean(axis=0)  # (features,)

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
        windows = sliding_window_view(series, window + horizon, axis=0).swapaxes(1, 2)  # (windows, window + horizon, features)
        return Split(inputs=windows[:, :window].copy(), targets=windows[:, window:].copy())

    def wrap(self, network: keras.Model) -> keras.Model:
        # In float32 whatever the precision of the network: in 16 bits, 371.3 ppm and 372.2 ppm are the same number.
        series = keras.Input(network.input_shape[1:], dtype="float32", name="series")
        scale = layers.Rescaling(1 / self.scale, dtype="float32", name="scale")
        unscale = layers.Rescaling(self.scale, dtype="float32", name="unscale")
        match self.settings.center:
            case "last":
                center = series[:, -1:]
            case "mean":
                center = ops.mean(series, axis=1, keepdims=True)
            case "train":
                center = layers.Rescaling(0.0, offset=self.mean, dtype="float32", name="training_mean")(series[:, -1:])
        centered = layers.Subtract(dtype="float32", name="center")([series, center])
        forecast = layers.Add(dtype="float32", name="uncenter")([unscale(network(scale(centered))), center])
        return keras.Model(series, forecast, name=network.name)

    def _center(self, windows: np.ndarray) -> np.ndarray:
        """The values that are subtracted from windows (windows, window, features): (windows or 1, 1, features)."""
        match self.settings.center:
            case "last":
                return windows[:, -1:]
            case "mean":
                return windows.mean(axis=1, keepdims=True)
            case "train":
                return self.mean[None, None]

    def loss(self) -> keras.losses.Loss:
        return StandardizedSquaredError(self.scale.tolist())

    def training_metrics(self, model: keras.Model) -> list[keras.metrics.Metric]:
        return [keras.metrics.MeanAbsoluteError(name="mae")]

    def metrics(self, split: Split, predictions: np.ndarray) -> Metrics:
        """MAE and RMSE in the unit of the series; MASE and skill compare with the seasonal naive forecast.

        mase: MAE relative to that of the seasonal naive forecast within the training set.
        skill: 1 − MAE relative to that of the seasonal naive forecast on the same windows; 0 equals naive, 1 is perfect.
        standardized_mae, standardized_mse: in standard deviations of the training set, as in the literature on ETT.
        """
        error = predictions.astype(np.float64) - split.targets  # (windows, horizon, features)
        absolute = np.abs(error).mean(axis=(0, 1))  # (features,)
        naive = np.abs(self._seasonal_naive(split) - split.targets).mean()
        with np.errstate(divide="ignore", invalid="ignore"):  # the naive forecast of an exactly periodic series has no error
            return {
                "mae": float(absolute.mean()),
                "rmse": float(np.sqrt(np.square(error).mean())),
                "mase": float((absolute / self.naive_error).mean()),
                "skill": float(1 - absolute.mean() / naive),
                "standardized_mae": float(np.abs(error / self.deviation).mean()),
                "standardized_mse": float(np.square(error / self.deviation).mean()),
            }

    def baselines(self) -> dict[str, Metrics]:
        forecasts = {"seasonal_naive": self._seasonal_naive(self.test)}
        if len(self.series["train"]) >= 2 * self.settings.season:  # fitting needs two seasons
            forecasts["exponential_smoothing"] = self._exponential_smoothing()
        return {name: self.metrics(self.test, forecast) for name, forecast in forecasts.items()}

    def _seasonal_naive(self, split: Split) -> np.ndarray:
        """Forecast the value of one season ago."""
        steps = np.arange(self.settings.horizon) % self.settings.season
        return split.array[:, steps - self.settings.season]

    def _exponential_smoothing(self) -> np.ndarray:
        """Forecasts of additive Holt–Winters, fitted on the training set. Unlike a recipe it sees all history."""
        season, test = self.settings.season, self.series["test"]
        prepended = self.settings.window * self.settings.include_history  # steps that belong to the split before
        splits = [self.series["train"], self.series["validation"][prepended:], test[prepended:]]
        history = np.concatenate(splits).astype(np.float64)
        origins = np.arange(len(history) - len(test), len(history))[self.settings.window - 1 : -self.settings.horizon]
        forecasts = [
            holt_winters(column, len(self.series["train"]), season, origins[: len(self.test)], self.settings.horizon)
            for column in history.T
        ]
        return np.stack(forecasts, axis=-1)

    def serving_fn(self, model: keras.Model) -> tuple[ServingFunction, list[Any]]:
        """Windows (batch, window, features) to `forecast` (batch, horizon, features), both in the series' own unit."""
        return lambda series: {"forecast": model(series, training=False)}, [model]

    def figures(self, model: keras.Model, predictions: np.ndarray) -> dict[str, Figure | str]:
        return {
            "forecast.png": self._forecasts(predictions),
            "error_by_step.png": self._error_by_step(predictions),
        }

    def _forecasts(self, predictions: np.ndarray) -> Figure:
        """Input, target and forecast of three evenly spaced windows of the test set."""
        window, horizon = self.settings.window, self.settings.horizon
        past, future = np.arange(-window, 0), np.arange(horizon)
        naive = self._seasonal_naive(self.test)
        indices = np.unique(np.linspace(0, len(self.test) - 1, 3).astype(int))
        figure = Figure(figsize=(9, 2.8 * len(indices)), layout="constrained")
        for axes, index in zip(figure.subplots(len(indices), squeeze=False).flat, indices):
            axes.plot(past, self.test.array[index, :, 0], color="0.5", label="input")
            axes.plot(future, self.test.targets[index, :, 0], color="black", label="target")
            axes.plot(future, naive[index, :, 0], color="tab:orange", linestyle=":", label="seasonal naive")
            axes.plot(future, predictions[index, :, 0], color="tab:blue", label="forecast")
            axes.set(xlabel="steps from the end of the window", ylabel=self.settings.unit, title=f"test window {index}")
        figure.axes[0].legend(ncols=4, fontsize=8)
        return figure

    def _error_by_step(self, predictions: np.ndarray) -> Figure:
        figure = Figure(figsize=(7, 4), layout="constrained")
        axes = figure.subplots()
        steps = np.arange(1, self.settings.horizon + 1)
        for name, forecast, style in (("forecast", predictions, "-"), ("seasonal naive", self._seasonal_naive(self.test), ":")):
            axes.plot(steps, np.abs(forecast - self.test.targets).mean(axis=(0, 2)), style, label=name)
        axes.set(xlabel="steps ahead", ylabel=f"MAE ({self.settings.unit})", ylim=(0, None), title="Error on the test set")
        axes.legend()
        return figure


class StandardizedSquaredError(keras.losses.Loss):
    """Mean squared error in units of `scale`: the learning rate need not be adapted to the unit of the series.

    Args:
        scale: one divisor for each feature.
    """

    def __init__(self, scale: list[float], name: str = "standardized_squared_error", **kwargs: Any):
        super().__init__(name=name, **kwargs)
        self.scale = scale

    def call(self, y_true: KerasTensor, y_pred: KerasTensor) -> KerasTensor:
        """Loss (batch,) of predictions (batch, horizon, features)."""
        return ops.mean(ops.square((y_true - y_pred) / ops.convert_to_tensor(self.scale, y_pred.dtype)), axis=(1, 2))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "scale": self.scale}


def holt_winters(series: np.ndarray, training_steps: int, season: int, origins: np.ndarray, horizon: int) -> np.ndarray:
    """Forecasts of additive Holt–Winters exponential smoothing: (origins, horizon).

    Args:
        series: (time,).
        training_steps: number of first steps on which the smoothing constants and the initial state are fitted.
        season: steps in a season.
        origins: index of the last step that each forecast sees.
        horizon: steps to forecast.
    """
    options = {"trend": "add", "seasonal": "add", "seasonal_periods": season}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the optimizer did not converge: the fit is good enough for a baseline
        fitted = ExponentialSmoothing(series[:training_steps], **options, initialization_method="estimated").fit().params
    initial = {name: fitted[name] for name in ("initial_level", "initial_trend")} | {
        "initial_seasonal": fitted["initial_seasons"]
    }
    constants = {name: fitted[name] for name in ("smoothing_level", "smoothing_trend", "smoothing_seasonal")}
    # With all constants given, this is one pass over the series, which yields the state after every step.
    state = ExponentialSmoothing(series, **options, initialization_method="known", **initial).fit(**constants, optimized=False)
    ahead = np.arange(1, horizon + 1)
    seasonal = np.asarray(state.season)[origins[:, None] - season + 1 + (ahead - 1) % season]
    return np.asarray(state.level)[origins, None] + ahead * np.asarray(state.trend)[origins, None] + seasonal


def _interpolate(series: np.ndarray) -> np.ndarray:
    """Interpolate missing values linearly: (time,) or (time, features) to float32 (time, features)."""
    columns = series.reshape(len(series), -1).astype(np.float64)
    time = np.arange(len(series))
    for column in columns.T:
        valid = ~np.isnan(column)
        if not valid.any():
            raise UserError("A split of the series holds no number at all; choose other dataset.splits.")
        column[:] = np.interp(time, time[valid], column[valid])
    return columns.astype(np.float32)
