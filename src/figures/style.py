"""Size, colors and title of all figures, and the line that says which run they are of."""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator

from src.figures import html

WIDTH = 8.0  # inches
MODEL, BASELINE, OTHER_BASELINE = "tab:blue", "tab:orange", "tab:green"  # colors, the same in each figure
PAST, TARGET = "0.6", "black"
MISTAKE = "tab:red"
TILE_COLUMNS = 4  # images side by side
LOG_TICKS = (1.0, 2.0, 5.0)

matplotlib.rcParams.update({
    "savefig.dpi": 150,
    "font.size": 10,
    "figure.titlesize": 11,
    "axes.titlesize": 9,
    "legend.fontsize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.alpha": 0.3,
    "image.cmap": "gray",
})  # fmt: skip

Drawings = Mapping[str, Figure | str]  # {file name: figure, or the text of an HTML page or a text file}


def create(
    title: str, rows: int = 1, columns: int = 1, size: tuple[float, float] = (WIDTH, 4.5), **options: Any
) -> tuple[Figure, list[Axes]]:
    """Create a figure; return it and its axes, row by row.

    Args:
        title: what the figure shows; `label` adds which run it is of.
        rows: of axes.
        columns: of axes.
        size: width and height in inches.
        options: of `Figure.subplots`.
    """
    figure = Figure(figsize=size, layout="constrained")
    figure.suptitle(title)
    return figure, list(figure.subplots(rows, columns, squeeze=False, **options).flat)


def create_tiles(title: str, count: int, proportion: float = 1.0) -> tuple[Figure, list[Axes]]:
    """Create a figure of images side by side; return it and the axes of each image, without frames.

    Args:
        title: what the figure shows.
        count: number of images; may be 0.
        proportion: width of an image as a multiple of its height.
    """
    columns = max(min(TILE_COLUMNS, count), 1)
    rows = max(-(-count // columns), 1)
    height = WIDTH / TILE_COLUMNS / proportion + 0.2  # of an image and its title
    figure, axes = create(title, rows, columns, (WIDTH, 0.8 + height * rows))
    for each in axes:
        each.axis("off")
    if not count:
        axes[0].text(0.5, 0.5, "(none)", ha="center", va="center")
    return figure, axes[:count]


def integer_ticks(axes: Axes) -> None:
    """Let the horizontal axis have ticks at integers alone."""
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def log_scale(axes: Axes, which: str, values: Sequence[float] | np.ndarray) -> None:
    """Make an axis logarithmic, with ticks at powers of ten, and where values span few of them also at 2 and 5 times these.

    Args:
        axes: of the figure.
        which: x or y.
        values: what is shown along this axis.
    """
    few = max(values) < 100 * min(values)
    axis = {"x": axes.xaxis, "y": axes.yaxis}[which]
    axes.set(**{f"{which}scale": "log"})
    axis.set_major_locator(LogLocator(subs=LOG_TICKS if few else (1.0,)))
    axis.set_major_formatter(lambda value, _: f"{value:g}")
    axis.minorticks_off()


def show_image(axes: Axes, image: np.ndarray) -> None:
    """Draw an image (H, W, C) of 0..1: gray, RGB or RGBA; any other number of channels side by side, each in gray."""
    channels = image.shape[-1]
    shown = image if channels in (3, 4) else np.concatenate(np.moveaxis(image, -1, 0), axis=1)  # (H, C · W)
    axes.imshow(np.clip(shown, 0, 1), cmap="gray", vmin=0, vmax=1)
    axes.axis("off")


def label(drawings: Drawings, subject: str) -> dict[str, Figure | str]:
    """Say in each figure, page or text which run it is of.

    Args:
        drawings: of the run.
        subject: model, data set and seed: "lstm on co2, seed 0".
    """
    labelled: dict[str, Figure | str] = {}
    for name, drawing in drawings.items():
        if isinstance(drawing, Figure):
            drawing.suptitle("\n".join(filter(None, [drawing.get_suptitle(), subject])))
            labelled[name] = drawing
        elif name.endswith(".html"):
            labelled[name] = html.with_subtitle(drawing, subject)
        else:
            labelled[name] = f"{subject}\n\n{drawing}"
    return labelled
