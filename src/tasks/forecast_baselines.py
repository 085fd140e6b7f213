"""The baselines of forecasting, fitted to the series of a task."""

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

import numpy as np
from threadpoolctl import threadpool_limits

from src.config.tasks import ForecastingSettings
from src.datasets import Split
from src.tasks.baselines import forecasting as methods
from src.tasks.baselines.interface import Prediction, SkippedError, join_notes, sample_note, spaced_rows
from src.tasks.gaps import carry_forward, interpolate

T = TypeVar("T")
Forecaster = Callable[[np.ndarray], np.ndarray]  # from windows to forecasts

MAX_STEPS = 300_000  # steps times features of a series that is fitted feature by feature, in about a minute; more are skipped
MAX_PRODUCTS = 3e11  # multiplications of one ridge regression, a few seconds; more are skipped
CHUNK = 2**22  # values of windows that are copied at once


class Fitted(NamedTuple):
    """A method that was fitted on the training set.

    Attributes:
        forecast: from a split to forecasts (windows, horizon, targets).
        note: the hyperparameters that were chosen on the validation set, and how much of the training set was used.
    """

    forecast: Callable[[Split], np.ndarray]
    note: str

    def predict(self, split: Split) -> Prediction:
        """The forecasts for a split, with the note."""
        return Prediction(self.forecast(split), self.note)


