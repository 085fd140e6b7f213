"""The figure of a run's learning curves."""

from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from src import metrics
from src.config.tasks import TASKS
from src.figures import style
from src.metrics import TRAIN, VALIDATION

Curves = Mapping[str, Sequence[tuple[int, float]]]  # {metric, as MLflow names it: [(epoch, value), …]}
SPLITS = {TRAIN: ("training set", style.PAST), VALIDATION: ("validation set", style.MODEL)}  # {prefix: label, color}
LOSSES = {"language_modeling": "nll"}  # {task: test metric that its loss is, so that a baseline can be drawn beside it}


def learning_curves(
    curves: Curves, task: str, results: Mapping[str, float], units: Mapping[str, str], best_epoch: int | None = None
) -> Figure:
    """The loss, and the metric that recipes are compared by, after each epoch; a line for the strongest baseline.

    Args:
        curves: of the run.
        task: name of the task.
        results: metrics of the run, from which the baselines are taken.
        units: {metric: unit} of the metrics that have one.
        best_epoch: the epoch whose weights are kept; None if there is no such epoch.
    """
    names = ["loss", TASKS[task].leading_metric]
    if f"{VALIDATION}{names[1]}" not in curves:
        names[1:] = ["token_accuracy"] if f"{VALIDATION}token_accuracy" in curves else []
    figure, panels = style.create("Learning curves", columns=len(names), size=(0.5 + 4 * len(names), 3.6))
    for axes, name in zip(panels, names):
        _draw(axes, curves, name)
        measured = LOSSES.get(task) if name == "loss" else name
        if measured and (baseline := metrics.strongest_baseline(results, measured)):
            axes.axhline(baseline[1], color=style.TARGET, linestyle="--", label=f"{baseline[0]}, test set")
        if best_epoch is not None:
            axes.axvline(best_epoch, color="0.8", linewidth=1, zorder=0, label="weights kept")
        unit = f" ({units[name]})" if name in units else ""
        axes.set(xlabel="epoch", ylabel=f"{name.replace('_', ' ')}{unit}")
        style.integer_ticks(axes)
        axes.grid()
        if axes.get_legend_handles_labels()[0]:
            axes.legend()
    return figure


def _draw(axes: Axes, curves: Curves, name: str) -> None:
    for prefix, (label, color) in SPLITS.items():
        if points := curves.get(f"{prefix}{name}"):
            epochs, values = zip(*points)
            axes.plot(epochs, values, color=color, label=label, marker="o" if len(points) < 20 else None, markersize=4)


def best_epoch(curves: Curves, monitor: str) -> int | None:
    """The epoch with the best value of a metric.

    Args:
        curves: of the run.
        monitor: the metric, as Keras names it: val_loss.
    """
    points = curves.get(f"{VALIDATION}{monitor[4:]}" if monitor.startswith("val_") else f"{TRAIN}{monitor}")
    if not points:
        return None
    return (min if metrics.lower_is_better(monitor) else max)(points, key=lambda point: point[1])[0]
