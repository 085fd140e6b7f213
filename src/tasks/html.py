"""Figures that consist of text, as HTML pages: a browser has fonts for every script, Matplotlib has not."""

from collections.abc import Sequence
from html import escape

import numpy as np

__all__ = ["alignment_table", "escape", "highlight", "page"]

STYLE = (
    "body{font:15px/1.7 sans-serif;max-width:60em;margin:2em auto;padding:0 1em}"
    "blockquote{margin:0 0 1.5em 1em;color:#444;white-space:pre-wrap}"
    "td,th{padding:2px 5px;text-align:center;font-weight:normal}table{border-collapse:collapse;margin-bottom:2em}"
)


def page(title: str, fragments: Sequence[str]) -> str:
    """Return a self-contained HTML page with a title and a body of HTML fragments."""
    return (
        f'<!doctype html><html><head><meta charset="utf-8"><title>{escape(title)}</title><style>{STYLE}</style></head>'
        f"<body><h3>{escape(title)}</h3>{''.join(fragments)}</body></html>"
    )


def highlight(words: Sequence[str], weights: np.ndarray) -> str:
    """Return words as HTML; the background is the darker, the larger a word's weight is relative to the largest."""
    opacities = np.asarray(weights) / max(float(np.max(weights, initial=0)), 1e-9)
    return " ".join(
        f'<span style="background:rgba(31,119,180,{opacity:.2f})">{escape(word)}</span>'
        for word, opacity in zip(words, opacities)
    )


def alignment_table(source: Sequence[str], target: Sequence[str], weights: np.ndarray) -> str:
    """Return an HTML table with a row for each target token and a column for each source token; weights (target, source)."""
    head = "".join(f"<th>{escape(word)}</th>" for word in source)
    body = "".join(
        f"<tr><th>{escape(word)}</th>"
        + "".join(f'<td style="background:rgba(31,119,180,{weight:.2f})"></td>' for weight in row)
        + "</tr>"
        for word, row in zip(target, weights)
    )
    return f"<table><tr><th></th>{head}</tr>{body}</table>"
