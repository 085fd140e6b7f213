"""Figures of forecasts: some windows of the test set, and the error by step."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure

from src.figures import html, style


class Band(NamedTuple):
    """The values between two quantiles of forecasts of one variable, (windows, horizon) each, and what they are called."""

    low: np.ndarray
    high: np.ndarray
    label: str


def forecasts(
    windows: np.ndarray, targets: np.ndarray, predictions: np.ndarray, baselines: Mapping[str, np.ndarray],
    *, variable: str, unit: str, time_unit: str, band: Band | None = None,
) -> Figure:  # fmt: skip
    """Input, target, forecast and the best baseline of three evenly spaced windows of the test set.

    Args:
        windows: of one variable, (windows, window).
        targets: of the same, (windows, horizon).
        predictions: of the model, (windows, horizon).
        baselines: {name: forecasts}, the best first.
        variable: its name, for the title; empty: there is only one.
        unit: of the values.
        time_unit: of the steps.
        band: between two quantiles of the forecast; None: there are none.
    """
    steps = np.arange(1 - windows.shape[1], targets.shape[1] + 1)  # 0: the last step of the input
    best = [(f"baseline: {name.replace('_', ' ')}", each, style.BASELINE, "--") for name, each in baselines.items()][:1]
    indices = np.unique(np.linspace(0, len(windows) - 1, 3).astype(int))
    title = f"Forecasts of the test set{f' ({variable})' if variable else ''}"
    figure, panels = style.create(title, len(indices), size=(style.WIDTH, 1.0 + 2.2 * len(indices)), sharex=True)
    for axes, index in zip(panels, indices):
        past = windows[index]
        axes.axvline(0, color="0.85", linewidth=1)
        axes.plot(steps[: len(past)], past, color=style.PAST, label="input")
        if band:
            low, high = (np.array([past[-1], *values[index]]) for values in (band.low, band.high))
            axes.fill_between(steps[len(past) - 1 :], low, high, color=style.MODEL, alpha=0.2, linewidth=0, label=band.label)
        for name, values, color, line in (
            ("target", targets, style.TARGET, "-"),
            *best,
            ("model", predictions, style.MODEL, "-"),
        ):  # each begins at the last value of the input
            axes.plot(steps[len(past) - 1 :], [past[-1], *values[index]], color=color, linestyle=line, label=name)
        axes.set(ylabel=unit)
        axes.set_title(f"window {index + 1} of {len(windows)}", loc="left")
    panels[-1].set_xlabel(f"{time_unit}s from the last value of the input")
    style.integer_ticks(panels[-1])
    figure.legend(*panels[0].get_legend_handles_labels(), ncols=5 if band else 4, loc="outside lower center")
    return figure


def error_by_step(
    targets: np.ndarray, predictions: np.ndarray, baselines: Mapping[str, np.ndarray], *, unit: str, time_unit: str
) -> Figure:
    """Mean absolute error against the number of steps ahead, of the model and the two best baselines.

    Args:
        targets: (windows, horizon, features).
        predictions: of the model, of the same shape.
        baselines: {name: forecasts}, the best first.
        unit: of the values.
        time_unit: of the steps.
    """
    figure, (axes,) = style.create("Error on the test set by step of the forecast", size=(style.WIDTH, 4))
    steps, named = np.arange(1, targets.shape[1] + 1), {"model": predictions, **baselines}
    looks = ((style.MODEL, "o-"), (style.BASELINE, "--"), (style.OTHER_BASELINE, ":"))
    for (name, forecast), (color, line) in zip(named.items(), looks):
        errors = np.nanmean(np.abs(forecast - targets), axis=(0, 2))
        text = f"{'' if name == 'model' else 'baseline: '}{name.replace('_', ' ')} (mean {errors.mean():.3g} {unit})"
        axes.plot(steps, errors, line, color=color, markersize=3, label=text)
    axes.set(xlabel=f"{time_unit}s ahead", ylabel=f"mean absolute error ({unit})", ylim=(0, None))
    style.integer_ticks(axes)
    axes.grid()
    figure.legend(ncols=2, loc="outside lower center")
    return figure


def calibration(levels: Sequence[float], shares: np.ndarray) -> Figure:
    """The share of targets below each quantile of the forecasts, which is its level if the forecasts are calibrated.

    Args:
        levels: of the quantiles, 0..1.
        shares: of the targets of the test set, (levels,).
    """
    figure, (axes,) = style.create("Calibration of the quantiles on the test set", size=(4.5, 4.5))
    axes.plot([0, 1], [0, 1], color="0.7", linewidth=1, label="calibrated")
    axes.plot(levels, shares, "o-", color=style.MODEL, label="model")
    axes.set(xlabel="level of the quantile", ylabel="share of the targets below it", xlim=(0, 1), ylim=(0, 1), aspect="equal")
    axes.grid()
    figure.legend(ncols=2, loc="outside lower center")
    return figure


def series_table(windows: Mapping[str, int], results: Mapping[str, Sequence[float]], metric: str) -> str:
    """A page with a row for each series.

    Args:
        windows: {series: number of its test windows}.
        results: {method: value of the metric for each series}.
        metric: its name and unit.
    """
    headings = ["series", *(f"{metric}, {method.replace('_', ' ')}" for method in results), "windows"]
    columns = [list(windows), *([f"{value:.4f}" for value in values] for values in results.values())]
    rows = zip(*columns, [f"{count:,}" for count in windows.values()])
    return html.page(f"Results of each series on {sum(windows.values()):,} test windows", [html.table(headings, list(rows))])
