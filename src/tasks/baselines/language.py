"""Baselines of language modeling, on streams of token ids (tokens,). They return the probability of each token.

Reference: Chen, Goodman: An empirical study of smoothing techniques for language modeling. Computer Speech and
Language 13 (1999).
"""

import numpy as np

from recipes.specs import PADDING

MAX_ORDER = 6  # longest n-grams
MAX_TOKENS = 20_000_000  # first tokens of the training set whose n-grams are counted
FALLBACK_DISCOUNT = 0.75  # where there are too few n-grams to estimate it from


def unigrams(train: np.ndarray, tokens: np.ndarray, vocabulary: int) -> np.ndarray:
    """The frequencies of tokens in the training set, with add-one smoothing."""
    counts = np.bincount(train, minlength=vocabulary) + 1.0
    counts[PADDING] = 0
    return (counts / counts.sum())[tokens]


class NGrams:
    """The n-grams of a stream, counted up to `MAX_ORDER`.

    An n-gram is a number: its place among the sorted codes of n-grams, where the code is the number of its first n − 1 tokens
    times the size of the vocabulary plus its last token.

    Args:
        stream: token ids of the training set.
        vocabulary: its size.
        order: length of the longest n-grams.
    """

    def __init__(self, stream: np.ndarray, vocabulary: int, order: int = MAX_ORDER):
        self.vocabulary = vocabulary
        # By n, from 0: the codes, how often an n-gram occurs, and how many different tokens precede it.
        self.codes, self.counts, self.predecessors = [np.zeros(1, np.int64)], [np.array([len(stream)])], []
        ending = np.zeros(len(stream) + 1, np.int64)  # number of the (n − 1)-gram that ends before each token; after the last
        for n in range(1, order + 1):
            codes, first, numbers, counts = np.unique(
                ending[:-1] * vocabulary + stream[n - 1 :], return_index=True, return_inverse=True, return_counts=True
            )
            self.codes.append(codes)
            self.counts.append(counts)
            self.predecessors.append(np.bincount(ending[1:][first], minlength=len(self.codes[n - 1])))
            ending = numbers

    def kneser_ney(self, stream: np.ndarray, order: int) -> np.ndarray:
        """Probabilities of the tokens of a stream by modified, interpolated Kneser–Ney smoothing.

        The probability of a token after n − 1 others, C the count of the n-gram in the training set, D what is subtracted from
        counts of 1, 2, and 3 or more, and w any token:

            p_n = (C(context, token) − D + Σ_w D · p_(n − 1)) / Σ_w C(context, w)

        Below the highest order a count is that of the different tokens before the n-gram. p_0 is equal for all tokens.

        Args:
            stream: token ids.
            order: length of the longest n-grams.
        """
        probability = np.full(len(stream), 1 / (self.vocabulary - 1))  # PADDING is no token
        context = np.zeros(len(stream), np.int64)  # number of the (n − 1)-gram before each token; −1: not in the training set
        for n in range(1, order + 1):
            counts, contexts = (self.counts if n == order else self.predecessors)[n], self.codes[n] // self.vocabulary
            discounts = _discounts(counts)[np.minimum(counts, 3)]
            totals, masses = (np.bincount(contexts, values, len(self.codes[n - 1])) for values in (counts, discounts))
            codes = context * self.vocabulary + stream
            number = np.minimum(np.searchsorted(self.codes[n], codes), len(self.codes[n]) - 1)
            number = np.where((context >= 0) & (self.codes[n][number] == codes), number, -1)
            own = np.where(number >= 0, (counts - discounts)[number], 0.0)
            followed = (context >= 0) & (totals[context] > 0)
            mixed = (own + masses[context] * probability) / np.where(followed, totals[context], 1)
            probability = np.where(followed, mixed, probability)
            context = np.concatenate([[-1], number[:-1]])
        return probability


def _discounts(counts: np.ndarray) -> np.ndarray:
    """What is subtracted from counts of 0, 1, 2, and 3 or more (Chen & Goodman 1999, equation 17)."""
    n1, n2, n3, n4 = (np.count_nonzero(counts == count) for count in (1, 2, 3, 4))
    if not (n1 and n2 and n3 and n4):
        return np.array([0, *[FALLBACK_DISCOUNT] * 3])
    y = n1 / (n1 + 2 * n2)
    estimates = [1 - 2 * y * n2 / n1, 2 - 3 * y * n3 / n2, 3 - 4 * y * n4 / n3]
    return np.array([0, *(np.clip(estimate, 0, count) for count, estimate in enumerate(estimates, start=1))])
