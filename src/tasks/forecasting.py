"""Forecasting: given what a series did up to now, what will it do next?"""

import warnings
from typing import Any

import keras
import numpy as np
from keras import KerasTensor, layers, ops
from matplotlib.figure import Figure
from numpy.lib.stride_tricks import sliding_window_view
from statsmodels.tsa.holtwinters import ExponentialSmoothing

from recipes.specs import Forecast, Series
from src import settings
from src.datasets import Data, Part
from src.errors import UserError
from src.serving import Answer
from src.tasks.task import Metrics, Task


class Forecasting(Task):
    """Windows of a series to the values that follow.

    Inputs (windows, window, features) and targets (windows, horizon, features) are in the series' own unit, and so are
    predictions and errors. A window and what follows it lie within one part of the data, unless windows may reach back into
    the part before; what is to be forecast never does. What scaling needs is measured on the training part alone.
    """

    def __init__(self, chosen: settings.Forecasting, data: Data):
        if not np.issubdtype(data.train.raw.dtype, np.floating):
            raise UserError(f"dataset={data.name}: forecasting needs a series of numbers, but the inputs are not numbers.")
        self.chosen = chosen
        self.units = {"mae": chosen.unit, "rmse": chosen.unit}
        self.series = {name: _complete(getattr(data, name).raw) for name in ("train", "validation", "test")}
        if chosen.reach_back:
            self._reach_back()
        self.train, self.validation, self.test = (self._windows(name, series) for name, series in self.series.items())
        features = self.train.array.shape[2]
        self.inputs = Series(chosen.window, features)
        self.outputs = Forecast(chosen.horizon, features)
        # Of the training part alone, (features,) each:
        self.mean = self.train.array.mean(axis=(0, 1))
        self.scale = np.maximum((self.train.array - self._center(self.train.array)).std(axis=(0, 1)), 1e-6)
        # Mean error of the seasonal naive forecast, one season ahead, within the training part (Hyndman & Koehler 2006).
        train = self.series["train"]
        self.deviation = train.std(axis=0)  # (features,)
        self.naive_error = np.abs(train[chosen.season :] - train[: -chosen.season]).mean(axis=0)  # (features,)

    def _reach_back(self) -> None:
        """Puts the last window of each part before the next part."""
        for name, before in (("test", "validation"), ("validation", "train")):
            self.series[name] = np.concatenate([self.series[before][-self.chosen.window :], self.series[name]])

    def _windows(self, name: str, series: np.ndarray) -> Part:
        window, horizon = self.chosen.window, self.chosen.horizon
        if len(series) < window + horizon:
            raise UserError(
                f"The {name} part has {len(series)} steps, too few for task.window={window} and task.horizon={horizon}; "
                f"type a smaller window or a larger dataset.splits.{name}."
            )
        both = sliding_window_view(series, window + horizon, axis=0).swapaxes(1, 2)  # (windows, window + horizon, features)
        return Part(inputs=both[:, :window].copy(), targets=both[:, window:].copy())

    def around(self, network: keras.Model) -> keras.Model:
        # In float32 whatever the precision of the network: in 16 bits 371.3 ppm and 372.2 ppm are one number.
        series = keras.Input(network.input_shape[1:], dtype="float32", name="series")
        scale = layers.Rescaling(1 / self.scale, dtype="float32", name="scale")
        unscale = layers.Rescaling(self.scale, dtype="float32", name="unscale")
        match self.chosen.center:
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
        """What each window (windows, window, features) is measured from: (windows or 1, 1, features)."""
        match self.chosen.center:
            case "last":
                return windows[:, -1:]
            case "mean":
                return windows.mean(axis=1, keepdims=True)
            case "train":
                return self.mean[None, None]

    def loss(self) -> keras.losses.Loss:
        return StandardizedSquaredError(self.scale.tolist())

    def training_metrics(self) -> list[keras.metrics.Metric]:
        return [keras.metrics.MeanAbsoluteError(name="mae")]

    def metrics(self, part: Part, predictions: np.ndarray) -> Metrics:
        """MAE and RMSE in the unit of the series; MASE and skill compare with the seasonal naive forecast.

        Standardised MAE and MSE: in standard deviations of the training part, as the literature on ETT reports them.
        MASE: the MAE over that of the seasonal naive forecast within the training part. Skill: 1 − the MAE over that of the
        seasonal naive forecast on the same windows; 0 is as good as naive, 1 is perfect.
        """
        error = predictions.astype(np.float64) - part.targets  # (windows, horizon, features)
        absolute = np.abs(error).mean(axis=(0, 1))  # (features,)
        naive = np.abs(self._seasonal_naive(part) - part.targets).mean()
        with np.errstate(
            divide="ignore", invalid="ignore"
        ):  # a series that repeats itself exactly leaves nothing to compare with
            return {
                "mae": float(absolute.mean()),
                "rmse": float(np.sqrt(np.square(error).mean())),
                "mase": float((absolute / self.naive_error).mean()),
                "skill": float(1 - absolute.mean() / naive),
                "standardized_mae": float(np.abs(error / self.deviation).mean()),
                "standardized_mse": float(np.square(error / self.deviation).mean()),
            }

    def baselines(self) -> dict[str, Metrics]:
        answers = {"seasonal_naive": self._seasonal_naive(self.test)}
        if len(self.series["train"]) >= 2 * self.chosen.season:  # fewer show no season
            answers["exponential_smoothing"] = self._exponential_smoothing()
        return {name: self.metrics(self.test, answer) for name, answer in answers.items()}

    def _seasonal_naive(self, part: Part) -> np.ndarray:
        """What was a season ago comes again."""
        steps = np.arange(self.chosen.horizon) % self.chosen.season
        return part.array[:, steps - self.chosen.season]

    def _exponential_smoothing(self) -> np.ndarray:
        """Additive Holt–Winters, fitted on the training part; unlike a recipe it sees all that came before a window's end."""
        season, test = self.chosen.season, self.series["test"]
        own = {
            name: series[self.chosen.window * self.chosen.reach_back :]
            for name, series in self.series.items()
            if name != "train"
        }
        history = np.concatenate([self.series["train"], own["validation"], own["test"]]).astype(np.float64)
        origins = np.arange(len(history) - len(test), len(history))[self.chosen.window - 1 : -self.chosen.horizon]
        forecasts = [
            holt_winters(column, len(self.series["train"]), season, origins[: len(self.test)], self.chosen.horizon)
            for column in history.T
        ]
        return np.stack(forecasts, axis=-1)

    def served(self, model: keras.Model) -> tuple[Answer, list[Any]]:
        """Series (batch, window, features) to `forecast` (batch, horizon, features), both in the series' own unit."""
        return lambda series: {"forecast": model(series, training=False)}, [model]

    def figures(self, model: keras.Model, predictions: np.ndarray) -> dict[str, Figure | str]:
        return {
            "forecast.png": self._forecasts(predictions),
            "error_by_step.png": self._error_by_step(predictions),
        }

    def _forecasts(self, predictions: np.ndarray) -> Figure:
        """Three windows of the test part, evenly spread: what was seen, what came, what was forecast."""
        window, horizon = self.chosen.window, self.chosen.horizon
        before, after = np.arange(-window, 0), np.arange(horizon)
        naive = self._seasonal_naive(self.test)
        chosen = np.unique(np.linspace(0, len(self.test) - 1, 3).astype(int))
        figure = Figure(figsize=(9, 2.8 * len(chosen)), layout="constrained")
        for axes, index in zip(figure.subplots(len(chosen), squeeze=False).flat, chosen):
            axes.plot(before, self.test.array[index, :, 0], color="0.5", label="seen")
            axes.plot(after, self.test.targets[index, :, 0], color="black", label="truth")
            axes.plot(after, naive[index, :, 0], color="tab:orange", linestyle=":", label="seasonal naive")
            axes.plot(after, predictions[index, :, 0], color="tab:blue", label="forecast")
            axes.set(xlabel="steps from the end of the window", ylabel=self.chosen.unit, title=f"test window {index}")
        figure.axes[0].legend(ncols=4, fontsize=8)
        return figure

    def _error_by_step(self, predictions: np.ndarray) -> Figure:
        figure = Figure(figsize=(7, 4), layout="constrained")
        axes = figure.subplots()
        steps = np.arange(1, self.chosen.horizon + 1)
        for name, answer, style in (("forecast", predictions, "-"), ("seasonal naive", self._seasonal_naive(self.test), ":")):
            axes.plot(steps, np.abs(answer - self.test.targets).mean(axis=(0, 2)), style, label=name)
        axes.set(xlabel="steps ahead", ylabel=f"MAE ({self.chosen.unit})", ylim=(0, None), title="Error on the test part")
        axes.legend()
        return figure


