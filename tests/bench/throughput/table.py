"""Ratios, medians and spreads, and the table of them."""

import statistics
from collections.abc import Mapping
from typing import NamedTuple

from src import tables
from tests.bench.throughput.comparison import Comparison
from tests.bench.throughput.contenders import CONTENDERS, REFERENCE, Contender


class Spread(NamedTuple):
    """The median of some numbers, the lowest and the highest."""

    median: float
    lowest: float
    highest: float


def spread(values: list[float]) -> Spread:
    """The spread of numbers."""
    return Spread(statistics.median(values), min(values), max(values))


def ratios(rates: list[float], reference: list[float]) -> list[float]:
    """Rates in multiples of those of the reference in the same rounds."""
    return [rate / other for rate, other in zip(rates, reference, strict=True)]


def report(comparison: Comparison, contenders: Mapping[str, Contender] = CONTENDERS) -> str:
    """A comparison in full, with the reason of each contender that was not compared."""
    reference = comparison.results[REFERENCE].rates
    others = 100 * max(comparison.disturbance)
    heading = (
        f"{comparison.experiment}: {comparison.parameters:,} parameters, batches of {comparison.batch_size}, "
        f"{comparison.data}, {comparison.device}; other processes used up to {others:.1f} % of the cores"
    )
    rows = []
    for name, result in comparison.results.items():
        title = contenders[name].title
        if result.reason:
            rows.append([title, f"not compared: {result.reason}"])
            continue
        rate, ratio = spread(result.rates), spread(ratios(result.rates, reference))
        rows.append([
            title,
            f"{rate.median:,.0f} {comparison.unit}/s ({rate.lowest:,.0f} to {rate.highest:,.0f}), ratio {ratio.median:.2f} "
            f"({ratio.lowest:.2f} to {ratio.highest:.2f}), first step {result.first_step:.1f} s",
        ])  # fmt: skip
    width = max(len(title) for title, _ in rows)
    return "\n".join([heading, *(f"  {title:<{width}}  {text}" for title, text in rows)])


def markdown(comparisons: list[Comparison], contenders: Mapping[str, Contender] = CONTENDERS, unit: str = "examples") -> str:
    """The table of all: the median ratio of each contender to this project, lowest and highest in brackets."""
    present = {name for comparison in comparisons for name, result in comparison.results.items() if result.rates}
    names = [name for name in contenders if name in present and name != REFERENCE]
    headings = ["experiment", f"{contenders[REFERENCE].title}, {unit}/s", *(contenders[name].title for name in names)]
    rows = []
    for comparison in comparisons:
        reference = comparison.results[REFERENCE].rates
        cells = [comparison.experiment, f"{statistics.median(reference):,.0f}"]
        for name in names:
            result = comparison.results.get(name)
            if result is None or not result.rates:
                cells.append("–")
                continue
            ratio = spread(ratios(result.rates, reference))
            cells.append(f"{ratio.median:.2f} ({ratio.lowest:.2f}–{ratio.highest:.2f})")
        rows.append(cells)
    return tables.markdown(headings, rows)
