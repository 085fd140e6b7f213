"""Word-by-word translation against a plain computation of IBM model 1."""

import itertools
from collections import defaultdict

from src.tasks.baselines import translation

SOURCES = ["das haus", "das buch", "ein buch", "ein haus ist klein", "das buch ist ein buch"]
TARGETS = ["the house", "the book", "a book", "a house is small", "the book is a book"]


def model_1(pairs, iterations):
    """{(source word, target word): probability}, as in Brown et al. 1993."""
    t = defaultdict(lambda: 1.0)
    for _ in range(iterations):
        counts, totals = defaultdict(float), defaultdict(float)
        for source, target in pairs:
            for word in target:
                norm = sum(t[other, word] for other in source)
                for other in source:
                    counts[other, word] += t[other, word] / norm
                    totals[other] += t[other, word] / norm
        t = defaultdict(float, {key: count / totals[key[0]] for key, count in counts.items()})
    return t


def test_the_dictionary_is_that_of_ibm_model_1():
    pairs = [(["", *source.split()], target.split()) for source, target in zip(SOURCES, TARGETS)]
    t = model_1(pairs, 10)
    words = {word for source, _ in pairs for word in source}
    expected = {word: max((key[1] for key in t if key[0] == word), key=lambda other: t[word, other]) for word in words}
    result = translation.dictionary(SOURCES, TARGETS)
    assert {word: other for word, other in result.items() if word} == {w: o for w, o in expected.items() if w}
    assert result["haus"] == "house"
    assert result["klein"] == "small"


def test_a_word_that_is_not_in_the_dictionary_is_copied():
    assert translation.word_by_word(["das haus von Anna", "ein"], {"das": "the", "haus": "house"}) == [
        "the house von Anna",
        "ein",
    ]


def test_texts_are_limited_by_their_pairs_of_words(monkeypatch):
    pairs = [(len(source.split()) + 1) * len(target.split()) for source, target in zip(SOURCES, TARGETS)]
    monkeypatch.setattr(translation, "MAX_PAIRS", list(itertools.accumulate(pairs))[2])
    assert translation.first_texts(iter(SOURCES), iter(TARGETS)) == (SOURCES[:3], TARGETS[:3])
    monkeypatch.setattr(translation, "MAX_PAIRS", 1)
    assert translation.first_texts(SOURCES, TARGETS) == (SOURCES[:1], TARGETS[:1])
