"""Image classification: which of a few classes is in the picture?"""

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

from recipes.specs import GlimpseLayer, Image, PatchLayer
from src import settings
from src.datasets import Data, Part
from src.errors import UserError
from src.tasks.classification import Classification, attention_weights
from src.tasks.task import Metrics

REGRESSION_PIXELS = 200_000_000  # that the logistic regression learns from, 800 MB: all of CIFAR-10, less of larger images
REGRESSION_ITERATIONS = 50  # more of them cost minutes, and win less than 1 % on MNIST and its like
UNKNOWN_LABEL = -1
SHOWN = 16  # images in a figure


class ImageClassification(Classification):
    """Images of 0..255 to one of a few classes."""

    things = "images"
    label_goes_in = False  # whether the recipe learns by reward: it is told the right answer while it trains

    def __init__(self, chosen: settings.ImageClassification, data: Data):
        if data.train.raw.ndim != 4 or data.train.raw.dtype != np.uint8:
            raise UserError(f"dataset={data.name}: image_classification needs images, but the inputs are not images.")
        super().__init__(data)
        self.train, self.validation, self.test = data.train, data.validation, data.test
        self.inputs = Image(*data.train.raw.shape[1:])

    def around(self, network: keras.Model) -> keras.Model:
        pixels = keras.Input(self.train.raw.shape[1:], dtype="uint8", name="image")
        image = layers.Rescaling(1 / 255, name="scale")(pixels)
        self.label_goes_in = isinstance(network.input, dict)
        if not self.label_goes_in:
            return keras.Model(pixels, network(image), name=network.name)
        label = keras.Input((), dtype="int32", name="label")
        self.train = self._labelled(self.train, self.train.targets)
        self.validation, self.test = (self._labelled(part, UNKNOWN_LABEL) for part in (self.validation, self.test))
        return keras.Model({"image": pixels, "label": label}, network({"image": image, "label": label}), name=network.name)

    @staticmethod
    def _labelled(part: Part, labels: np.ndarray | int) -> Part:
        labels = np.broadcast_to(np.asarray(labels, np.int32), len(part))
        return Part({"image": part.raw, "label": labels}, part.targets, source=part.raw)

    def encode(self, inputs: KerasTensor) -> KerasTensor | dict[str, KerasTensor]:
        if not self.label_goes_in:
            return inputs
        return {"image": inputs, "label": ops.full(ops.shape(inputs)[:1], UNKNOWN_LABEL, dtype="int32")}

    def linear_model(self) -> dict[str, Metrics]:
        """Logistic regression on the pixels of the first so many images of the training part."""

        def flat(part: Part) -> np.ndarray:
            return part.raw.reshape(len(part), -1) / np.float32(255)

        some = self.train.first(max(REGRESSION_PIXELS // self.train.raw[0].size, 1))
        seen = np.unique(some.targets)
        logs = np.full((len(self.test), self.outputs.count), np.log(1e-9))
        if len(seen) > 1:
            model = LogisticRegression(max_iter=REGRESSION_ITERATIONS)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ConvergenceWarning)
                model.fit(flat(some), some.targets)
            logs[:, seen] = model.predict_log_proba(flat(self.test))
        else:
            logs[:, seen] = 0.0
        return {"logistic_regression": self.metrics(self.test, logs)}

    def figures(self, model: keras.Model, predictions: np.ndarray) -> dict[str, Figure | str]:
        networks = [layer for layer in model.layers if isinstance(layer, keras.Model)]  # one: what the recipe built
        found = super().figures(model, predictions)
        for network in networks:
            found |= self._glimpses(network) if self.label_goes_in else self._attention(network)
        return found

    def _attention(self, network: keras.Model) -> dict[str, Figure]:
        """How much a recipe that attends to rows or patches looked at each of them; nothing for the others."""
        images = self.test.raw[:SHOWN]
        weights = attention_weights(network, images.astype(np.float32) / 255)
        if weights is None:
            return {}
        height, width = images.shape[1:3]
        patch = next((layer.patch for layer in network.layers if isinstance(layer, PatchLayer)), None)
        down, across = (-(-height // patch), -(-width // patch)) if patch else (height, 1)
        right, bottom = (across * patch, down * patch) if patch else (width, height)
        figure = Figure(figsize=(8, 8.6), layout="constrained")
        figure.suptitle(f"What it looked at, {'patch by patch' if patch else 'row by row'}: the redder, the more")
        for axes, image, each in zip(figure.subplots(4, 4).flat, images, weights):
            axes.imshow(image.squeeze(), cmap="gray", vmin=0, vmax=255)
            share = each.reshape(down, across) / each.max()
            reach = (-0.5, right - 0.5, bottom - 0.5, -0.5)
            axes.imshow(share, cmap=ListedColormap(["red"]), alpha=0.7 * share, extent=reach)
            axes.set(xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5))
            axes.axis("off")
        return {"attention.png": figure}

    def _glimpses(self, network: keras.Model) -> dict[str, Figure]:
        """Where a recipe that looks at one place after the other looked."""
        images = self.test.raw[:SHOWN]
        layer: Any = next((layer for layer in network.layers if isinstance(layer, GlimpseLayer)), None)
        if layer is None:
            return {}
        paths = keras.Model(network.input, layer.output[1])
        places = paths.predict(self.encode(images.astype(np.float32) / 255), verbose=0)  # (images, glimpses, 2), −1..1
        height, width = images.shape[1:3]
        figure = Figure(figsize=(8, 8.6), layout="constrained")
        figure.suptitle("Where it looked: from the ring to the dot")
        for axes, image, path in zip(figure.subplots(4, 4).flat, images, places):
            rows, columns = (path.T + 1) / 2 * np.array([[height - 1], [width - 1]])
            axes.imshow(image.squeeze(), cmap="gray", vmin=0, vmax=255)
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

    def worst_mistakes(self, logs: np.ndarray) -> dict[str, Figure | str]:
        worst, count = self._worst(logs)
        figure = Figure(figsize=(8, 8.6), layout="constrained")
        figure.suptitle(f"The worst of {count} mistakes on {len(logs):,} test images")
        for axes in figure.subplots(4, 4).flat:
            axes.axis("off")
        for axes, index in zip(figure.axes, worst):
            axes.imshow(self.test.raw[index].squeeze(), cmap="gray", vmin=0, vmax=255)
            truth, answer = self.test.targets[index], logs[index].argmax()
            axes.set_title(
                f"is {self.classes[truth]} ({np.exp(logs[index, truth]):.1%})\n"
                f"taken for {self.classes[answer]} ({np.exp(logs[index, answer]):.1%})",
                fontsize=9,
            )
        return {"worst_mistakes.png": figure}
