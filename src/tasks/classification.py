"""Classification: what image and text classification share."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import keras
import numpy as np
from keras import KerasTensor, ops
from matplotlib.figure import Figure
from scipy.special import log_softmax, softmax
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

from recipes.specs import AttentionLayer, Classes
from src.config.tasks import ClassificationSettings, TaskSettings
from src.datasets import Data, Split, conversion
from src.figures import html, style
from src.tasks.base import Figures, Metrics, Task
from src.tasks.baselines import classes as methods
from src.tasks.baselines.interface import Baselines, Prediction
from src.tasks.losses import ClassWeightedCrossentropy
from src.tasks.serving import DEFAULT_FUNCTION, Serving, batch_spec

CALIBRATION_BINS = 15  # as in Guo et al. 2017
MAX_CLASSES_WITH_COUNTS = 20  # a larger confusion matrix has no room for numbers


class Classification(Task):
    """Assignment of each example to one of several classes.

    Predictions are logits (examples, classes); targets are class indices (examples,).

    Attributes:
        example_noun: what an example is called in titles, in the plural.
        target_noun: what is predicted of an example, in titles.
        balanced: whether the loss weights the classes such that each counts equally.
    """

    units = {"nll": "nats"}
    example_noun: str
    target_noun = "class"

    def __init__(self, settings: TaskSettings, data: Data):
        self.balanced = isinstance(settings, ClassificationSettings) and settings.class_weights == "balanced"
        data = self.convert_targets(data)
        self.train, self.validation, self.test = data.train, data.validation, data.test
        self.classes = data.classes
        self.outputs = Classes(len(data.classes))

    def convert_targets(self, data: Data) -> Data:
        """Convert the targets to those that the model is trained on."""
        return conversion.to_class_indices(data)

    def loss(self) -> keras.losses.Loss:
        """Cross-entropy, the validation loss too with the weights of the classes; the metrics are computed without them."""
        if self.balanced:
            return ClassWeightedCrossentropy(balanced_class_weights(self.train.targets, self.outputs.count).tolist())
        return keras.losses.SparseCategoricalCrossentropy(from_logits=True)

    def training_metrics(self, model: keras.Model) -> list[keras.metrics.Metric]:
        return [keras.metrics.SparseCategoricalAccuracy(name="accuracy")]

    def of_logits(self, model: keras.Model, logits: np.ndarray) -> np.ndarray:
        """The predictions that `metrics` takes, of logits (examples, classes) that a file made of a model computes."""
        return logits

    def metrics(self, split: Split, predictions: np.ndarray) -> Metrics:
        """Accuracy; balanced accuracy, the mean recall of the classes; mean F1 of the classes; negative log-likelihood in nats;
        expected calibration error (Guo et al. 2017).
        """
        targets, log_probabilities = split.targets, log_softmax(predictions.astype(np.float64), axis=1)
        _, recall, f1, _ = self.class_results(targets, predictions.argmax(axis=1))
        return {
            "accuracy": float(np.mean(predictions.argmax(axis=1) == targets)),
            "balanced_accuracy": float(np.nanmean(recall)),
            "macro_f1": float(np.nanmean(f1)),
            "nll": float(-np.mean(log_probabilities[np.arange(len(targets)), targets])),
            "calibration_error": calibration_error(targets, np.exp(log_probabilities)),
        }

    def example_results(self, split: Split, predictions: np.ndarray) -> dict[str, np.ndarray]:
        """Label, prediction, negative log-likelihood of the label in nats, and probability of the prediction."""
        log_probabilities = log_softmax(predictions.astype(np.float64), axis=1)
        return {
            "label": split.targets,
            "prediction": predictions.argmax(axis=1),
            "nats": -log_probabilities[np.arange(len(split)), split.targets],
            "confidence": np.exp(log_probabilities.max(axis=1)),
        }

    def baselines(self) -> Baselines:
        count = self.outputs.count
        several = len(np.unique(self.train.targets)) > 1  # otherwise there is nothing to learn
        return {
            "majority_class": lambda: Prediction(methods.majority_class(self.train.targets, count, len(self.test))),
            **(self.learned_baselines() if several else {}),
        }

    @abstractmethod
    def learned_baselines(self) -> Baselines:
        """Simple classifiers, fitted on two classes or more."""

    def serving(self, model: keras.Model) -> Serving:
        """Inputs to `probability` (batch, classes) and `class` (batch,), the index of the most probable; and both by name."""

        def classify(inputs: KerasTensor) -> dict:
            logits = model(self.serving_inputs(model, inputs), training=False)
            probability = ops.softmax(ops.cast(logits, "float32"))
            return {"probability": probability, "class": ops.argmax(probability, axis=-1)}

        return Serving(
            "Classifier", {DEFAULT_FUNCTION: (classify, {"inputs": batch_spec(self.train.single)})}, [model],
            example=self.serving_example(), settings={"classes": list(self.classes)},
            outputs={
                "class": ("int32", ()), "class_name": ("object", ()),
                "probability": ("float32", (self.outputs.count,)), "probability_by_name": ("object", ()),
            },
        )  # fmt: skip

    def serving_example(self) -> np.ndarray | list[str]:
        """The first test example, as a user types it."""
        return self.test.raw_inputs[:1]

    def serving_inputs(self, model: keras.Model, inputs: KerasTensor) -> KerasTensor | dict[str, KerasTensor]:
        """Encode a batch of raw inputs as the model's inputs."""
        return inputs

    def figures(
        self, model: keras.Model, predictions: np.ndarray, baselines: Mapping[str, np.ndarray] = MappingProxyType({})
    ) -> Figures:
        return {**self.class_figures(predictions), **self.worst_mistakes(predictions)}

    def class_figures(self, predictions: np.ndarray) -> Figures:
        """Figures of the results of each class on the test set."""
        predicted = predictions.argmax(axis=1)
        return {"confusion_matrix.png": self._confusion_matrix(predicted), "classes.html": self._class_table(predicted)}

    @abstractmethod
    def worst_mistakes(self, predictions: np.ndarray) -> Figures:
        """Figures of the test examples whose true class got the lowest probability."""

    def class_results(self, targets: np.ndarray, predicted: np.ndarray) -> tuple[np.ndarray, ...]:
        """Precision, recall, F1 and number of examples of each class; NaN where one is a quotient of zeros.

        Args:
            targets: class indices (examples,), or 0 or 1 for each class (examples, classes).
            predicted: the same.
        """
        results: tuple[np.ndarray, ...] = precision_recall_fscore_support(
            targets, predicted, labels=range(self.outputs.count), zero_division=np.nan
        )
        return results

    def _class_table(self, predicted: np.ndarray) -> str:
        """A page with the results of each class on the test set, and their means."""
        precision, recall, f1, support = self.class_results(self.test.targets, predicted)
        title = f"Results of each class on {len(predicted):,} test {self.example_noun}"
        table = class_table(self.classes, {"precision": precision, "recall": recall, "F1": f1}, support)
        return html.page(title, [table])

    def _confusion_matrix(self, predicted: np.ndarray) -> Figure:
        count = self.outputs.count
        matrix = confusion_matrix(self.test.targets, predicted, labels=range(count))
        fractions = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
        side = max(5.0, 0.5 * count + 2)
        title = f"Confusion matrix of {len(predicted):,} test {self.example_noun}"
        figure, (axes,) = style.create(title, size=(side + 0.5, side))
        heatmap = axes.imshow(fractions, cmap="Blues", vmin=0, vmax=1)
        figure.colorbar(heatmap, ax=axes, label="fraction of the true class", shrink=0.8)
        axes.set(xlabel="predicted class", ylabel="true class")
        rotation = 90 if max(map(len, self.classes)) > 3 else 0
        axes.set_xticks(range(count), self.classes, rotation=rotation)
        axes.set_yticks(range(count), self.classes)
        if count <= MAX_CLASSES_WITH_COUNTS:
            for row, column in zip(*np.nonzero(matrix)):
                color = "white" if fractions[row, column] > 0.5 else "black"
                axes.text(column, row, matrix[row, column], ha="center", va="center", color=color, fontsize=8)
        return figure

    def verdict(self, index: int, prediction: np.ndarray) -> tuple[str, bool]:
        """The true and the predicted class of a test example, "4 / 9 (97 %)", and whether they are equal.

        Args:
            index: of the example.
            prediction: for it.
        """
        probabilities, target = softmax(prediction), self.test.targets[index]
        predicted = int(prediction.argmax())
        text = f"{self.classes[target]} / {self.classes[predicted]} ({100 * probabilities[predicted]:.0f} %)"
        return text, predicted == target

    def mistakes(self, predictions: np.ndarray) -> np.ndarray:
        """Indices of the misclassified test examples, the lowest probability of the true class first."""
        log_probabilities = log_softmax(predictions.astype(np.float64), axis=1)
        wrong = np.flatnonzero(predictions.argmax(axis=1) != self.test.targets)
        return wrong[np.argsort(log_probabilities[wrong, self.test.targets[wrong]])]


