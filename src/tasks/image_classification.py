"""Image classification: which of a few classes is in the picture?"""

import keras
import numpy as np
from keras import layers
from matplotlib.figure import Figure
from scipy.special import log_softmax
from sklearn.linear_model import LogisticRegression

from recipes.kinds import Classes, Image
from src import settings
from src.datasets import Data, Part
from src.errors import UserError
from src.tasks.task import Metrics, Task

CALIBRATION_BINS = 15  # as in Guo et al. 2017
REGRESSION_EXAMPLES = 5_000  # for the logistic regression: more of them cost minutes and win little
REGRESSION_ITERATIONS = 200


class ImageClassification(Task):
    """Images of 0..255 to one of a few classes.

    Predictions are logits (examples, classes); targets are class numbers (examples,).
    """

    units = {"nll": "nats"}

    def __init__(self, chosen: settings.ImageClassification, data: Data):
        if data.train.inputs.ndim != 4 or data.train.inputs.dtype != np.uint8:
            raise UserError(f"dataset={data.name}: image_classification needs images, but the inputs are not images.")
        if not data.classes:
            raise UserError(f"dataset={data.name}: image_classification needs class labels, but the targets are none.")
        self.classes = data.classes
        self.train, self.validation, self.test = data.train, data.validation, data.test
        self.inputs = Image(*data.train.inputs.shape[1:])
        self.outputs = Classes(len(data.classes))

    def around(self, network: keras.Model) -> keras.Model:
        pixels = keras.Input(network.input_shape[1:], dtype="uint8", name="image")
        return keras.Model(pixels, network(layers.Rescaling(1 / 255, name="scale")(pixels)), name=network.name)

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
        return {"majority_class": self._majority_class(), "logistic_regression": self._logistic_regression()}

    def _majority_class(self) -> Metrics:
        """Answers with the frequencies of the classes in the training part, whatever the image."""
        counts = np.bincount(self.train.targets, minlength=self.outputs.count)
        logits = np.log((counts + 1) / (counts + 1).sum())  # one more of each, so that none is impossible
        return self.metrics(self.test, np.tile(logits, (len(self.test), 1)))

    def _logistic_regression(self) -> Metrics:
        """A linear model on the pixels, fitted on the first `REGRESSION_EXAMPLES` of the training part."""

        def flat(part: Part) -> np.ndarray:
            return part.inputs.reshape(len(part), -1) / np.float32(255)

        some = Part(self.train.inputs[:REGRESSION_EXAMPLES], self.train.targets[:REGRESSION_EXAMPLES])
        seen = np.unique(some.targets)
        logs = np.full((len(self.test), self.outputs.count), np.log(1e-9))
        if len(seen) > 1:
            model = LogisticRegression(max_iter=REGRESSION_ITERATIONS, tol=1e-3).fit(flat(some), some.targets)
            logs[:, seen] = model.predict_log_proba(flat(self.test))
        else:
            logs[:, seen] = 0.0
        return self.metrics(self.test, logs)

    def served(self, model: keras.Model) -> keras.Model:
        """Image (batch, H, W, C), 0..255, to `probability` (batch, classes) and `class` (batch,), the likeliest one."""
        probability = layers.Softmax(dtype="float32", name="probability")(model.output)
        return keras.Model(model.input, {"probability": probability, "class": keras.ops.argmax(probability, axis=-1)})

    def figures(self, predictions: np.ndarray) -> dict[str, Figure]:
        return {
            "confusion_matrix.png": self._confusion_matrix(predictions.argmax(axis=1)),
            "worst_mistakes.png": self._worst_mistakes(log_softmax(predictions.astype(np.float64), axis=1)),
        }

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
        axes.set(xlabel="predicted", ylabel="true", title=f"Confusion on {len(answers):,} test images")
        rotation = 90 if max(map(len, self.classes)) > 3 else 0
        axes.set_xticks(range(count), self.classes, rotation=rotation)
        axes.set_yticks(range(count), self.classes)
        if count <= 20:
            for row, column in zip(*np.nonzero(matrix)):
                color = "white" if share[row, column] > 0.5 else "black"
                axes.text(column, row, matrix[row, column], ha="center", va="center", color=color, fontsize=8)
        return figure

    def _worst_mistakes(self, logs: np.ndarray) -> Figure:
        """The images whose true class was thought least likely."""
        answers = logs.argmax(axis=1)
        wrong = np.flatnonzero(answers != self.test.targets)
        worst = wrong[np.argsort(logs[wrong, self.test.targets[wrong]])][:16]
        figure = Figure(figsize=(8, 8.6), layout="constrained")
        figure.suptitle(f"The worst of {len(wrong)} mistakes on {len(answers):,} test images")
        for axes in figure.subplots(4, 4).flat:
            axes.axis("off")
        for axes, index in zip(figure.axes, worst):
            axes.imshow(self.test.inputs[index].squeeze(), cmap="gray", vmin=0, vmax=255)
            truth, answer = self.test.targets[index], answers[index]
            axes.set_title(
                f"is {self.classes[truth]} ({np.exp(logs[index, truth]):.1%})\n"
                f"taken for {self.classes[answer]} ({np.exp(logs[index, answer]):.1%})",
                fontsize=9,
            )
        return figure


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
