"""How much a result depends on the examples of the test set: bootstrap intervals, and paired tests of two results.

Needed of a run are only its per-example results, a table with a row for each example, which every task defines and every run
stores. A metric that is a function of sums over the examples can be computed on any resample of them: accuracy from the number
of correct ones, BLEU from the counts of matching n-grams.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from statsmodels.stats.contingency_tables import mcnemar

from src.uncertainty.statistics import Statistics, Table, statistics_of

CONFIDENCE = 0.95
INTERVAL_DRAWS, TEST_DRAWS = 2_000, 10_000  # resamples of the test set; a p-value is at least 1 / (TEST_DRAWS + 1)
CHUNK = 4_000_000  # numbers of a chunk of resamples, to bound the memory
FEW_BLOCKS = 20  # with fewer, their own variance is badly estimated, and intervals are too narrow
EXACT_BELOW = 25  # disagreements, where the χ² approximation of McNemar's test becomes inexact
# Columns that say which examples these are; all others say what a model made of them.
EXAMPLE_COLUMNS = (
    "example", "class", "label", "series", "window", "step", "feature", "target", "source", "reference", "tokens", "characters",
)  # fmt: skip


class Interval(NamedTuple):
    """A 95 % confidence interval.

    Attributes:
        low, high: its bounds.
        basis: what was resampled, where that makes it rough: few blocks; else empty.
    """

    low: float
    high: float
    basis: str


class PairedTest(NamedTuple):
    """The difference between two results on the same examples.

    Attributes:
        difference: of the metric, first minus second.
        interval: 95 % confidence interval of the difference, by the paired bootstrap.
        p_value: of the test, two-sided.
        name: of the test that the p-value is from.
        units: number of examples, sentences or windows that were resampled.
    """

    difference: float
    interval: Interval
    p_value: float
    name: str
    units: int


def confidence_interval(metric: str, table: Table, seed: int = 0) -> Interval | None:
    """The 95 % confidence interval of a metric for other test sets of the same size: the percentile bootstrap (Efron 1979).

    Args:
        metric: without a prefix: accuracy.
        table: per-example results.
        seed: of the resamples.

    Returns:
        None if the metric is no function of sums over these examples.
    """
    statistics = statistics_of(metric, table)
    if statistics is None:
        return None
    resamples = _resampled_sums([statistics], INTERVAL_DRAWS, seed)
    return _percentiles(np.concatenate([statistics.value(sums) for (sums,) in resamples]), statistics)


def paired_test(metric: str, ones: Sequence[Table], others: Sequence[Table], seed: int = 0) -> PairedTest | None:
    """Test whether two models differ on the population that the test examples are drawn from.

    McNemar's test for the accuracy of single runs, otherwise the paired bootstrap. Of several runs of one model the mean is
    compared: the variation between their seeds is not part of this test.

    Koehn: Statistical significance tests for machine translation evaluation. EMNLP 2004. McNemar: Note on the sampling error of
    the difference between correlated proportions or percentages. Psychometrika 1947.

    Args:
        metric: without a prefix: accuracy.
        ones: per-example results of the runs of the first model.
        others: of those of the second one.
        seed: of the resamples.

    Returns:
        The test; None if the metric is no function of sums over these examples, or the examples are not the same.
    """
    tables = [*ones, *others]
    if not all(same_examples(tables[0], table) for table in tables[1:]):
        return None
    statistics = [each for table in tables if (each := statistics_of(metric, table)) is not None]
    if len(statistics) < len(tables):
        return None

    def difference(sums: Sequence[np.ndarray]) -> np.ndarray:
        values = np.stack([each.value(own) for each, own in zip(statistics, sums)])  # (runs, resamples)
        return values[: len(ones)].mean(axis=0) - values[len(ones) :].mean(axis=0)

    observed = float(difference([each.rows.sum(axis=0)[None] for each in statistics])[0])
    draws = np.concatenate([difference(sums) for sums in _resampled_sums(statistics, TEST_DRAWS, seed)])
    if metric == "accuracy" and len(ones) == len(others) == 1:
        p_value, name = _mcnemar(*(table["label"] == table["prediction"] for table in tables))
    else:
        # Under the hypothesis of no difference the resamples vary around 0 as they now do around the observed difference.
        extreme = np.count_nonzero(np.abs(draws - observed) >= abs(observed))
        p_value, name = (extreme + 1) / (len(draws) + 1), "paired bootstrap"
    return PairedTest(observed, _percentiles(draws, statistics[0]), p_value, name, len(statistics[0].rows))


def same_examples(one: Table, other: Table) -> bool:
    """Whether two tables are of the same examples in the same order, as far as they say which ones these are."""
    if {len(column) for column in one.values()} != {len(column) for column in other.values()}:
        return False
    shared = [name for name in EXAMPLE_COLUMNS if name in one or name in other]
    return all(name in one and name in other and _equal(one[name], other[name]) for name in shared)


def _equal(one: np.ndarray, other: np.ndarray) -> bool:
    return bool(((one == other) | ((one != one) & (other != other))).all())  # nan, a missing target, equals nan


def _mcnemar(one_correct: np.ndarray, other_correct: np.ndarray) -> tuple[float, str]:
    """P-value and name of McNemar's test: exact where few examples are classified correctly by one model alone."""
    only_one, only_other = np.count_nonzero(one_correct & ~other_correct), np.count_nonzero(other_correct & ~one_correct)
    exact = only_one + only_other < EXACT_BELOW
    result = mcnemar([[0, only_one], [only_other, 0]], exact=exact, correction=True)
    return float(result.pvalue), f"{'exact ' if exact else ''}McNemar's test"


def _percentiles(draws: np.ndarray, statistics: Statistics) -> Interval:
    low, high = np.nanpercentile(draws, [100 * (1 - CONFIDENCE) / 2, 100 * (1 + CONFIDENCE) / 2])
    blocks = -(-len(statistics.rows) // statistics.block)
    units = "blocks of overlapping windows" if statistics.block > 1 else "examples"
    basis = f"over only {blocks} {units}, so it is rough" if blocks < FEW_BLOCKS else ""
    return Interval(float(low), float(high), basis)


def _resampled_sums(statistics: Sequence[Statistics], draws: int, seed: int) -> Iterator[list[np.ndarray]]:
    """Sums of the statistics over resamples of the units, the same resamples for each run: a list of (chunk, statistics).

    Units that depend on their neighbors are drawn in blocks that may begin anywhere, the first units following the last
    (circular block bootstrap, Politis & Romano 1992).
    """
    units, block = len(statistics[0].rows), min(statistics[0].block, len(statistics[0].rows))
    rng = np.random.default_rng(seed)
    chunk = max(CHUNK // units, 1)
    for first in range(0, draws, chunk):
        starts = rng.integers(units, size=(min(chunk, draws - first), -(-units // block)))
        drawn = ((starts[..., None] + np.arange(block)) % units).reshape(len(starts), -1)[:, :units]
        counts = np.stack([np.bincount(row, minlength=units) for row in drawn]).astype(np.float64)  # of each unit
        yield [counts @ each.rows for each in statistics]
