"""Baselines of text classification, on normalized texts, whole ones. They return logits (examples, classes).

Reference: Wang, Manning: Baselines and bigrams: simple, good sentiment and topic classification. ACL 2012.
"""

import warnings
from collections.abc import Sequence

import numpy as np
from scipy import sparse
from sklearn.exceptions import ConvergenceWarning
from sklearn.feature_extraction.text import CountVectorizer, TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.svm import LinearSVC
from threadpoolctl import threadpool_limits

from src.tasks.baselines.classes import log_probabilities, temperature
from src.tasks.baselines.interface import Prediction, join_notes, sample_note
from src.tasks.tokenizers import Kind

MAX_CHARACTERS = 100_000_000  # of training texts: all of IMDb's
PENALTIES = (0.01, 0.1, 1.0)  # C of the NB-SVM
ITERATIONS = 200  # of the NB-SVM: with a large C it would take minutes to converge, and gains nothing
INTERPOLATIONS = (0.25, 0.5, 1.0)  # β of the NB-SVM, between the mean magnitude of its weights and the weights


def within(texts: Sequence[str]) -> int:
    """How many of the first texts have together no more than `MAX_CHARACTERS`; one or more."""
    lengths = np.cumsum([len(text) for text in texts])
    return max(int(np.searchsorted(lengths, MAX_CHARACTERS, side="right")), 1)


def _tokens(kind: Kind) -> dict:
    """Options of scikit-learn's vectorizers: tokens and pairs of tokens."""
    options = {"analyzer": "char"} if kind == "characters" else {"tokenizer": str.split, "token_pattern": None}
    return {"lowercase": False, "ngram_range": (1, 2), **options}


def tfidf(kind: Kind) -> TfidfVectorizer:
    """TF–IDF features of tokens and pairs of tokens."""
    return TfidfVectorizer(**_tokens(kind), min_df=2, sublinear_tf=True)


def regression() -> LogisticRegression:
    """Logistic regression on TF–IDF features."""
    return LogisticRegression(C=10, max_iter=200)


def bag_of_words(train: Sequence[str], targets: np.ndarray, test: Sequence[str], classes: int, kind: Kind) -> Prediction:
    """Logistic regression on TF–IDF features of tokens and pairs of tokens.

    Args:
        train: the training texts, or so many of the first that they exceed `MAX_CHARACTERS`.
        targets: class indices of all training texts.
        test: texts.
        classes: number of classes.
        kind: of tokens.
    """
    used = within(train)
    vectorizer = tfidf(kind)
    features = vectorizer.fit_transform(train[:used])
    with threadpool_limits(1):  # on sparse features several threads would only wait for each other
        model = regression().fit(features, targets[:used])
    return Prediction(log_probabilities(model, vectorizer.transform(test), classes), sample_note(used, len(targets), "texts"))


def log_count_ratios(features: sparse.csr_matrix, targets: np.ndarray, classes: int) -> np.ndarray:
    """Log of how much more of a class's features each one is than of the other classes' features: (classes, features).

    Args:
        features: whether a text has a feature, (texts, features).
        targets: class indices of the texts.
        classes: number of classes.
    """
    member = sparse.csr_matrix((np.ones(len(targets)), (targets, np.arange(len(targets)))), shape=(classes, len(targets)))
    inside = (member @ features).toarray()
    outside = inside.sum(axis=0) - inside
    p, q = inside + 1, outside + 1  # α = 1
    return np.log((p / p.sum(axis=1, keepdims=True)) / (q / q.sum(axis=1, keepdims=True)))


def nb_svm(
    train: tuple[Sequence[str], np.ndarray],
    validation: tuple[Sequence[str], np.ndarray],
    test: Sequence[str],
    classes: int,
    kind: Kind,
) -> Prediction:
    """A linear support vector machine for each class against the others, on features scaled by their log-count ratios.

    C and β have the highest accuracy on the validation set, on which the scores are also scaled to logits, by one factor.

    Args:
        train: texts, or so many of the first that they exceed `MAX_CHARACTERS`, and class indices of all of them.
        validation: the same.
        test: texts.
        classes: number of classes.
        kind: of tokens.
    """
    used = within(train[0])
    vectorizer = CountVectorizer(**_tokens(kind), binary=True)
    x, y = vectorizer.fit_transform(train[0][:used]), train[1][:used]
    ratios = log_count_ratios(x, y, classes)
    x_validation, x_test = vectorizer.transform(validation[0]), vectorizer.transform(test)
    best_accuracy, result = -1.0, Prediction(np.empty(0))
    for penalty in PENALTIES:
        fitted, biases = _fit(x, y, ratios, penalty)
        for interpolation in INTERPOLATIONS:
            mean = np.abs(fitted).mean(axis=1, keepdims=True)
            weights = ((1 - interpolation) * mean + interpolation * fitted) * ratios
            scores = _scores(x_validation, weights, biases)
            accuracy = float(np.mean(scores.argmax(axis=1) == validation[1]))
            if accuracy > best_accuracy:
                logits = temperature(scores, validation[1]) * _scores(x_test, weights, biases)
                note = f"C = {penalty:g}, β = {interpolation:g}"
                best_accuracy = accuracy
                result = Prediction(logits, join_notes(note, sample_note(used, len(train[1]), "texts")))
    return result


def _fit(x: sparse.csr_matrix, y: np.ndarray, ratios: np.ndarray, penalty: float) -> tuple[np.ndarray, np.ndarray]:
    """Weights (classes, features) of the scaled features, and biases (classes,); of two classes those of the second alone."""
    two = len(ratios) == 2  # where each is against the other, with the same weights
    weights, biases = np.zeros(ratios.shape), np.full(len(ratios), -1e3)  # of a class that the training set lacks
    for each in [1] if two else np.unique(y):
        model = LinearSVC(C=penalty, dual="auto", max_iter=ITERATIONS)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # the validation set rejects what has not come far enough
            model.fit(x.multiply(ratios[each]).tocsr(), y == each)
        weights[each], biases[each] = model.coef_[0], model.intercept_[0]
    return weights, biases


def _scores(x: sparse.csr_matrix, weights: np.ndarray, biases: np.ndarray) -> np.ndarray:
    """The decision function (texts, classes)."""
    scores = x @ weights.T + biases
    return np.stack([-scores[:, 1], scores[:, 1]], axis=1) if len(biases) == 2 else scores