class StandardizedSquaredError(keras.losses.Loss):
    """Mean squared error in units of `scale`, so that the learning rate does not depend on the unit of the series.

    Args:
        scale: one number for each feature.
    """

    def __init__(self, scale: list[float], name: str = "standardized_squared_error", **kwargs: Any):
        super().__init__(name=name, **kwargs)
        self.scale = scale

    def call(self, y_true: KerasTensor, y_pred: KerasTensor) -> KerasTensor:
        """(batch, horizon, features) twice, to (batch,)."""
        return ops.mean(ops.square((y_true - y_pred) / ops.convert_to_tensor(self.scale, y_pred.dtype)), axis=(1, 2))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "scale": self.scale}


def holt_winters(series: np.ndarray, fitted_on: int, season: int, origins: np.ndarray, horizon: int) -> np.ndarray:
    """Forecasts of additive Holt–Winters exponential smoothing: (origins, horizon).

    Args:
        series: (time,).
        fitted_on: the first so many steps are what the smoothing constants and the first state are fitted on.
        season: steps of a season.
        origins: the last step known to each forecast.
        horizon: steps ahead.
    """
    kind = {"trend": "add", "seasonal": "add", "seasonal_periods": season}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that the optimiser stopped short: the fit serves as a baseline all the same
        found = ExponentialSmoothing(series[:fitted_on], **kind, initialization_method="estimated").fit().params
    first = {name: found[name] for name in ("initial_level", "initial_trend")} | {"initial_seasonal": found["initial_seasons"]}
    constants = {name: found[name] for name in ("smoothing_level", "smoothing_trend", "smoothing_seasonal")}
    # With all constants given this is one pass over the series; it leaves the state after every step.
    state = ExponentialSmoothing(series, **kind, initialization_method="known", **first).fit(**constants, optimized=False)
    ahead = np.arange(1, horizon + 1)
    seasonal = np.asarray(state.season)[origins[:, None] - season + 1 + (ahead - 1) % season]
    return np.asarray(state.level)[origins, None] + ahead * np.asarray(state.trend)[origins, None] + seasonal


def _complete(series: np.ndarray) -> np.ndarray:
    """(time,) or (time, features), gaps filled on the straight line between their ends, to float32 (time, features)."""
    columns = series.reshape(len(series), -1).astype(np.float64)
    time = np.arange(len(series))
    for column in columns.T:
        known = ~np.isnan(column)
        if not known.any():
            raise UserError("A part of the series holds no number at all; choose other dataset.splits.")
        column[:] = np.interp(time, time[known], column[known])
    return columns.astype(np.float32)
