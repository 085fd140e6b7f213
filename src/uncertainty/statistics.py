"""What metrics are computed from, as functions of sums over examples: the per-example results that tasks define."""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from sacrebleu.metrics import BLEU

BLEU_COUNTS = [f"{kind}_{n}" for kind in ("correct", "total") for n in (1, 2, 3, 4)] + ["hypothesis_length", "reference_length"]

Table = Mapping[str, np.ndarray]  # {column: (rows,)}, the per-example results of one run


class Statistics(NamedTuple):
    """What a metric is computed from.

    Attributes:
        rows: (units, statistics); a unit is what is drawn in a resample: an example, a sentence, a window.
        value: sums of the statistics over units (…, statistics) to the metric (…).
        block: how many consecutive units are drawn together, since they depend on each other.
    """

    rows: np.ndarray
    value: Callable[[np.ndarray], np.ndarray]
    block: int = 1


def statistics_of(metric: str, table: Table) -> Statistics | None:
    """What a metric is computed from; None if it is no function of sums over the examples of this table."""
    columns, statistics = METRICS.get(metric, ((), None))
    return statistics(table) if statistics and all(column in table for column in columns) else None


def _ratio(numerator: np.ndarray, denominator: np.ndarray, block: int = 1) -> Statistics:
    return Statistics(np.stack([numerator, denominator], axis=1).astype(np.float64), _divide, block)


def _divide(sums: np.ndarray) -> np.ndarray:
    with np.errstate(invalid="ignore"):  # a resample may hold missing targets only
        return sums[..., 0] / sums[..., 1]


def _accuracy(table: Table) -> Statistics:
    return _mean(table["label"] == table["prediction"])


def _class_counts(table: Table) -> np.ndarray:
    """Of each example, for each class: whether it is predicted correctly, is a label, is predicted; (examples, 3 · classes)."""
    label, prediction = table["label"], table["prediction"]
    if "class" in table:  # several labels: a row for each example and class
        count = np.count_nonzero(table["example"] == table["example"][0])
        present, predicted = (values.reshape(-1, count) for values in (label, prediction))
    else:
        classes = np.arange(max(label.max(), prediction.max()) + 1)
        present, predicted = label[:, None] == classes, prediction[:, None] == classes
    return np.concatenate([present & predicted, present, predicted], axis=1).astype(np.float64)


def _macro_f1(table: Table) -> Statistics:
    def value(sums: np.ndarray) -> np.ndarray:
        correct, labels, predictions = np.split(sums, 3, axis=-1)
        with np.errstate(invalid="ignore"):  # a class that is neither a label nor predicted does not count
            return np.asarray(np.nanmean(2 * correct / (labels + predictions), axis=-1))

    return Statistics(_class_counts(table), value)


def _micro_f1(table: Table) -> Statistics:
    correct, labels, predictions = (each.sum(axis=1) for each in np.split(_class_counts(table), 3, axis=1))
    return _ratio(2 * correct, labels + predictions)


def _balanced_accuracy(table: Table) -> Statistics:
    def value(sums: np.ndarray) -> np.ndarray:
        correct, labels, _ = np.split(sums, 3, axis=-1)
        with np.errstate(invalid="ignore"):
            return np.asarray(np.nanmean(correct / labels, axis=-1))

    return Statistics(_class_counts(table), value)


def _mean(values: np.ndarray) -> Statistics:
    return _ratio(values, np.ones(len(values)))


def _nll(table: Table) -> Statistics:
    return _ratio(table["nats"], table.get("tokens", np.ones(len(table["nats"]))))


def _perplexity(table: Table) -> Statistics:
    return _nll(table)._replace(value=lambda sums: np.exp(_divide(sums)))


def _bits_per_character(table: Table) -> Statistics:
    return _ratio(table["nats"] / np.log(2), table["characters"])


