"""Multi-label classification: what that of images, audio and texts share."""

import dataclasses

import keras
import numpy as np
from keras import KerasTensor, ops
from matplotlib.figure import Figure
from scipy.special import expit
from sklearn.metrics import average_precision_score, f1_score

from recipes.shared_layers import LabelThresholds
from src.datasets import Data, Split, conversion
from src.figures import html, style
from src.tasks.base import Figures, Metrics
from src.tasks.baselines import labels as methods
from src.tasks.baselines.interface import Baselines, Prediction
from src.tasks.classification import Classification, class_table
from src.tasks.losses import MicroF1
from src.tasks.serving import DEFAULT_FUNCTION, Serving, batch_spec

MAX_NAMED = 3  # labels of an example in a title
MAX_SHOWN = 60  # labels in a figure, the most frequent ones


class MultilabelClassification(Classification):
    """Assignment of any number of labels to each example. Stands before another classification among the bases of a
    task.

    Targets are 0 or 1 for each label, (examples, labels). Predictions are (examples, labels, 2): the logit of each label, and
    the one above which it is predicted. This threshold is chosen for each label after training, as the one with the highest F1
    on the validation set, and kept with the weights of the model.
    """

    units = {}
    target_noun = "labels"

    def convert_targets(self, data: Data) -> Data:
        return conversion.to_multi_hot(data)

    def loss(self) -> keras.losses.Loss:
        """Binary cross-entropy of each label, averaged over the labels."""
        return keras.losses.BinaryCrossentropy(from_logits=True)

    def training_metrics(self, model: keras.Model) -> list[keras.metrics.Metric]:
        return [MicroF1(name="micro_f1_at_half")]  # the thresholds are chosen after training; until then probability 0.5

    def finalize(self, model: keras.Model, batch_size: int) -> None:
        """Choose the thresholds on the validation set."""
        logits = super().predict(model, self.validation, batch_size)
        thresholds_of(model).assign(best_thresholds(self.validation.targets, logits))

    def predict(self, model: keras.Model, split: Split, batch_size: int) -> np.ndarray:
        return self.of_logits(model, super().predict(model, split, batch_size))

    def of_logits(self, model: keras.Model, logits: np.ndarray) -> np.ndarray:
        return with_thresholds(logits, ops.convert_to_numpy(thresholds_of(model)))

    def metrics(self, split: Split, predictions: np.ndarray) -> Metrics:
        """Mean F1 of the labels (of those that are an example's or are predicted for one); F1 of all labels of all examples
        together; mean of the labels' average precision (of those that an example has).
        """
        predicted = are_predicted(predictions)
        return {
            "macro_f1": float(f1_score(split.targets, predicted, average="macro", zero_division=np.nan)),
            "micro_f1": float(f1_score(split.targets, predicted, average="micro", zero_division=np.nan)),
            "mean_average_precision": float(np.nanmean(average_precisions(split.targets, predictions[..., 0]))),
        }

    def example_results(self, split: Split, predictions: np.ndarray) -> dict[str, np.ndarray]:
        """For each example and each class, whether it is a label, whether it is predicted, and its probability."""
        example, label = (index.ravel() for index in np.indices(split.targets.shape))
        return {
            "example": example,
            "class": np.array(self.classes, dtype=object)[label],
            "label": split.targets.ravel().astype(bool),
            "prediction": are_predicted(predictions).ravel(),
            "probability": expit(predictions[..., 0]).ravel(),
        }

    def baselines(self) -> Baselines:
        several = len(np.unique(self.train.targets)) > 1  # otherwise there is nothing to learn
        return {"label_frequencies": self._label_frequencies, **(self.learned_baselines() if several else {})}

    def _label_frequencies(self) -> Prediction:
        logits = methods.label_frequencies(self.train.targets)
        validation, test = (np.tile(logits, (len(split), 1)) for split in (self.validation, self.test))
        return self.baseline_prediction(validation, test)

    def baseline_prediction(self, validation: np.ndarray, test: np.ndarray, note: str = "") -> Prediction:
        """The prediction of a baseline, given its logits: its thresholds too are chosen on the validation set."""
        return Prediction(with_thresholds(test, best_thresholds(self.validation.targets, validation)), note)

    def serving(self, model: keras.Model) -> Serving:
        """Inputs to `probability` and `predicted` (batch, labels); the probabilities by name, and the names of the labels."""
        thresholds = thresholds_of(model)

        def classify(inputs: KerasTensor) -> dict:
            logits = ops.cast(model(self.serving_inputs(model, inputs), training=False), "float32")
            return {"probability": ops.sigmoid(logits), "predicted": logits > thresholds}

        return dataclasses.replace(
            super().serving(model), kind="MultilabelClassifier",
            functions={DEFAULT_FUNCTION: (classify, {"inputs": batch_spec(self.train.single)})},
            outputs={
                "probability": ("float32", (self.outputs.count,)), "probability_by_name": ("object", ()),
                "predicted": ("bool", (self.outputs.count,)), "labels": ("object", ()),
            },
        )  # fmt: skip

    def class_figures(self, predictions: np.ndarray) -> Figures:
        targets, logits, thresholds = self.test.targets, predictions[..., 0], expit(predictions[0, :, 1])
        precision, recall, f1, support = self.class_results(targets, are_predicted(predictions))
        results = {"precision": precision, "recall": recall, "F1": f1, "average precision": average_precisions(targets, logits)}
        table = class_table(self.classes, results, support, {"predicted above probability": thresholds})
        title = f"Results of each label on {len(targets):,} test {self.example_noun}"
        figure = self._label_figure(title, {name: results[name] for name in ("F1", "average precision")}, support)
        return {"classes.png": figure, "classes.html": html.page(title, [table])}

    def _label_figure(self, title: str, results: dict[str, np.ndarray], support: np.ndarray) -> Figure:
        """Results of each label beside its frequency, the most frequent label at the top."""
        shown = np.argsort(-support, kind="stable")[:MAX_SHOWN]
        if len(shown) < len(support):
            title = f"{title}, the {len(shown)} most frequent of {len(support)}"
        rows = np.arange(len(shown))
        size = (style.WIDTH, 1.6 + 0.28 * len(shown))
        figure, (left, right) = style.create(title, columns=2, size=size, sharey=True, width_ratios=(2, 1))
        height = 0.8 / len(results)
        for number, (name, values) in enumerate(results.items()):
            color = (style.MODEL, style.BASELINE)[number]
            left.barh(rows + (number - (len(results) - 1) / 2) * height, values[shown], height, label=name, color=color)
        left.set(xlim=(0, 1), xlabel="on the test set")
        left.set_yticks(rows, [self.classes[label] for label in shown])
        left.invert_yaxis()
        right.barh(rows, support[shown] / len(self.test), 0.8, color=style.PAST)
        right.set(xlabel=f"fraction of the {self.example_noun}")
        for axes in (left, right):
            axes.grid(axis="x")
        figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=len(results))
        return figure

    def verdict(self, index: int, prediction: np.ndarray) -> tuple[str, bool]:
        """The true and the predicted labels of a test example, "joy, love / joy" in two lines, and whether they are equal."""
        true, predicted = self.test.targets[index], are_predicted(prediction)
        return f"{self._names(true)} /\n{self._names(predicted)}", bool((true == predicted).all())

    def _names(self, labels: np.ndarray) -> str:
        names = [self.classes[label] for label in np.flatnonzero(labels)]
        more = f" +{len(names) - MAX_NAMED}" if len(names) > MAX_NAMED else ""
        return ", ".join(names[:MAX_NAMED]) + more or "none"

    def mistakes(self, predictions: np.ndarray) -> np.ndarray:
        """Indices of the test examples with a wrong label, the lowest probability of the true labels together first."""
        wrong = np.flatnonzero((are_predicted(predictions) != self.test.targets).any(axis=1))
        signs = np.where(self.test.targets[wrong], -1.0, 1.0)
        nats = np.logaddexp(0, signs * predictions[wrong, :, 0]).sum(axis=1)
        return wrong[np.argsort(-nats)]


