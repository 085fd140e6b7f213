"""What can be wrong with the layout of a figure."""

import itertools

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure


def overflowing(figure: Figure) -> list[str]:
    """The titles, labels and legends of a figure that do not fit into it."""
    FigureCanvasAgg(figure).draw()
    renderer, (width, height) = figure.canvas.get_renderer(), figure.canvas.get_width_height()
    texts = [figure._suptitle, *(text for legend in figure.legends for text in legend.get_texts())]
    for axes in figure.axes:
        texts += [axes.title, axes.xaxis.label, axes.yaxis.label, *axes.texts]
    boxes = {text.get_text(): text.get_window_extent(renderer) for text in texts if text and text.get_text()}
    return [text for text, box in boxes.items() if box.x0 < 0 or box.y0 < 0 or box.x1 > width or box.y1 > height]


def overlapping_ticks(figure: Figure) -> list[str]:
    """The labels of horizontal axes that overlap the one before."""
    FigureCanvasAgg(figure).draw()
    renderer, result = figure.canvas.get_renderer(), []
    for axes in figure.axes:
        low, high = sorted(axes.get_xlim())
        ticks = [tick for tick in axes.xaxis.get_major_ticks() if low <= tick.get_loc() <= high and tick.label1.get_visible()]
        boxes = [tick.label1.get_window_extent(renderer) for tick in sorted(ticks, key=lambda tick: tick.get_loc())]
        result += [str(axes.get_xlabel()) for left, right in itertools.pairwise(boxes) if left.x1 > right.x0]
    return result
