"""The baselines of forecasting, fitted to the series of a task."""

import functools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

import numpy as np
from threadpoolctl import threadpool_limits

from src.config.tasks import ForecastingSettings
from src.datasets import Split
from src.datasets.concatenation import parts_of
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


class History(NamedTuple):
    """A series up to its end.

    Attributes:
        values: (time, targets), float64, of the training, validation and test set.
        origins: the index of the last step of each test window.
        training_steps: the number of its first steps that are those of the training set.
    """

    values: np.ndarray
    origins: np.ndarray
    training_steps: int


@dataclass(frozen=True)
class ForecastBaselines:
    """Forecasts (windows, horizon, targets) of simple methods, in the unit of the series.

    Attributes:
        settings: of the task.
        series: {split: {series: (time, features)}}, with NaN where a value is missing.
        splits: {split: windows}, with the names train, validation and test.
        targeted: indices of the features that are forecast, (targets,).
        scale: of each feature.
    """

    settings: ForecastingSettings
    series: Mapping[str, Mapping[str, np.ndarray]]
    splits: Mapping[str, Split]
    targeted: np.ndarray
    scale: np.ndarray

    def repeat_last(self, split: Split) -> np.ndarray:
        """The last value of each window."""
        return _in_chunks(lambda windows: methods.repeat_last(self._of_targets(windows), self.settings.horizon), split.array)

    def seasonal_naive(self, split: Split) -> np.ndarray:
        """The last season of each window."""
        season, horizon = self.settings.season, self.settings.horizon
        return _in_chunks(lambda windows: methods.seasonal_naive(self._of_targets(windows), season, horizon), split.array)

    # --- for each series by itself, with all its history up to the end of a window of the test set

    def drift(self, test: Split) -> np.ndarray:
        """The straight line through the first and the last value."""

        def forecast(windows: np.ndarray, history: History) -> np.ndarray:
            return methods.drift(windows, history.values, history.origins, self.settings.horizon)

        return self._from_history(test, forecast, filled=False)

    def seasonal_naive_with_drift(self, test: Split) -> np.ndarray:
        """The last season of each window, with the mean change from season to season."""
        season, horizon = self.settings.season, self.settings.horizon

        def forecast(windows: np.ndarray, history: History) -> np.ndarray:
            return methods.seasonal_naive_with_drift(windows, history.values, history.origins, season, horizon)

        return self._from_history(test, forecast, filled=False)

    def exponential_smoothing(self, test: Split) -> np.ndarray:
        """Additive Holt–Winters."""
        return self._by_feature(test, methods.holt_winters)

    def theta(self, test: Split) -> np.ndarray:
        """The Theta method."""
        return self._by_feature(test, methods.theta)

    def _from_history(self, test: Split, forecast: Callable[[np.ndarray, History], np.ndarray], filled: bool) -> np.ndarray:
        """Forecasts of the windows of each series from its history.

        Args:
            test: the test set.
            forecast: from the targets in the windows of a series and its history to forecasts.
            filled: whether missing values are filled in, interpolated in the training set and else with the value before.
        """
        forecasts = []
        for series, windows in parts_of(test.array).items():
            forecasts.append(forecast(self._of_targets(windows), self._history(series, len(windows), filled)))
        return np.concatenate(forecasts)

    def _history(self, series: str, windows: int, filled: bool) -> History:
        """The history of a series.

        Args:
            series: its name.
            windows: number of its test windows.
            filled: as above.
        """
        train, validation, tested = (self._of_targets(self.series[name][series]) for name in ("train", "validation", "test"))
        prepended = self.settings.window * self.settings.include_history  # steps that belong to the split before
        later = np.concatenate([validation[prepended:], tested[prepended:]])
        if filled:
            train = interpolate(train)
            later = carry_forward(later, initial=train[-1])
        values = np.concatenate([train, later]).astype(np.float64)
        origins = np.arange(len(values) - len(tested), len(values))[self.settings.window - 1 : -self.settings.horizon]
        return History(values, origins[:windows], len(train))

    def _by_feature(self, test: Split, method: Callable[..., np.ndarray]) -> np.ndarray:
        """Forecasts of a method of `src.tasks.baselines.forecasting` that is fitted to each feature of each series."""
        _check_steps(sum(self._history(series, 0, filled=False).values.size for series in self.series["test"]))

        def forecast(windows: np.ndarray, history: History) -> np.ndarray:
            forecasts = methods.repeat_last(windows.astype(np.float64), self.settings.horizon)
            moving = np.ptp(history.values[: history.training_steps], axis=0) > 0
            for feature in np.flatnonzero(moving):
                arguments = history.training_steps, self.settings.season, history.origins, self.settings.horizon
                forecasts[..., feature] = method(history.values[:, feature], *arguments)
            return forecasts

        with threadpool_limits(1):  # matrices are small: several threads spend most of their time waiting for each other
            return self._from_history(test, forecast, filled=True)

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
        penalty, forecast = self._best(fits)
        return Fitted(forecast, join_notes(f"λ = {penalty:g}", sample_note(len(rows), len(train), "windows")))

    def autoregression(self) -> Fitted:
        """Autoregression of each target, step by step, with the same coefficients for all series."""
        train = [self._of_targets(series).astype(np.float64) for series in self.series["train"].values()]
        _check_steps(sum(series.size for series in train))
        orders = methods.candidate_orders(self.settings.season, self.settings.window, sum(map(len, train)))

        def fit(order: int) -> Forecaster:
            forecast = methods.autoregression(train, order, self.settings.horizon)
            return lambda windows: forecast(self._of_targets(windows))

        order, forecast = self._best({order: functools.partial(fit, order) for order in orders})
        return Fitted(forecast, f"p = {order}")

    def _best(self, fits: Mapping[T, Callable[[], Forecaster]]) -> tuple[T, Callable[[Split], np.ndarray]]:
        """The hyperparameter with the smallest mean absolute error on the validation set, and forecasts of a split with it.

        Args:
            fits: {hyperparameter: function that fits a forecaster with it}.
        """
        validation = self.splits["validation"]
        best: tuple[float, T, Forecaster] | None = None
        with threadpool_limits(1):  # as above
            for hyperparameter, fit in fits.items():
                forecaster = fit()
                forecasts = _in_chunks(forecaster, validation.array)
                error = float(np.nanmean(np.abs(forecasts - validation.targets)))
                if best is None or error < best[0] or np.isnan(best[0]):  # an unstable one has no number as error
                    best = error, hyperparameter, forecaster
        if best is None:
            raise ValueError("There is no hyperparameter to choose from.")
        _, chosen, forecaster = best
        return chosen, lambda split: _in_chunks(forecaster, split.array)

    def _of_targets(self, values: np.ndarray) -> np.ndarray:
        """The features of windows or of a series (…, features) that are forecast."""
        return values if len(self.targeted) == values.shape[-1] else values[..., self.targeted]


def chunks(windows: np.ndarray) -> Iterator[np.ndarray]:
    """Windows (windows, …) in parts of about `CHUNK` values: what is computed from a view of a series is none."""
    for rows in np.array_split(np.arange(len(windows)), min(-(-windows.size // CHUNK), len(windows))):
        yield windows[rows[0] : rows[-1] + 1]


def _in_chunks(forecaster: Forecaster, windows: np.ndarray) -> np.ndarray:
    """What a forecaster forecasts for windows."""
    return np.concatenate([forecaster(chunk) for chunk in chunks(windows)])


def _check_steps(count: int) -> None:
    """Raise a SkippedError if series have too many values to be fitted feature by feature."""
    if count > MAX_STEPS:
        raise SkippedError(f"{count:,} steps times features are more than {MAX_STEPS:,}")
