"""What the metrics of the tasks mean to whoever compares: which one counts first, and whether more of it is better."""

import math

LOWER_IS_BETTER = {"nll", "calibration_error", "mae", "rmse", "mase", "standardized_mae", "standardized_mse",
    "perplexity", "bits_per_character", "fid", "kid", "class_distance", "loss", "seconds", "joules", "parameters", "macs",
    "milliseconds_per_sample",
}  # fmt: skip
SHARES = {"accuracy", "exact_match", "precision", "recall", "confident", "sparsity"}  # shown as percentages
UNRANKED = {"training_distance"}  # neither more nor less of it is better

# What a task is called where recipes are compared, and by which of its test metrics.
COMPARED = {
    "image_classification": ("image classification", "accuracy"),
    "text_classification": ("text classification", "accuracy"),
    "language_modeling": ("language modeling", "bits_per_character"),
    "translation": ("translation", "bleu"),
    "forecasting": ("forecasting", "mae"),
    "image_generation": ("image generation", "fid"),
    "pixel_generation": ("image generation", "fid"),
}

Logs = dict[str, float]  # what Keras tells a callback: {metric: value}


def lower_is_better(name: str) -> bool:
    """Whether less of a metric is better, of which `name` may be the path in MLflow, test/nll, or Keras's val_nll."""
    return _bare(name) in LOWER_IS_BETTER


def is_share(name: str) -> bool:
    """Whether a metric is shown as a percentage."""
    return _bare(name) in SHARES


def number(value: float, metric: str) -> str:
    """Four digits of a value, or a percentage with two places."""
    if not math.isfinite(value):
        return "–" if math.isnan(value) else str(value)
    if is_share(metric):
        return f"{100 * value:.2f} %"
    return f"{value:,.{places(value)}f}"


def places(value: float) -> int:
    """So many digits after the point that there are four in all, or more."""
    return max(0, 3 - math.floor(math.log10(abs(value)))) if value and math.isfinite(value) else 3


def _bare(name: str) -> str:
    return name.rpartition("/")[2].removeprefix("val_")
