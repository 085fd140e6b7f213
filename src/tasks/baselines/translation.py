"""Baselines of translation, on texts whose words are separated by single spaces.

Reference: Brown, Della Pietra, Della Pietra, Mercer: The mathematics of statistical machine translation: parameter estimation.
Computational Linguistics 19 (1993), model 1.
"""

from collections.abc import Iterable, Sequence

import numpy as np

MAX_PAIRS = 30_000_000  # pairs of a source and a target word in one text: as many first texts as have no more
ITERATIONS = 10
NULL = ""  # the source word that target words without a counterpart come from


def dictionary(sources: Sequence[str], targets: Sequence[str], iterations: int = ITERATIONS) -> dict[str, str]:
    """The most frequent target word of each source word, words being aligned by IBM model 1.

    Args:
        sources: texts.
        targets: their translations.
        iterations: of expectation maximization.
    """
    source_words, source_ids = _number([f"{NULL} {text}" for text in sources])
    target_words, target_ids = _number(targets)
    # All pairs of words in texts that are translations: (pairs,) each.
    pairs = [
        (np.tile(s, len(t)), np.repeat(t, len(s)), np.repeat(np.arange(len(t)), len(s))) for s, t in zip(source_ids, target_ids)
    ]
    starts = np.cumsum([0, *(len(t) for t in target_ids)])
    source, target = (np.concatenate([pair[side] for pair in pairs]) for side in (0, 1))
    occurrence = np.concatenate([pair[2] + start for pair, start in zip(pairs, starts)])  # of a target word
    codes, kind = np.unique(source.astype(np.int64) * len(target_words) + target, return_inverse=True)
    source_of, target_of = codes // len(target_words), codes % len(target_words)
    probability = np.ones(len(codes))  # of the target word, given the source word it is aligned with
    for _ in range(iterations):
        alignment = probability[kind] / np.bincount(occurrence, probability[kind])[occurrence]
        counts = np.bincount(kind, alignment)
        probability = counts / np.bincount(source_of, counts)[source_of]
    best = np.lexsort((probability, source_of))  # by source word, the most probable last
    return {source_words[source_of[row]]: target_words[target_of[row]] for row in best}


def word_by_word(texts: Iterable[str], translations: dict[str, str]) -> list[str]:
    """Replace each word by its translation; a word without one stays as it is."""
    return [" ".join(translations.get(word, word) for word in text.split(" ")) for text in texts]


def first_texts(sources: Iterable[str], targets: Iterable[str]) -> tuple[list[str], list[str]]:
    """The first texts, one or more, that have together no more than `MAX_PAIRS` pairs of words, and their translations."""
    pairs = 0
    used: tuple[list[str], list[str]] = [], []
    for source, target in zip(sources, targets):
        pairs += (source.count(" ") + 2) * (target.count(" ") + 1)
        if pairs > MAX_PAIRS and used[0]:
            break
        used[0].append(source)
        used[1].append(target)
    return used


def _number(texts: Sequence[str]) -> tuple[list[str], list[np.ndarray]]:
    """The words of texts, and the texts as numbers of words."""
    numbers: dict[str, int] = {}
    rows = [np.array([numbers.setdefault(word, len(numbers)) for word in text.split(" ")]) for text in texts]
    return list(numbers), rows