def add_thresholds(model: keras.Model) -> keras.Model:
    """The model of a task with the thresholds of its labels."""
    return keras.Model(model.input, LabelThresholds(name="thresholds")(model.output), name=model.name)


def thresholds_of(model: keras.Model) -> keras.Variable:
    """The thresholds that a model keeps, (labels,)."""
    return next(layer for layer in model.layers if isinstance(layer, LabelThresholds)).thresholds


def best_thresholds(targets: np.ndarray, logits: np.ndarray) -> np.ndarray:
    """For each label the logit above which predicting it has the highest F1: halfway between the logits of two examples.

    A label that no example has gets 0, probability 0.5.

    Args:
        targets: 0 or 1 (examples, labels).
        logits: of the same shape.

    Returns:
        (labels,).
    """
    thresholds = np.zeros(targets.shape[1])
    for label, (present, scores) in enumerate(zip(targets.T, logits.T.astype(np.float64))):
        if not present.any():
            continue
        order = np.argsort(-scores, kind="stable")
        scores, true_positives = scores[order], np.cumsum(present[order])
        f1 = 2 * true_positives / (np.arange(1, len(scores) + 1) + present.sum())  # if the first 1, 2, … are predicted
        below = np.append(scores[1:], scores[-1] - 2)  # the next score; 1 below the last one is halfway to none
        best = int(np.argmax(np.where(below < scores, f1, -1)))  # equal scores are predicted together
        thresholds[label] = (scores[best] + below[best]) / 2
    return thresholds


def with_thresholds(logits: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    """Predictions (examples, labels, 2) of logits (examples, labels) and thresholds (labels,)."""
    return np.stack(np.broadcast_arrays(logits, thresholds), axis=-1)


def are_predicted(predictions: np.ndarray) -> np.ndarray:
    """Which labels are predicted: booleans (…, labels) of predictions (…, labels, 2)."""
    result: np.ndarray = predictions[..., 0] > predictions[..., 1]
    return result


def average_precisions(targets: np.ndarray, logits: np.ndarray) -> np.ndarray:
    """Average precision of each label (labels,); NaN if no example has it. Targets and logits are (examples, labels)."""
    return np.array([
        average_precision_score(present, scores) if present.any() else np.nan for present, scores in zip(targets.T, logits.T)
    ])  # fmt: skip
