"""Names and properties of metrics: whether lower values are better, and how values are formatted.

MLflow draws its charts in the alphabetical order of the names, up to the last slash. These names put the learning curves
(epoch/train/loss, epoch/val/loss, one value for each epoch) before single values (test/accuracy, test/baseline/…).
"""

import math
from collections.abc import Mapping

from src.config import renamed, tasks

LOWER_IS_BETTER = {"loss", "seconds", "joules", "parameters", "macs", "milliseconds_per_sample"}  # besides metrics of tasks
PERCENTAGES = {
    "accuracy", "balanced_accuracy", "macro_f1", "micro_f1", "micro_f1_at_half", "mean_average_precision", "exact_match",
    "precision", "recall", "confident_fraction", "sparsity", "coverage", "coverage_error",
}  # shown as such  # fmt: skip
SMALLEST_DECIMAL = 1e-4  # what is smaller is written with an exponent
COUNTS = {"parameters", "macs"}  # shown as integers

# Distances that the literature computes with features of Inception v3, as FID and KID; here with those of another classifier.
FEATURE_DISTANCES = {"frechet_distance": "Fréchet distance", "kernel_distance": "kernel distance"}
FEATURES = "features of this project's classifier"

EPOCH, TRAIN, VALIDATION, TEST = "epoch/", "epoch/train/", "epoch/val/", "test/"  # prefixes of metrics in MLflow
BASELINE, ABLATION = "test/baseline/", "test/ablation/"
CI_LOW, CI_HIGH = "test/ci_low/", "test/ci_high/"  # bounds of the 95 % confidence interval of a metric
# What the prefixes were called in runs of earlier versions.
RENAMED_PREFIXES = {
    "train/": TRAIN, "val/": VALIDATION, "baseline/": BASELINE, "ablation/": ABLATION, "judge/": "reference_classifier/",
}  # fmt: skip

Logs = dict[str, float]  # {metric: value}, as Keras passes them to callbacks


def current_name(name: str) -> str:
    """The name that a metric of a stored run has in this version: epoch/val/frechet_distance for val/fid."""
    old = next((prefix for prefix in RENAMED_PREFIXES if name.startswith(prefix)), "")
    return RENAMED_PREFIXES.get(old, "") + renamed.rename_metric(name.removeprefix(old))


def stored_names(name: str) -> list[str]:
    """The names that a metric may have in a stored run: its own, and those of earlier versions."""
    base = name.rpartition("/")[2]
    names = [name, *(name.removesuffix(base) + old for old, new in renamed.METRICS.items() if new == base)]
    return names + [
        old + each.removeprefix(new) for each in names for old, new in RENAMED_PREFIXES.items() if each.startswith(new)
    ]


def strongest_baseline(values: Mapping[str, float], metric: str) -> tuple[str, float] | None:
    """Name and result of the best finite baseline by a metric; None if there is none.

    Args:
        values: metrics of a run, as MLflow names them.
        metric: without a prefix: accuracy.
    """
    results = {}
    for name, value in values.items():
        method, _, measured = name.removeprefix(BASELINE).rpartition("/")
        if name.startswith(BASELINE) and measured == metric and math.isfinite(value):
            results[method.replace("_", " ")] = value
    return (min if lower_is_better(metric) else max)(results.items(), key=lambda item: item[1]) if results else None


def lower_is_better(name: str) -> bool:
    """Whether lower values of a metric are better; `name` may be that of MLflow (test/nll) or of Keras (val_nll)."""
    base = _base_name(name)
    return base in LOWER_IS_BETTER or base.endswith("_loss") or tasks.direction(base) == "lower"


def is_ranked(name: str) -> bool:
    """Whether one value of a metric is better than another."""
    return tasks.direction(_base_name(name)) != "neither"


def describe(name: str) -> str:
    """A metric as comparisons name it: "test/nll"; of a distance between features also whose features they are."""
    return f"{name} ({FEATURES})" if _base_name(name) in FEATURE_DISTANCES else name


def is_percentage(name: str) -> bool:
    """Whether a metric is shown as a percentage."""
    return _base_name(name) in PERCENTAGES


def format_value(value: float, metric: str) -> str:
    """A value with four significant digits or more, as a percentage with two decimals, or as an integer.

    What is very small is written with an exponent: 1.23e-07.
    """
    if not math.isfinite(value):
        return "–" if math.isnan(value) else str(value)
    if is_percentage(metric):
        return f"{100 * value:.2f} %"
    if 0 < abs(value) < SMALLEST_DECIMAL:
        return f"{value:.2e}"
    return f"{value:,.{0 if _base_name(metric) in COUNTS else decimals(value)}f}"


def decimals(value: float) -> int:
    """The number of decimals with which a value has four significant digits; 0 if it has more before the decimal point."""
    return max(0, 3 - math.floor(math.log10(abs(value)))) if value and math.isfinite(value) else 3


def _base_name(name: str) -> str:
    return name.rpartition("/")[2].removeprefix("val_")
