"""Baselines of text classification by hand and against scikit-learn."""

import re

import numpy as np
import pytest
from scipy import sparse
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.svm import LinearSVC

from src.tasks.baselines import texts


def test_log_count_ratios_by_hand():
    features = sparse.csr_matrix([[1, 1, 0], [1, 0, 0], [0, 1, 1]])
    ratios = texts.log_count_ratios(features, np.array([1, 1, 0]), 2)
    # Of class 1: counts 2, 1, 0, plus 1 each: 3, 2, 1 of 6; of the others 0, 1, 1, plus 1 each: 1, 2, 2 of 5.
    expected = np.log([(3 / 6) / (1 / 5), (2 / 6) / (2 / 5), (1 / 6) / (2 / 5)])
    np.testing.assert_allclose(ratios, [-expected, expected])


WORDS = [f"w{number}" for number in range(30)]
DRAW = np.random.default_rng(0)
LEAN = DRAW.normal(size=(30, 3))
PICKED = DRAW.integers(30, size=(300, 8))
TEXTS = [" ".join(WORDS[number] for number in row) for row in PICKED]


@pytest.mark.parametrize("classes", [2, 3])
def test_nb_svm_is_its_definition(classes):
    """A support vector machine on binary features times ratios, its weights interpolated (Wang & Manning 2012)."""
    targets = LEAN[PICKED, :classes].sum(axis=1).argmax(axis=1)
    result = texts.nb_svm((TEXTS[:200], targets[:200]), (TEXTS[200:250], targets[200:250]), TEXTS[250:], classes, "words")
    penalty, beta = map(float, re.findall(r"[\d.]+", result.note))
    grams = [{*text.split(), *zip(text.split(), text.split()[1:])} for text in TEXTS]
    known = list(dict.fromkeys(gram for each in grams[:200] for gram in each))
    x = np.array([[gram in each for gram in known] for each in grams], float)
    scores = np.zeros((50, classes))
    for each in range(classes):
        member = targets[:200] == each
        p, q = x[:200][member].sum(axis=0) + 1, x[:200][~member].sum(axis=0) + 1
        ratio = np.log(p / p.sum()) - np.log(q / q.sum())
        model = LinearSVC(C=penalty, dual=True, tol=1e-6, max_iter=100_000).fit(x[:200] * ratio, member)
        own = model.coef_[0]
        scores[:, each] = (x[250:] * ratio) @ ((1 - beta) * np.abs(own).mean() + beta * own) + model.intercept_[0]
    factor = (result.values * scores).sum() / (scores * scores).sum()
    assert factor > 0
    np.testing.assert_allclose(result.values, factor * scores, atol=0.02 * np.abs(result.values).max())
    assert np.mean(result.values.argmax(axis=1) == targets[250:]) > 0.7


def test_nb_svm_of_a_class_without_training_examples():
    targets = np.array([0, 2] * 10)
    many = ["good fine", "bad dull"] * 10
    result = texts.nb_svm((many, targets), (many, targets), many, 3, "words").values
    np.testing.assert_array_equal(result.argmax(axis=1), targets)


def test_bag_of_words_converges():
    """Where every word says a little, a fit that stops early is far from what a bag of words can do."""
    targets = (LEAN[PICKED, 0].mean(axis=1) > 0).astype(int)
    result = texts.bag_of_words(TEXTS[:200], targets[:200], TEXTS[200:], 2, "words")
    vectorizer = TfidfVectorizer(ngram_range=(1, 2), min_df=2, sublinear_tf=True)
    best = LogisticRegression(C=10, max_iter=5000, tol=1e-8).fit(vectorizer.fit_transform(TEXTS[:200]), targets[:200])
    expected = log_loss(targets[200:], best.predict_proba(vectorizer.transform(TEXTS[200:])))
    assert log_loss(targets[200:], np.exp(result.values)) == pytest.approx(expected, rel=0.01)


def test_texts_are_limited_by_their_characters(monkeypatch):
    monkeypatch.setattr(texts, "MAX_CHARACTERS", 10)
    assert texts.within(["abcd", "efghij", "k"]) == 2
    assert texts.within(["longer than ten characters"]) == 1
    result = texts.bag_of_words(["a b", "b b", "c d d d d", "x"], np.array([0, 1, 1, 0]), ["a"], 2, "characters")
    assert result.note == "2 of 4 training texts"