def _bleu(table: Table) -> Statistics:
    return Statistics(np.stack([table[name] for name in BLEU_COUNTS], axis=1).astype(np.float64), bleu_of_counts)


def bleu_of_counts(sums: np.ndarray) -> np.ndarray:
    """Corpus BLEU of sums of the counts `BLEU_COUNTS` (…, 10), as sacrebleu computes it: (…)."""
    rows = [
        BLEU.compute_bleu(row[:4].tolist(), row[4:8].tolist(), int(row[8]), int(row[9]), smooth_method="exp").score
        for row in sums.reshape(-1, 10)
    ]
    return np.array(rows).reshape(sums.shape[:-1])


class _Windows(NamedTuple):
    """Errors of forecasts, (windows, horizon, features), and the deviation of each feature, (features,)."""

    error: np.ndarray
    deviation: np.ndarray

    @classmethod
    def of(cls, table: Table) -> "_Windows":
        shape = tuple(int(table[name].max()) + 1 for name in ("window", "step", "feature"))
        error = (table["forecast"].astype(np.float64) - table["target"]).reshape(shape)
        return cls(error, table["deviation"].reshape(shape)[0, 0])

    @property
    def block(self) -> int:
        """Twice the horizon: windows share up to `horizon` targets with their neighbors, whose errors are then alike."""
        return 2 * self.error.shape[1]

    def mean(self, values: np.ndarray) -> Statistics:
        """The mean of all values (windows, horizon, features) but the missing ones."""
        return _ratio(np.nansum(values, axis=(1, 2)), np.sum(~np.isnan(values), axis=(1, 2)), self.block)


def _mae(table: Table) -> Statistics:
    windows = _Windows.of(table)
    features = windows.error.shape[2]
    sums, counts = np.nansum(np.abs(windows.error), axis=1), np.sum(~np.isnan(windows.error), axis=1)  # (windows, features)

    def mean_of_features(sums: np.ndarray) -> np.ndarray:
        with np.errstate(invalid="ignore"):
            return np.asarray((sums[..., :features] / sums[..., features:]).mean(axis=-1))

    return Statistics(np.concatenate([sums, counts], axis=1), mean_of_features, windows.block)


def _rmse(table: Table) -> Statistics:
    windows = _Windows.of(table)
    return windows.mean(np.square(windows.error))._replace(value=lambda sums: np.sqrt(_divide(sums)))


def _standardized(measure: Callable[[np.ndarray], np.ndarray]) -> Callable[[Table], Statistics]:
    def statistics(table: Table) -> Statistics:
        windows = _Windows.of(table)
        return windows.mean(measure(windows.error / windows.deviation))  # the deviation of a constant feature is nan

    return statistics


def _crps(table: Table) -> Statistics:
    windows = _Windows.of(table)
    return windows.mean(table["crps"].reshape(windows.error.shape))


FORECAST = ("window", "step", "feature", "target", "forecast", "deviation")
# {metric: (columns that it needs, what it is computed from)}
METRICS: dict[str, tuple[Sequence[str], Callable[[Table], Statistics]]] = {
    "accuracy": (("label", "prediction"), _accuracy),
    "balanced_accuracy": (("label", "prediction"), _balanced_accuracy),
    "macro_f1": (("label", "prediction"), _macro_f1),
    "micro_f1": (("label", "prediction"), _micro_f1),
    "nll": (("nats",), _nll),
    "perplexity": (("nats", "tokens"), _perplexity),
    "bits_per_character": (("nats", "characters"), _bits_per_character),
    "bleu": (BLEU_COUNTS, _bleu),
    "exact_match": (("exact_match",), lambda table: _mean(table["exact_match"])),
    "mae": (FORECAST, _mae),
    "rmse": (FORECAST, _rmse),
    "standardized_mae": (FORECAST, _standardized(np.abs)),
    "crps": ((*FORECAST, "crps"), _crps),
    "standardized_mse": (FORECAST, _standardized(np.square)),
}