@dataclass(frozen=True)
class ForecastBaselines:
    """Forecasts (windows, horizon, targets) of simple methods, in the unit of the series.

    Attributes:
        settings: of the task.
        series: {split: (time, features)}, with NaN where a value is missing.
        splits: {split: windows}, with the names train, validation and test.
        targeted: indices of the features that are forecast, (targets,).
        scale: of each feature.
        constant: whether each target keeps one value in the training set, which is then forecast.
    """

    settings: ForecastingSettings
    series: Mapping[str, np.ndarray]
    splits: Mapping[str, Split]
    targeted: np.ndarray
    scale: np.ndarray
    constant: np.ndarray

    def repeat_last(self, split: Split) -> np.ndarray:
        """The last value of each window."""
        return methods.repeat_last(self._of_targets(split.array), self.settings.horizon)

    def seasonal_naive(self, split: Split) -> np.ndarray:
        """The last season of each window."""
        return methods.seasonal_naive(self._of_targets(split.array), self.settings.season, self.settings.horizon)

    # --- with all history up to the end of a window of the test set

    def drift(self, test: Split) -> np.ndarray:
        """The straight line through the first and the last value."""
        return methods.drift(self._of_targets(test.array), *self._history(test, filled=False), self.settings.horizon)

    def seasonal_naive_with_drift(self, test: Split) -> np.ndarray:
        """The last season of each window, with the mean change from season to season."""
        history = self._history(test, filled=False)
        windows = self._of_targets(test.array)
        return methods.seasonal_naive_with_drift(windows, *history, self.settings.season, self.settings.horizon)

    def exponential_smoothing(self, test: Split) -> np.ndarray:
        """Additive Holt–Winters."""
        return self._from_history(test, methods.holt_winters)

    def theta(self, test: Split) -> np.ndarray:
        """The Theta method."""
        return self._from_history(test, methods.theta)

    def _history(self, test: Split, filled: bool) -> tuple[np.ndarray, np.ndarray]:
        """The whole series (time, targets), float64, and the index of the last step of each test window.

        Args:
            test: the test set.
            filled: whether missing values are filled in, interpolated in the training set and else with the value before.
        """
        train, validation, tested = (self._of_targets(self.series[name]) for name in ("train", "validation", "test"))
        prepended = self.settings.window * self.settings.include_history  # steps that belong to the split before
        later = np.concatenate([validation[prepended:], tested[prepended:]])
        if filled:
            train = interpolate(train)
            later = carry_forward(later, initial=train[-1])
        history = np.concatenate([train, later]).astype(np.float64)
        origins = np.arange(len(history) - len(tested), len(history))[self.settings.window - 1 : -self.settings.horizon]
        return history, origins[: len(test)]

    def _from_history(self, test: Split, method: Callable[..., np.ndarray]) -> np.ndarray:
        """Forecasts of a method of `src.tasks.baselines.forecasting` that is fitted to each feature."""
        history, origins = self._history(test, filled=True)
        steps = len(self.series["train"])
        _check_steps(history)
        forecasts = methods.repeat_last(self._of_targets(test.array).astype(np.float64), self.settings.horizon)
        with threadpool_limits(1):  # matrices are small: several threads spend most of their time waiting for each other
            for feature in np.flatnonzero(~self.constant):
                arguments = steps, self.settings.season, origins, self.settings.horizon
                forecasts[..., feature] = method(history[:, feature], *arguments)
        return forecasts

    # --- fitted on the training set

    def ridge(self) -> Fitted:
        """Ridge regression of all steps of the forecast on all values of a window."""
        train = self.splits["train"]
        size = train.array[0].size
        rows = spaced_rows(len(train), methods.MAX_VALUES // size)
        products = len(rows) * size**2 * methods.count_masks(train.targets[rows])
        if products > MAX_PRODUCTS:
            raise SkippedError(f"{products:.1e} multiplications for each λ are more than {MAX_PRODUCTS:.1e}")
        scale = self.scale[self.targeted]
        inputs, targets = train.array[rows] / self.scale, train.targets[rows].astype(np.float64) / scale

        def fit(penalty: float) -> Forecaster:
            forecast = methods.ridge(inputs, targets, penalty, self.targeted)
            return lambda windows: forecast(windows / self.scale) * scale

        fits = {penalty: functools.partial(fit, penalty) for penalty in methods.PENALTIES}
        penalty, forecast = self._best(fits, lambda split: split.array)
        return Fitted(forecast, join_notes(f"λ = {penalty:g}", sample_note(len(rows), len(train), "windows")))

    def autoregression(self) -> Fitted:
        """Autoregression of each target, step by step."""
        train = self._of_targets(self.series["train"]).astype(np.float64)
        _check_steps(train)
        orders = methods.candidate_orders(self.settings.season, self.settings.window, len(train))
        fits = {order: functools.partial(methods.autoregression, train, order, self.settings.horizon) for order in orders}
        order, forecast = self._best(fits, lambda split: self._of_targets(split.array))
        return Fitted(forecast, f"p = {order}")

    def _best(
        self, fits: Mapping[T, Callable[[], Forecaster]], windows_of: Callable[[Split], np.ndarray]
    ) -> tuple[T, Callable[[Split], np.ndarray]]:
        """The hyperparameter with the smallest mean absolute error on the validation set, and forecasts of a split with it.

        Args:
            fits: {hyperparameter: function that fits a forecaster with it}.
            windows_of: what a forecaster takes of a split.
        """
        validation = self.splits["validation"]
        best: tuple[float, T, Forecaster] | None = None
        with threadpool_limits(1):  # as above
            for hyperparameter, fit in fits.items():
                forecaster = fit()
                forecasts = _in_chunks(forecaster, windows_of(validation))
                error = float(np.nanmean(np.abs(forecasts - validation.targets)))
                if best is None or error < best[0] or np.isnan(best[0]):  # an unstable one has no number as error
                    best = error, hyperparameter, forecaster
        if best is None:
            raise ValueError("There is no hyperparameter to choose from.")
        _, chosen, forecaster = best
        return chosen, lambda split: _in_chunks(forecaster, windows_of(split))

    def _of_targets(self, values: np.ndarray) -> np.ndarray:
        """The features of windows or of a series (…, features) that are forecast."""
        return values if len(self.targeted) == values.shape[-1] else values[..., self.targeted]


def chunks(windows: np.ndarray) -> list[np.ndarray]:
    """Windows (windows, …) in parts of about `CHUNK` values: what is computed from a view of a series is none."""
    return np.array_split(windows, -(-windows.size // CHUNK))


def _in_chunks(forecaster: Forecaster, windows: np.ndarray) -> np.ndarray:
    """What a forecaster forecasts for windows."""
    return np.concatenate([forecaster(chunk) for chunk in chunks(windows)])


def _check_steps(series: np.ndarray) -> None:
    """Raise a SkippedError if a series is too long to be fitted feature by feature."""
    if series.size > MAX_STEPS:
        raise SkippedError(f"{series.size:,} steps times features are more than {MAX_STEPS:,}")
