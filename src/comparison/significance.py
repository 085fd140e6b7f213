"""Whether the difference between two groups of runs is significant, given the variation between seeds."""

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from statsmodels.stats.power import TTestIndPower
from statsmodels.stats.weightstats import CompareMeans, DescrStatsW

from src import metrics
from src.comparison.formats import mean_and_sd
from src.comparison.groups import Group

CONFIDENCE = 0.95
POWER = 0.8  # of the test, with which the number of seeds needed is computed


@dataclass(frozen=True)
class Difference:
    """The difference between the mean metrics of two groups.

    Attributes:
        one: the metric of the first group, of each seed: (n,).
        other: the metric of the second group, of each seed: (m,).
    """

    one: np.ndarray
    other: np.ndarray

    @cached_property
    def mean(self) -> float:
        """Mean of the first group minus mean of the second."""
        return float(self.one.mean() - self.other.mean())

    @cached_property
    def interval(self) -> tuple[float, float]:
        """95 % confidence interval of the difference, by Welch's t-test; nan with fewer than two seeds in a group."""
        if min(len(self.one), len(self.other)) < 2:
            return math.nan, math.nan
        if self.one.std() == self.other.std() == 0:
            return self.mean, self.mean
        means = CompareMeans(DescrStatsW(self.one), DescrStatsW(self.other))
        low, high = means.tconfint_diff(alpha=1 - CONFIDENCE, usevar="unequal")
        return float(low), float(high)

    @property
    def significant(self) -> bool:
        """Whether the confidence interval excludes 0."""
        low, high = self.interval
        return low > 0 or high < 0

    @property
    def seeds_needed(self) -> int | None:
        """Seeds of each group with which a difference of this size is significant with probability `POWER`; None if unknown."""
        if min(len(self.one), len(self.other)) < 2 or not self.mean:
            return None
        pooled_sd = math.sqrt((self.one.var(ddof=1) + self.other.var(ddof=1)) / 2)
        if not pooled_sd:
            return None
        effect_size = abs(self.mean) / pooled_sd  # Cohen's d
        return max(2, math.ceil(TTestIndPower().solve_power(effect_size, alpha=1 - CONFIDENCE, power=POWER)))


def describe_difference(metric: str, one: Group, other: Group) -> str:
    """Describe the difference between two groups, and whether it is significant, in a few lines."""
    difference = Difference(one.values(metric), other.values(metric))
    seeds = f"{len(difference.one)} and {len(difference.other)} seed(s)"
    lines = [
        f"a: {one.name} {mean_and_sd(one, metric)}",
        f"b: {other.name} {mean_and_sd(other, metric)}",
        f"{metrics.describe(metric)}, a minus b: {signed(difference.mean, metric)} ({seeds})",
    ]
    low, high = difference.interval
    if math.isnan(low):
        lines.append("A single seed does not show whether the difference is significant; run each with seed=0,1,2 at least.")
        return "\n".join(lines)
    lines.append(f"95 % confidence interval: {signed(low, metric)} to {signed(high, metric)} (Welch's t-test).")
    if difference.significant:
        better = "a" if (difference.mean < 0) == metrics.lower_is_better(metric) else "b"
        lines.append(f"The difference is significant: {better} is better.")
    else:
        needed = difference.seeds_needed
        lines.append(
            f"The difference is not significant{f'; one of this size takes about {needed} seeds each' if needed else ''}."
        )
    return "\n".join(lines)


def signed(value: float, metric: str) -> str:
    """A difference of a metric with its sign: "+0.35 points"."""
    return f"{100 * value:+.2f} points" if metrics.is_percentage(metric) else f"{value:+,.{metrics.decimals(value)}f}"
