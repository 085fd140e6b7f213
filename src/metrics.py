"""Properties of metrics: whether lower values are better, and how values are formatted."""

import math

from src.config import tasks

LOWER_IS_BETTER = {"loss", "seconds", "joules", "parameters", "macs", "milliseconds_per_sample"}  # besides metrics of tasks
PERCENTAGES = {"accuracy", "exact_match", "precision", "recall", "confident", "sparsity"}  # shown as such
COUNTS = {"parameters", "macs"}  # shown as integers

# Distances that the literature computes with features of Inception v3, as FID and KID; here with those of another classifier.
FEATURE_DISTANCES = {"fid": "Fréchet distance", "kid": "kernel distance"}
FEATURES = "features of this project's classifier"

Logs = dict[str, float]  # {metric: value}, as Keras passes them to callbacks


def lower_is_better(name: str) -> bool:
    """Whether lower values of a metric are better; `name` may be that of MLflow (test/nll) or of Keras (val_nll)."""
    base = _base_name(name)
    return base in LOWER_IS_BETTER or tasks.direction(base) == "lower"


def is_ranked(name: str) -> bool:
    """Whether one value of a metric is better than another."""
    return tasks.direction(_base_name(name)) != "neither"


def describe(name: str) -> str:
    """A metric as comparisons name it: "test/nll"; of a distance of features also what it is and whose features are used."""
    distance = FEATURE_DISTANCES.get(_base_name(name))
    return f"{name}, {distance} ({FEATURES})" if distance else name


def is_percentage(name: str) -> bool:
    """Whether a metric is shown as a percentage."""
    return _base_name(name) in PERCENTAGES


def format_value(value: float, metric: str) -> str:
    """A value with four significant digits or more, as a percentage with two decimals, or as an integer."""
    if not math.isfinite(value):
        return "–" if math.isnan(value) else str(value)
    if is_percentage(metric):
        return f"{100 * value:.2f} %"
    return f"{value:,.{0 if _base_name(metric) in COUNTS else decimals(value)}f}"


def decimals(value: float) -> int:
    """The number of decimals with which a value has four significant digits; 0 if it has more before the decimal point."""
    return max(0, 3 - math.floor(math.log10(abs(value)))) if value and math.isfinite(value) else 3


def _base_name(name: str) -> str:
    return name.rpartition("/")[2].removeprefix("val_")
