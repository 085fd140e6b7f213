"""Figures that consist of text, as HTML pages: a browser has fonts for every script, Matplotlib has not."""

from collections.abc import Sequence
from html import escape

import numpy as np

__all__ = ["alignment_table", "escape", "highlight", "page", "table", "weight_scale", "with_subtitle"]

OPACITY = 0.7  # of the largest weight: black letters can be read on it
STYLE = (
    "body{font:15px/1.7 sans-serif;max-width:64em;margin:2em auto;padding:0 1em}h1{font-size:1.3em;margin-bottom:0}"
    "b.mistake{color:#d62728}p.subtitle{color:#666;margin-top:0}"
    "blockquote{margin:0 0 1.5em 1em;color:#444;white-space:pre-wrap}"
    "table.alignment{border-collapse:collapse;margin-bottom:2em}"
    ".alignment td{min-width:1.7em;height:1.7em;border:1px solid #ddd}"
    ".alignment th{padding:2px 6px;font-weight:normal;white-space:pre}.alignment th.row{text-align:right}"
    ".alignment th.column{vertical-align:bottom}.alignment th.column span{writing-mode:vertical-rl;transform:rotate(180deg)}"
    "table.numbers{border-collapse:collapse}.numbers td,.numbers th{padding:2px 10px;border-bottom:1px solid #ddd}"
    ".numbers td+td,.numbers th+th{text-align:right}.numbers th:first-child{text-align:left}"
    ".scale{display:inline-block;width:12em;height:1em;margin:0 .5em;vertical-align:middle;border:1px solid #ddd;"
    "background:linear-gradient(to right,rgba(31,119,180,0),rgba(31,119,180,.7))}"
)


def page(title: str, fragments: Sequence[str], style: str = "", script: str = "") -> str:
    """Return a self-contained HTML page.

    Args:
        title: of the page.
        fragments: HTML.
        style: CSS, besides that of all pages.
        script: JavaScript, which runs at the end.
    """
    return (
        f'<!doctype html><html><head><meta charset="utf-8"><title>{escape(title)}</title><style>{STYLE}{style}</style></head>'
        f"<body><h1>{escape(title)}</h1>{''.join(fragments)}<script>{script}</script></body></html>"
    )


def with_subtitle(page: str, subtitle: str) -> str:
    """Return a page of `page` with a line below its title."""
    return page.replace("</h1>", f'</h1><p class="subtitle">{escape(subtitle)}</p>', 1)


def weight_scale(highest: str) -> str:
    """Return the scale of `highlight` and `alignment_table` as HTML; `highest` says what the darkest color stands for."""
    return f'<p>weight: 0 <span class="scale"></span> {escape(highest)}</p>'


def highlight(words: Sequence[str], weights: np.ndarray) -> str:
    """Return words as HTML; the background is the darker, the larger a word's weight is relative to the largest."""
    opacities = np.asarray(weights) / max(float(np.max(weights, initial=0)), 1e-9)
    return " ".join(
        f'<span style="{_background(opacity)}" title="{weight:.3f}">{escape(word)}</span>'
        for word, opacity, weight in zip(words, opacities, weights)
    )


def alignment_table(source: Sequence[str], target: Sequence[str], weights: np.ndarray) -> str:
    """Return an HTML table with a row for each target token and a column for each source token; weights (target, source)."""
    upright = max(map(len, source), default=0) <= 2  # single characters, for instance
    column = "" if upright else ' class="column"'
    head = "".join(f"<th{column}><span>{escape(_visible(word))}</span></th>" for word in source)
    body = "".join(
        f'<tr><th class="row">{escape(_visible(word))}</th>'
        + "".join(f'<td style="{_background(weight)}" title="{weight:.2f}"></td>' for weight in row)
        + "</tr>"
        for word, row in zip(target, weights)
    )
    return f'<table class="alignment"><tr><th></th>{head}</tr>{body}</table>'


def table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return an HTML table with a column of names and columns of numbers."""

    def row(cells: Sequence[str], tag: str) -> str:
        return f"<tr>{''.join(f'<{tag}>{escape(cell)}</{tag}>' for cell in cells)}</tr>"

    return f'<table class="numbers">{row(headings, "th")}{"".join(row(cells, "td") for cells in rows)}</table>'


def _visible(token: str) -> str:
    """A token, spaces as signs that can be seen."""
    return token if token.strip() else "␣" * max(len(token), 1)


def _background(opacity: float) -> str:
    """CSS of the color of a weight relative to the largest."""
    return f"background:rgba(31,119,180,{OPACITY * opacity:.2f})"
