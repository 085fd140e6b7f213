"""Whether the seeds are enough to say that one group of runs is better than another."""

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from statsmodels.stats.power import TTestIndPower
from statsmodels.stats.weightstats import CompareMeans, DescrStatsW

from src import metrics
from src.comparison.groups import Group
from src.comparison.tables import spread

CONFIDENCE = 0.95
POWER = 0.8  # probability with which a difference should be seen, where so many more seeds are asked for


@dataclass(frozen=True)
class Difference:
    """How much larger the metric of one group is than that of another.

    Attributes:
        one, other: the values of both, of each seed.
    """

    one: np.ndarray
    other: np.ndarray

    @cached_property
    def mean(self) -> float:
        """Of the first less that of the second."""
        return float(self.one.mean() - self.other.mean())

    @cached_property
    def interval(self) -> tuple[float, float]:
        """95 % confidence interval of the difference, by Welch's t; nan with fewer than two seeds in a group."""
        if min(len(self.one), len(self.other)) < 2:
            return math.nan, math.nan
        if self.one.std() == self.other.std() == 0:
            return self.mean, self.mean
        compared = CompareMeans(DescrStatsW(self.one), DescrStatsW(self.other))
        low, high = compared.tconfint_diff(alpha=1 - CONFIDENCE, usevar="unequal")
        return float(low), float(high)

    @property
    def certain(self) -> bool:
        """Whether the interval is on one side of 0."""
        low, high = self.interval
        return low > 0 or high < 0

    @property
    def seeds_needed(self) -> int | None:
        """Seeds of each group with which a difference as large as this one would be seen in four of five trials."""
        spread = (
            math.sqrt((self.one.var(ddof=1) + self.other.var(ddof=1)) / 2) if min(len(self.one), len(self.other)) > 1 else 0
        )
        if not spread or not self.mean:
            return None
        size = abs(self.mean) / spread
        return max(2, math.ceil(TTestIndPower().solve_power(size, alpha=1 - CONFIDENCE, power=POWER)))


def told(metric: str, one: Group, other: Group) -> str:
    """The difference between two groups, in sentences."""
    found = Difference(one.values(metric), other.values(metric))
    seeds = f"{len(found.one)} and {len(found.other)} seed(s)"
    lines = [
        f"a: {one.name} {spread(one, metric)}",
        f"b: {other.name} {spread(other, metric)}",
        f"{metric}, a less b: {_signed(found.mean, metric)} ({seeds})",
    ]
    low, high = found.interval
    if math.isnan(low):
        lines.append("One seed says nothing about chance; run each with seed=0,1,2 at least.")
        return "\n".join(lines)
    lines.append(f"95 % confidence interval: {_signed(low, metric)} to {_signed(high, metric)} (Welch's t).")
    if found.certain:
        better = "a" if (found.mean < 0) == metrics.lower_is_better(metric) else "b"
        lines.append(f"The seeds are enough to say that {better} is better.")
    else:
        more = f"a difference as large as this one takes about {found.seeds_needed} seeds each" if found.seeds_needed else ""
        lines.append(f"The seeds are not enough to say which is better{'; ' + more if more else ''}.")
    return "\n".join(lines)


def _signed(value: float, metric: str) -> str:
    return f"{100 * value:+.2f} points" if metrics.is_percentage(metric) else f"{value:+,.{metrics.decimals(value)}f}"
