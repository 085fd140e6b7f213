"""Tables as text: for the terminal, in Markdown and in LaTeX."""

import re
from collections.abc import Collection, Mapping, Sequence

from tabulate import tabulate

MAX_WIDTH = 120  # characters of a line in the terminal
MIN_WIDTH_OF_WORDS = 40  # characters of a column whose cells are wrapped


def text(headings: Sequence[str], rows: Sequence[Sequence[str]], left: Collection[int] = (0,)) -> str:
    """A table for the terminal. If it is too wide, the widest column of words is wrapped, or else the headings are.

    Args:
        headings: one for each column.
        rows: the cells. Trailing spaces are kept, so numbers stay aligned where some are followed by a mark.
        left: indices of the columns of words, which are aligned to the left. Numbers are aligned to the right.
    """
    widths = [max(len(cell.rstrip()) for cell in column) for column in zip(*rows)]
    widest = max(left, key=widths.__getitem__)
    for first_row in (headings, _wrapped(headings, widths)):
        table = _draw([first_row, *rows], left)
        excess = max(map(len, table.splitlines())) - MAX_WIDTH
        if excess <= 0:
            return table
        if widths[widest] - excess >= MIN_WIDTH_OF_WORDS:
            return _draw([first_row, *rows], left, {widest: widths[widest] - excess})
    return table


def markdown(headings: Sequence[str], rows: Sequence[Sequence[str]], left: Collection[int] = (0,)) -> str:
    """A table in Markdown. The arguments are those of `text`."""
    return tabulate(rows, headings, tablefmt="pipe", colalign=_alignment(headings, left), disable_numparse=True)


def latex(headings: Sequence[str], rows: Sequence[Sequence[str]], left: Collection[int] = (0,)) -> str:
    """A table in LaTeX, which needs the package booktabs. The arguments are those of `text`."""
    table = tabulate(
        rows, headings, tablefmt="latex_booktabs", colalign=_alignment(headings, left), disable_numparse=True
    )  # fmt: skip
    return table.replace("±", r"$\pm$").replace("–", "--")


def _draw(cells: Sequence[Sequence[str]], left: Collection[int], max_widths: Mapping[int, int] = {}) -> str:
    """The table, with its headings as the first row of cells: `tabulate` adds two spaces to what it is given as headings."""
    table = tabulate(
        cells, tablefmt="plain", colalign=_alignment(cells[0], left), disable_numparse=True,
        preserve_whitespace=True, maxcolwidths=[max_widths.get(column) for column in range(len(cells[0]))],
    )  # fmt: skip
    return "\n".join(line.rstrip() for line in table.splitlines())


def _alignment(headings: Sequence[str], left: Collection[int]) -> list[str]:
    return ["left" if column in left else "right" for column in range(len(headings))]


def _wrapped(headings: Sequence[str], widths: Sequence[int]) -> list[str]:
    """Headings broken after spaces, dots, slashes and underscores to the widths of their columns, all with as many lines."""
    wrapped = []
    for heading, width in zip(headings, widths):
        lines = [""]
        for part in re.split(r"(?<=[ ./_])(?=\w)", heading):
            if lines[-1] and len(lines[-1] + part.rstrip()) > width:
                lines.append("")
            lines[-1] += part
        wrapped.append(lines)
    height = max(map(len, wrapped))
    return ["\n".join([""] * (height - len(lines)) + lines) for lines in wrapped]
