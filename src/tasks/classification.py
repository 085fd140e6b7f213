"""Classification: which of a few classes is it? What is the same for images and for texts."""

from abc import abstractmethod
from typing import Any

import keras
import numpy as np
from keras import KerasTensor, ops
from matplotlib.figure import Figure
from scipy.special import log_softmax

from recipes.specs import AttentionLayer, Classes
from src.datasets import Data, Part
from src.errors import UserError
from src.serving import Answer
from src.tasks.task import Metrics, Task

CALIBRATION_BINS = 15  # as in Guo et al. 2017


class Classification(Task):
    """Something to one of a few classes.

    Predictions are logits (examples, classes); targets are class numbers (examples,).
    """

    units = {"nll": "nats"}
    things: str  # what is classified, for titles

    def __init__(self, data: Data):
        if not data.classes:
            raise UserError(f"dataset={data.name}: classification needs class labels, but the targets are none.")
        self.classes = data.classes
        self.outputs = Classes(len(data.classes))

    def loss(self) -> keras.losses.Loss:
        return keras.losses.SparseCategoricalCrossentropy(from_logits=True)

    def training_metrics(self) -> list[keras.metrics.Metric]:
        return [keras.metrics.SparseCategoricalAccuracy(name="accuracy")]

    def metrics(self, part: Part, predictions: np.ndarray) -> Metrics:
        """Accuracy; negative log-likelihood in nats; expected calibration error (Guo et al. 2017)."""
        targets, logs = part.targets, log_softmax(predictions.astype(np.float64), axis=1)
        return {
            "accuracy": float(np.mean(predictions.argmax(axis=1) == targets)),
            "nll": float(-np.mean(logs[np.arange(len(targets)), targets])),
            "calibration_error": calibration_error(targets, np.exp(logs)),
        }

    def baselines(self) -> dict[str, Metrics]:
        return {"majority_class": self._majority_class(), **self.linear_model()}

    @abstractmethod
    def linear_model(self) -> dict[str, Metrics]:
        """{name: metrics on the test part} of a linear model."""

    def _majority_class(self) -> Metrics:
        """Answers with the frequencies of the classes in the training part, whatever is asked."""
        counts = np.bincount(self.train.targets, minlength=self.outputs.count)
        logits = np.log((counts + 1) / (counts + 1).sum())  # one more of each, so that none is impossible
        return self.metrics(self.test, np.tile(logits, (len(self.test), 1)))

    def served(self, model: keras.Model) -> tuple[Answer, list[Any]]:
        """Raw inputs to `probability` (batch, classes) and `class` (batch,), the number of the likeliest one."""

        def answer(inputs: KerasTensor) -> dict:
            probability = ops.softmax(ops.cast(model(self.encode(inputs), training=False), "float32"))
            return {"probability": probability, "class": ops.argmax(probability, axis=-1)}

        return answer, [model, *self.encoders]

    encoders: tuple = ()  # the layers that `encode` uses

    def encode(self, inputs: KerasTensor) -> KerasTensor | dict[str, KerasTensor]:
        """A batch of raw inputs, to what the model takes."""
        return inputs

    def figures(self, model: keras.Model, predictions: np.ndarray) -> dict[str, Figure | str]:
        return {
            "confusion_matrix.png": self._confusion_matrix(predictions.argmax(axis=1)),
            **self.worst_mistakes(log_softmax(predictions.astype(np.float64), axis=1)),
        }

    @abstractmethod
    def worst_mistakes(self, logs: np.ndarray) -> dict[str, Figure | str]:
        """{file name: figure} of the examples whose true class was thought least likely; logs (examples, classes)."""

    def _confusion_matrix(self, answers: np.ndarray) -> Figure:
        count = self.outputs.count
        matrix = np.zeros((count, count), int)
        np.add.at(matrix, (self.test.targets, answers), 1)
        share = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
        side = max(4.0, 0.5 * count + 2)
        figure = Figure(figsize=(side + 0.5, side), layout="constrained")
        axes = figure.subplots()
        shown = axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
        figure.colorbar(shown, ax=axes, label="share of the true class", shrink=0.8)
        axes.set(xlabel="predicted", ylabel="true", title=f"Confusion on {len(answers):,} test {self.things}")
        rotation = 90 if max(map(len, self.classes)) > 3 else 0
        axes.set_xticks(range(count), self.classes, rotation=rotation)
        axes.set_yticks(range(count), self.classes)
        if count <= 20:
            for row, column in zip(*np.nonzero(matrix)):
                color = "white" if share[row, column] > 0.5 else "black"
                axes.text(column, row, matrix[row, column], ha="center", va="center", color=color, fontsize=8)
        return figure

    def _worst(self, logs: np.ndarray) -> tuple[np.ndarray, int]:
        """The test examples that were answered wrongly, the worst first; and their number."""
        wrong = np.flatnonzero(logs.argmax(axis=1) != self.test.targets)
        return wrong[np.argsort(logs[wrong, self.test.targets[wrong]])], len(wrong)


def calibration_error(targets: np.ndarray, probabilities: np.ndarray) -> float:
    """Expected calibration error: how far, on average, confidence is from accuracy, in bins of equal confidence.

    Args:
        targets: class numbers (examples,).
        probabilities: (examples, classes).
    """
    confidence = probabilities.max(axis=1)
    right = probabilities.argmax(axis=1) == targets
    bins = np.minimum((confidence * CALIBRATION_BINS).astype(int), CALIBRATION_BINS - 1)
    gaps = [abs(right[bins == b].sum() - confidence[bins == b].sum()) for b in range(CALIBRATION_BINS)]
    return float(sum(gaps) / len(targets))


def attention_weights(network: keras.Model, inputs: np.ndarray, real: np.ndarray | None = None) -> np.ndarray | None:
    """How much a network looks at each position of its inputs: (examples, positions), each row with sum 1.

    The weights are those of the last `recipes.specs.AttentionLayer`, averaged over heads and queries. None if there is none.

    Args:
        network: as a recipe builds it.
        inputs: what it takes.
        real: (examples, positions), false where a position is padding, which asks nothing; None: all are real.
    """
    attending: list[Any] = [layer for layer in network.layers if isinstance(layer, AttentionLayer)]
    if not attending:
        return None
    weights = keras.Model(network.input, attending[-1].output[1]).predict(inputs, verbose=0)
    if weights.ndim == 4:
        weights = weights.mean(axis=1)  # (examples, queries, positions)
    if real is not None and weights.shape[1] == weights.shape[2]:  # attention of a sequence to itself
        return (weights * real[:, :, None]).sum(axis=1) / np.maximum(real.sum(axis=1), 1)[:, None]
    return weights.mean(axis=1)
