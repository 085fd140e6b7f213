"""How much a result depends on the examples of the test set: bootstrap intervals, and paired tests of two results.

statistics  what metrics are computed from, as functions of sums over examples
resampling  intervals and tests
"""

from src.uncertainty.resampling import Interval, PairedTest, confidence_interval, paired_test, same_examples
from src.uncertainty.statistics import BLEU_COUNTS, METRICS, Table, bleu_of_counts, statistics_of

__all__ = [
    "BLEU_COUNTS", "METRICS", "Interval", "PairedTest", "Table", "bleu_of_counts", "confidence_interval", "paired_test",
    "same_examples", "statistics_of",
]  # fmt: skip
