"""The figure of a run's learning curves."""

import numpy as np

from src.tasks.learning_curves import best_epoch, learning_curves

CURVES = {
    "epoch/train/loss": [(1, 1.0), (2, 0.5), (3, 0.4)],
    "epoch/val/loss": [(1, 0.9), (2, 0.6), (3, 0.7)],
    "epoch/train/accuracy": [(1, 0.5), (2, 0.7), (3, 0.8)],
    "epoch/val/accuracy": [(1, 0.4), (2, 0.6), (3, 0.65)],
}
RESULTS = {"test/accuracy": 0.6, "test/baseline/majority_class/accuracy": 0.1, "test/baseline/bag_of_words/accuracy": 0.62}


def lines(axes):
    return {line.get_label(): line for line in axes.lines}


def test_both_sets_are_on_one_chart_beside_the_strongest_baseline():
    figure = learning_curves(CURVES, "text_classification", RESULTS, {}, best_epoch=2)
    loss, accuracy = figure.axes
    np.testing.assert_array_equal(lines(loss)["training set"].get_xydata(), CURVES["epoch/train/loss"])
    np.testing.assert_array_equal(lines(loss)["validation set"].get_xydata(), CURVES["epoch/val/loss"])
    assert set(lines(loss)) == {"training set", "validation set", "weights kept"}
    assert set(lines(accuracy)["bag of words, test set"].get_ydata()) == {0.62}
    assert set(lines(accuracy)["weights kept"].get_xdata()) == {2}
    assert (accuracy.get_xlabel(), accuracy.get_ylabel()) == ("epoch", "accuracy")
    assert figure.get_suptitle() == "Learning curves"


def test_a_unit_is_named_and_the_loss_of_a_language_model_has_its_baseline():
    curves = {name.replace("accuracy", "mae"): points for name, points in CURVES.items()}
    _, error = learning_curves(curves, "forecasting", {}, {"mae": "ppm"}).axes
    assert error.get_ylabel() == "mae (ppm)"
    results = {"test/baseline/unigram/nll": 3.0, "test/baseline/bigram/nll": 2.5, "test/nll": 2.0}
    (loss,) = learning_curves({k: v for k, v in CURVES.items() if "loss" in k}, "language_modeling", results, {}).axes
    assert set(lines(loss)["bigram, test set"].get_ydata()) == {2.5}


def test_the_best_epoch_is_that_of_the_monitored_metric():
    assert best_epoch(CURVES, "val_loss") == 2
    assert best_epoch(CURVES, "val_accuracy") == 3
    assert best_epoch(CURVES, "val_frechet_distance") is None
