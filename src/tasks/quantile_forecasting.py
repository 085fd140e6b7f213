"""Quantile forecasting: forecasts with their uncertainty."""

import functools
from collections.abc import Callable, Mapping
from types import MappingProxyType

import keras
import numpy as np
import tensorflow as tf
from keras import KerasTensor, layers, ops

from recipes.specs import Forecast
from src.config.tasks import QuantileForecastingSettings
from src.datasets import Data, Split
from src.tasks import forecast_figures
from src.tasks.base import Figures, Metrics
from src.tasks.baselines.interface import Baselines, Prediction, join_notes
from src.tasks.forecast_baselines import Fitted
from src.tasks.forecasting import Forecasting
from src.tasks.losses import MedianError, PinballLoss
from src.tasks.serving import DEFAULT_FUNCTION, Serving, batch_spec


class QuantileForecasting(Forecasting):
    """Quantiles of each of the `horizon` steps of a series that follow a window.

    Predictions are (windows, horizon, targets, quantiles), in the unit of the series; the median is the forecast. Quantiles of
    a network may cross, as it computes each by itself; they are sorted, which never increases the pinball loss (Chernozhukov,
    Fernández-Val & Galichon: Quantile and probability curves without crossing. Econometrica 2010).
    """

    settings: QuantileForecastingSettings

    def __init__(self, settings: QuantileForecastingSettings, data: Data):
        super().__init__(settings, data)
        self.levels, self.median = np.array(settings.quantiles), settings.quantiles.index(0.5)
        self.units |= dict.fromkeys(("crps", "pinball_loss", "interval_width"), settings.unit)
        self.outputs = Forecast(settings.horizon, len(self.targeted) * len(self.levels))

    def unscale(self, output: KerasTensor, center: KerasTensor) -> KerasTensor:
        """The sorted quantiles (batch, horizon, targets, quantiles) in the unit of the series."""
        shape = (self.settings.horizon, len(self.targeted), len(self.levels))
        quantiles = ops.sort(layers.Reshape(shape, dtype="float32", name="quantiles")(output), axis=-1)
        scaled = layers.Rescaling(self.scale[self.targeted][:, None], dtype="float32", name="unscale")(quantiles)
        return layers.Add(dtype=center.dtype, name="uncenter")([scaled, center[..., None]])

    def loss(self) -> keras.losses.Loss:
        dtype = self.train.targets.dtype.name
        return PinballLoss(self.settings.quantiles, self.scale[self.targeted].tolist(), self.observed, dtype=dtype)

    def training_metrics(self, model: keras.Model) -> list[keras.metrics.Metric]:
        return [MedianError(self.median, name="mae")]

    def metrics(self, split: Split, predictions: np.ndarray) -> Metrics:
        """Those of the median, and of the quantiles:

        pinball_loss: mean over the quantiles.
        crps: continuous ranked probability score, 2 ∫ pinball loss dq (Laio & Tamea 2007), for which each quantile stands for
            the levels that are nearest to it.
        coverage: share of the targets between the lowest and the highest quantile.
        coverage_error: by how much that differs from the difference between their levels.
        interval_width: mean distance between these quantiles.
        """
        losses = self._pinball_losses(split, predictions)
        low, high, observed = predictions[..., 0], predictions[..., -1], ~np.isnan(split.targets)
        coverage = float(((low <= split.targets) & (split.targets <= high))[observed].mean())
        return {
            "crps": float(np.nanmean(self._crps(losses))),
            "pinball_loss": float(np.nanmean(losses)),
            "coverage": coverage,
            "coverage_error": abs(coverage - float(self.levels[-1] - self.levels[0])),
            "interval_width": float(np.mean(high - low)),
            **super().metrics(split, predictions[..., self.median]),
        }

    def _pinball_losses(self, split: Split, predictions: np.ndarray) -> np.ndarray:
        """The loss of each quantile, (windows, horizon, targets, quantiles); NaN where targets are missing."""
        errors = np.asarray(split.targets)[..., None] - predictions.astype(np.float64)
        return np.maximum(self.levels * errors, (self.levels - 1) * errors)

    def _crps(self, losses: np.ndarray) -> np.ndarray:
        """The score of each value (windows, horizon, targets) from the losses of its quantiles."""
        edges = np.concatenate([[0], (self.levels[:-1] + self.levels[1:]) / 2, [1]])
        return 2 * losses @ np.diff(edges)

    def example_results(self, split: Split, predictions: np.ndarray) -> dict[str, np.ndarray]:
        """As those of the median, with the continuous ranked probability score and the quantiles."""
        scores = self._crps(self._pinball_losses(split, predictions)).ravel()
        quantiles = {
            f"quantile_{level:g}": values.ravel() for level, values in zip(self.levels, np.moveaxis(predictions, -1, 0))
        }
        return super().example_results(split, predictions[..., self.median]) | {"crps": scores} | quantiles

    def baselines(self) -> Baselines:
        """Point forecasts, plus the quantiles of their errors on the validation set, for each step and target."""
        methods = self.methods()
        fits: dict[str, Callable[[], Fitted]] = {
            "repeat_last": lambda: Fitted(methods.repeat_last, ""),
            "seasonal_naive": lambda: Fitted(methods.seasonal_naive, ""),
            "ridge": methods.ridge,
            "autoregression": methods.autoregression,
        }
        return {name: functools.partial(self._with_error_quantiles, fit) for name, fit in fits.items()}

    def _with_error_quantiles(self, fit: Callable[[], Fitted]) -> Prediction:
        fitted = fit()
        errors = self.validation.targets - fitted.forecast(self.validation)
        quantiles = np.moveaxis(np.nanquantile(errors, self.levels, axis=0), 0, -1)  # (horizon, targets, quantiles)
        return Prediction(fitted.forecast(self.test)[..., None] + quantiles, join_notes(fitted.note, "errors of validation"))

    def serving(self, model: keras.Model) -> Serving:
        """Windows (batch, window, features) to `forecast`, the median (batch, horizon, targets), and `quantiles`."""

        def forecast(inputs: tf.Tensor) -> dict:
            quantiles = model(inputs, training=False)
            return {"forecast": quantiles[..., self.median], "quantiles": quantiles}

        shape, dtype = (self.settings.horizon, len(self.targeted)), model.output.dtype
        units = {"unit": self.settings.unit, "time_unit": self.settings.time_unit}
        return Serving(
            "ArrayModel", {DEFAULT_FUNCTION: (forecast, {"inputs": batch_spec(self.train.array)})}, [model],
            example=self.test.raw[:1], settings={"levels": list(self.settings.quantiles), **units},
            outputs={"forecast": (dtype, shape), "quantiles": (dtype, (*shape, len(self.levels)))},
        )  # fmt: skip

    def figures(
        self, model: keras.Model, predictions: np.ndarray, baselines: Mapping[str, np.ndarray] = MappingProxyType({})
    ) -> Figures:
        low, *_, high = self.settings.quantiles
        band = forecast_figures.Band(predictions[..., 0, 0], predictions[..., 0, -1], f"quantiles {low:g} to {high:g}")
        medians = {name: values[..., self.median] for name, values in baselines.items()}
        targets = np.asarray(self.test.targets)
        below = (targets[..., None] <= predictions)[~np.isnan(targets)].mean(axis=0)
        return {
            **self.draw(predictions[..., self.median], medians, band),
            **self.series_table(predictions, baselines),
            "calibration.png": forecast_figures.calibration(self.settings.quantiles, below),
        }
