"""Paired tests: whether groups of runs differ beyond what the choice of the test examples explains."""

from collections.abc import Mapping, Sequence

import numpy as np
from statsmodels.stats.multitest import multipletests

from src import metrics, uncertainty
from src.comparison.groups import Group, Leaderboard
from src.comparison.significance import CONFIDENCE, signed
from src.tracking.run_summaries import load_predictions


def describe_paired_test(metric: str, one: Group, other: Group) -> str:
    """Describe a test of the difference between two groups on the same test examples, or why there is none, in a line or two.

    Args:
        metric: as MLflow names it.
        one: runs of the first model.
        other: runs of the second one.
    """
    result = _test(metric, _tables(one), _tables(other))
    if isinstance(result, str):
        return f"Of the uncertainty that the test set brings nothing is known: {result}."
    low, high = (signed(bound, metric) for bound in (result.interval.low, result.interval.high))
    method = " ".join(filter(None, ["bootstrap", result.interval.basis]))
    better = "a" if (result.difference < 0) == metrics.lower_is_better(metric) else "b"
    verdict = f"{better} is better" if result.p_value < 1 - CONFIDENCE else "the difference is not significant"
    single = len(one.runs) == len(other.runs) == 1
    seeds = ", of these two runs" if single else ", of the means over the seeds"
    return (
        f"On the same {result.units:,} test examples (paired{seeds}): 95 % confidence interval {low} to {high} ({method}), "
        f"p = {result.p_value:.2g} ({result.name}): {verdict}."
    )


def p_values(board: Leaderboard) -> dict[str, float]:
    """P-values of the paired test of each group against the best one, with Holm's correction for their number.

    Returns:
        {title of a group: p-value}, without the best group and those that cannot be tested.
    """
    best, *others = board.groups
    tables = _tables(best)
    results = {group.title: _test(board.metric, tables, _tables(group)) for group in others}
    return holm({title: result.p_value for title, result in results.items() if not isinstance(result, str)})


def _tables(group: Group) -> list[dict[str, np.ndarray] | None]:
    return [load_predictions(run.run_id) for run in group.runs]


def _test(
    metric: str, ones: Sequence[uncertainty.Table | None], others: Sequence[uncertainty.Table | None]
) -> uncertainty.PairedTest | str:
    """The paired test of two groups, given their per-example results; or the reason why there is none, a clause."""
    measured = metric.removeprefix(metrics.TEST)
    if not metric.startswith(metrics.TEST) or measured not in uncertainty.METRICS:
        return f"{metric} is not computed from single examples"
    one, other = ([table for table in tables if table is not None] for tables in (ones, others))
    if (len(one), len(other)) != (len(ones), len(others)):
        return "not all of these runs have stored their predictions, as those of earlier versions have not"
    result = uncertainty.paired_test(measured, one, other)
    return result or "the groups have cut the test set into other examples"


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """P-values with Holm's correction for the number of tests.

    Holm: A simple sequentially rejective multiple test procedure. Scandinavian Journal of Statistics 1979.
    """
    corrected: Sequence[float] = multipletests(list(p_values.values()), method="holm")[1] if p_values else []
    return dict(zip(p_values, map(float, corrected)))
