"""Figures that are made of words, as HTML pages: a browser has the fonts for every script, a plotting library has not."""

from collections.abc import Sequence
from html import escape

import numpy as np

__all__ = ["alignment", "escape", "page", "weighted"]

STYLE = (
    "body{font:15px/1.7 sans-serif;max-width:60em;margin:2em auto;padding:0 1em}"
    "blockquote{margin:0 0 1.5em 1em;color:#444;white-space:pre-wrap}"
    "td,th{padding:2px 5px;text-align:center;font-weight:normal}table{border-collapse:collapse;margin-bottom:2em}"
)


def page(title: str, rows: Sequence[str]) -> str:
    """An HTML page that needs nothing from elsewhere."""
    return (
        f'<!doctype html><html><head><meta charset="utf-8"><title>{escape(title)}</title><style>{STYLE}</style></head>'
        f"<body><h3>{escape(title)}</h3>{''.join(rows)}</body></html>"
    )


def weighted(words: Sequence[str], weights: np.ndarray) -> str:
    """Words on a ground that is the darker the more they weigh, compared with the heaviest."""
    shares = np.asarray(weights) / max(float(np.max(weights, initial=0)), 1e-9)
    return " ".join(
        f'<span style="background:rgba(31,119,180,{share:.2f})">{escape(word)}</span>' for word, share in zip(words, shares)
    )


def alignment(source: Sequence[str], target: Sequence[str], weights: np.ndarray) -> str:
    """A table with a row for each target token and a column for each source token; weights (target, source)."""
    head = "".join(f"<th>{escape(word)}</th>" for word in source)
    body = "".join(
        f"<tr><th>{escape(word)}</th>"
        + "".join(f'<td style="background:rgba(31,119,180,{weight:.2f})"></td>' for weight in row)
        + "</tr>"
        for word, row in zip(target, weights)
    )
    return f"<table><tr><th></th>{head}</tr>{body}</table>"
