"""Image classification."""

import warnings
from typing import Any

import keras
import numpy as np
from keras import KerasTensor, layers, ops
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression

from recipes.specs import GlimpseLayer, Image, PatchLayer, RewardLayer
from src.config.tasks import ImageClassificationSettings
from src.datasets import Data, Split, validation
from src.datasets.conversion import PixelRange
from src.tasks.base import Figures, Metrics, Task, nested_layers
from src.tasks.classification import Classification, attention_weights
from src.tasks.figures import show_image

REGRESSION_PIXELS = 200_000_000  # to fit the logistic regression on, 800 MB: all of CIFAR-10, fewer images where larger
REGRESSION_ITERATIONS = 50  # more cost minutes, and gain less than 1 % on data sets like MNIST
UNKNOWN_LABEL = -1
MAX_SHOWN = 16  # images in a figure
IMPOSSIBLE = np.log(1e-9)  # log-probability of a class without training examples


class ImageClassification(Classification):
    """Images (H, W, C) to one of several classes. The model takes pixels as they are in the data, and scales them to 0..1.

    Attributes:
        pixels: the values that are scaled to 0 and 1.
    """

    example_noun = "images"

    def __init__(self, settings: ImageClassificationSettings, data: Data):
        validation.check_images(data, settings.name)
        super().__init__(data)
        self.pixels = PixelRange.of(data.train.raw)
        self.inputs = Image(*data.train.raw.shape[1:])

    def wrap(self, network: keras.Model) -> keras.Model:
        low, high = self.pixels
        pixels = keras.Input(self.train.raw.shape[1:], dtype=self.train.raw.dtype.name, name="image")
        # In float32 whatever the precision of the network: 16 bits do not hold the values of pixels of 16 bits.
        scale = layers.Rescaling(1 / (high - low), offset=-low / (high - low), dtype="float32", name="scale")
        image = scale(pixels)
        if not takes_label(network):
            return keras.Model(pixels, network(image), name=network.name)
        label = keras.Input((), dtype="int32", name="label")
        return keras.Model({"image": pixels, "label": label}, network({"image": image, "label": label}), name=network.name)

    def model_inputs(self, model: keras.Model, split: Split, training: bool = False) -> Split:
        """The split with the inputs that `model` takes: with labels where it computes a reward, which only training has."""
        if not takes_label(model):
            return split
        labels = np.broadcast_to(np.asarray(split.targets if training else UNKNOWN_LABEL, np.int32), len(split))
        return Split({"image": split.raw, "label": labels}, split.targets, source=split.raw)

    def serving_inputs(self, model: keras.Model, inputs: KerasTensor) -> KerasTensor | dict[str, KerasTensor]:
        if not takes_label(model):
            return inputs
        return {"image": inputs, "label": ops.full(ops.shape(inputs)[:1], UNKNOWN_LABEL, dtype="int32")}

    def linear_model(self) -> dict[str, Metrics]:
        """Logistic regression on pixels, fitted on at most `REGRESSION_PIXELS` of the training set."""

        def flatten(split: Split) -> np.ndarray:
            return self.pixels.normalize(split.raw.reshape(len(split), -1))

        subset = self.train.take(max(REGRESSION_PIXELS // self.train.raw[0].size, 1))
        present = np.unique(subset.targets)
        log_probabilities = np.full((len(self.test), self.outputs.count), IMPOSSIBLE)
        if len(present) > 1:
            model = LogisticRegression(max_iter=REGRESSION_ITERATIONS)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ConvergenceWarning)
                model.fit(flatten(subset), subset.targets)
            log_probabilities[:, present] = model.predict_log_proba(flatten(self.test))
        else:
            log_probabilities[:, present] = 0.0
        return {"logistic_regression": self.metrics(self.test, log_probabilities)}

    def figures(self, model: keras.Model, predictions: np.ndarray) -> Figures:
        networks = [layer for layer in model.layers if isinstance(layer, keras.Model)]  # one: the recipe's
        figures = super().figures(model, predictions)
        for network in networks:
            figures |= self._glimpses(model, network) if takes_label(model) else self._attention(network)
        return figures

    def _attention(self, network: keras.Model) -> dict[str, Figure]:
        """Attention weights of rows or patches over the images; nothing for a network without attention."""
        images = self.pixels.normalize(self.test.raw[:MAX_SHOWN])
        weights = attention_weights(network, images)
        if weights is None:
            return {}
        height, width = images.shape[1:3]
        patch = next((layer.patch for layer in network.layers if isinstance(layer, PatchLayer)), None)
        rows, columns = (-(-height // patch), -(-width // patch)) if patch else (height, 1)
        right, bottom = (columns * patch, rows * patch) if patch else (width, height)
        figure = Figure(figsize=(8, 8.6), layout="constrained")
        figure.suptitle(f"Attention weights of {'patches' if patch else 'rows'}: the redder, the larger")
        for axes, image, image_weights in zip(figure.subplots(4, 4).flat, images, weights):
            show_image(axes, image)
            opacity = image_weights.reshape(rows, columns) / image_weights.max()
            extent = (-0.5, right - 0.5, bottom - 0.5, -0.5)
            axes.imshow(opacity, cmap=ListedColormap(["red"]), alpha=0.7 * opacity, extent=extent)
            axes.set(xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5))
            axes.axis("off")
        return {"attention.png": figure}

    def _glimpses(self, model: keras.Model, network: keras.Model) -> dict[str, Figure]:
        """The sequence of glimpses of a network with hard attention."""
        images = self.pixels.normalize(self.test.raw[:MAX_SHOWN])
        layer: Any = next((layer for layer in network.layers if isinstance(layer, GlimpseLayer)), None)
        if layer is None:
            return {}
        locations_model = keras.Model(network.input, layer.output[1])
        inputs = self.serving_inputs(model, images)
        locations = locations_model.predict(inputs, verbose=0)  # (images, glimpses, 2), −1..1
        height, width = images.shape[1:3]
        figure = Figure(figsize=(8, 8.6), layout="constrained")
        figure.suptitle("Glimpses, from the first (circle) to the last (dot)")
        for axes, image, path in zip(figure.subplots(4, 4).flat, images, locations):
            rows, columns = (path.T + 1) / 2 * np.array([[height - 1], [width - 1]])
            show_image(axes, image)
            axes.plot(columns, rows, color="tab:orange", linewidth=1)
            axes.plot(columns[0], rows[0], "o", color="tab:orange", fillstyle="none")
            axes.plot(columns[-1], rows[-1], "o", color="tab:orange")
            half = layer.size / 2
            for row, column in zip(rows, columns):
                axes.add_patch(
                    Rectangle((column - half, row - half), 2 * half, 2 * half, fill=False, color="tab:blue", alpha=0.6)
                )
            axes.set(xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5))
            axes.axis("off")
        return {"glimpses.png": figure}

    def worst_mistakes(self, log_probabilities: np.ndarray) -> Figures:
        mistakes = self._mistakes(log_probabilities)
        figure = Figure(figsize=(8, 8.6), layout="constrained")
        figure.suptitle(f"The worst of {len(mistakes)} mistakes on {len(log_probabilities):,} test images")
        for axes in figure.subplots(4, 4).flat:
            axes.axis("off")
        for axes, index in zip(figure.axes, mistakes):
            show_image(axes, self.pixels.normalize(self.test.raw[index]))
            target, predicted = self.test.targets[index], log_probabilities[index].argmax()
            axes.set_title(
                f"true: {self.classes[target]} ({np.exp(log_probabilities[index, target]):.1%})\n"
                f"predicted: {self.classes[predicted]} ({np.exp(log_probabilities[index, predicted]):.1%})",
                fontsize=9,
            )
        return {"worst_mistakes.png": figure}


def takes_label(model: keras.Model) -> bool:
    """Whether a network, the model around it, or the distiller of that model learns from a reward, and so takes the label."""
    return any(isinstance(layer, RewardLayer) for layer in nested_layers(model))


def as_image_classification(task: Task) -> ImageClassification:
    """Narrow the type of a task that the checked settings say to be image classification."""
    if not isinstance(task, ImageClassification):
        raise TypeError(f"Distillation and LiteRT export need ImageClassification, not {type(task).__name__}.")
    return task