def balanced_class_weights(targets: np.ndarray, classes: int) -> np.ndarray:
    """The weights with which all classes of a training set count equally, and whose mean over its examples is 1.

    n / (k n_c) for the n_c of n examples of a class, if k classes have examples. A class that has none gets 1.

    Args:
        targets: class indices (examples,).
        classes: number of classes.
    """
    counts = np.bincount(targets, minlength=classes)
    return np.where(counts > 0, len(targets) / (np.count_nonzero(counts) * np.maximum(counts, 1)), 1.0)


def class_table(
    classes: Sequence[str], results: Mapping[str, np.ndarray], support: np.ndarray, options: Mapping[str, np.ndarray] = {}
) -> str:
    """An HTML table with a row for each class, and below it the means of results over the classes that have them.

    Args:
        classes: names of the classes.
        results: {heading: results (classes,), NaN where a class has none}.
        support: number of examples of each class.
        options: {heading: what else is to be said of each class (classes,)}.
    """
    columns = [[*map(_fraction, values), _fraction(np.nanmean(values))] for values in results.values()]
    columns.append([f"{count:,}" for count in (*support, support.sum())])
    columns += [[*map(_fraction, values), ""] for values in options.values()]
    return html.table(["class", *results, "examples", *options], list(zip([*classes, "mean / total"], *columns)))


