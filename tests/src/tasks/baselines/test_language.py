"""n-grams against definitions, computed with dictionaries."""

from collections import Counter

import numpy as np
import pytest

from recipes.specs import PADDING
from src.tasks.baselines import language

VOCABULARY = 7
STREAM = np.random.default_rng(0).choice([1, 2, 3, 4, 5], size=300, p=[0.4, 0.3, 0.15, 0.1, 0.05])
STREAM[::3] = 1  # so that pairs are more than chance
TOKENS = [token for token in range(VOCABULARY) if token != PADDING]


def discounts_of(counts):
    """Chen & Goodman 1999, equation 17."""
    n = Counter(counts.values())
    if not all(n[number] for number in (1, 2, 3, 4)):
        return [0, 0.75, 0.75, 0.75]
    y = n[1] / (n[1] + 2 * n[2])
    return [0, *(min(max(k - (k + 1) * y * n[k + 1] / n[k], 0), k) for k in (1, 2, 3))]


def probability(stream, context, token, order):
    """Modified, interpolated Kneser–Ney smoothing, by its definition."""
    if order == 0:
        return 1 / (VOCABULARY - 1)

    def grams(n):
        return [tuple(stream[start : start + n]) for start in range(len(stream) - n + 1)]

    def recurse(context, n, highest):
        if n == 0:
            return 1 / (VOCABULARY - 1)
        counts = Counter(grams(n)) if highest else Counter(gram[1:] for gram in set(grams(n + 1)))
        lower = recurse(context[1:], n - 1, False)
        after = {gram: count for gram, count in counts.items() if gram[:-1] == context}
        if not after:
            return lower
        d = discounts_of(counts)
        own = counts.get((*context, token), 0)
        total = sum(after.values())
        mass = sum(d[min(count, 3)] for count in after.values())
        return (own - d[min(own, 3)] + mass * lower) / total

    return recurse(tuple(context), order, True)


@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_kneser_ney_is_its_definition(order):
    tested = np.array([1, 2, 1, 1, 3, 5, 5, 5, 6, 1, 2])  # 5, 5, 5 and 6 are not in the training set
    result = language.NGrams(STREAM, VOCABULARY).kneser_ney(tested, order)
    for position in range(order - 1, len(tested)):
        context = tested[position - order + 1 : position].tolist()
        expected = probability(STREAM.tolist(), context, int(tested[position]), order)
        assert result[position] == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("order", [1, 3, 6])
@pytest.mark.parametrize("context", [[1, 2, 1, 3, 1], [5, 5, 5, 5, 5], [6, 6, 6, 6, 1]], ids=str)
def test_probabilities_sum_to_one(order, context):
    n_grams = language.NGrams(STREAM, VOCABULARY)
    assert sum(n_grams.kneser_ney(np.array([*context, token]), order)[-1] for token in TOKENS) == pytest.approx(1)


def test_numbers_of_n_grams_do_not_overflow():
    """50,000⁶ is more than an int64 holds."""
    stream = np.array([49_999, 49_998, 49_999, 49_998, 49_999, 49_998, 49_999, 7] * 3)
    n_grams = language.NGrams(stream, 50_000)
    assert [len(codes) for codes in n_grams.codes[1:]] == [
        len({tuple(stream[i : i + n]) for i in range(25 - n)}) for n in range(1, 7)
    ]
    assert n_grams.kneser_ney(stream, 6)[5:].min() > 0.1


def test_unigrams_by_hand():
    result = language.unigrams(np.array([1, 1, 2]), np.array([1, 2, 3]), 4)
    np.testing.assert_allclose(result, [3 / 6, 2 / 6, 1 / 6])