def _fraction(value: float) -> str:
    return "–" if np.isnan(value) else f"{value:.4f}"


def mistakes_title(mistakes: int, shown: int, examples: int, noun: str) -> str:
    """The title of a figure of mistakes: "The 16 worst of 23 mistakes on 360 test images".

    Args:
        mistakes: number of misclassified examples.
        shown: number of them in the figure.
        examples: number of test examples.
        noun: what an example is called, in the plural.
    """
    match mistakes:
        case 0:
            subject = "No mistake"
        case 1:
            subject = "The only mistake"
        case _:
            subject = f"All {mistakes} mistakes" if shown == mistakes else f"The {shown} worst of {mistakes} mistakes"
    return f"{subject} on {examples:,} test {noun}"


def calibration_error(targets: np.ndarray, probabilities: np.ndarray) -> float:
    """Expected calibration error: mean difference of confidence and accuracy over bins of equal confidence.

    Args:
        targets: class indices (examples,).
        probabilities: (examples, classes).
    """
    confidence = probabilities.max(axis=1)
    correct = probabilities.argmax(axis=1) == targets
    bins = np.minimum((confidence * CALIBRATION_BINS).astype(int), CALIBRATION_BINS - 1)
    gaps = [abs(correct[bins == b].sum() - confidence[bins == b].sum()) for b in range(CALIBRATION_BINS)]
    return float(sum(gaps) / len(targets))


def attention_weights(network: keras.Model, inputs: np.ndarray, padding_mask: np.ndarray | None = None) -> np.ndarray | None:
    """Mean attention that each position of the inputs gets: (examples, positions), each row with sum 1.

    The weights are those of the last `recipes.specs.AttentionLayer`, averaged over heads and queries. None if there is none.

    Args:
        network: as a recipe builds it.
        inputs: of the network.
        padding_mask: (examples, positions), false where a position is padding; None: there is no padding.
    """
    attention_layers: list[Any] = [layer for layer in network.layers if isinstance(layer, AttentionLayer)]
    if not attention_layers:
        return None
    weights = keras.Model(network.input, attention_layers[-1].output[1]).predict(inputs, verbose=0)
    if weights.ndim == 4:
        weights = weights.mean(axis=1)  # (examples, queries, positions)
    if padding_mask is not None and weights.shape[1] == weights.shape[2]:  # self-attention: padding is no query
        return (weights * padding_mask[:, :, None]).sum(axis=1) / np.maximum(padding_mask.sum(axis=1), 1)[:, None]
    return weights.mean(axis=1)
