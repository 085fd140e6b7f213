"""Classification by recipes that take images: what that of images and that of audio share."""

from abc import abstractmethod
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import keras
import numpy as np
from keras import KerasTensor, ops
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LinearSegmentedColormap, ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from recipes.specs import GlimpseLayer, PatchLayer, RewardLayer
from src.datasets import Split
from src.errors import UserError
from src.figures import style
from src.tasks.base import Figures, nested_layers
from src.tasks.classification import Classification, attention_weights, mistakes_title

UNKNOWN_LABEL = -1
MAX_SHOWN = 16  # images in a figure
OVERLAY = 0.7  # opacity of the largest attention weight


class VisualClassification(Classification):
    """Classification by recipes that take an `Image`: of images, and of audio clips by their spectrograms.

    Attributes:
        input_name: name of the model's input.
        legend: second line of the titles of figures of inputs, which says how to read them.
    """

    input_name = "image"
    legend = ""

    def wrap(self, network: keras.Model) -> keras.Model:
        if self.balanced and takes_label(network):
            raise UserError(
                "task.class_weights=balanced does not weight the reward that this recipe learns by; type "
                "task.class_weights=null."
            )
        raw = keras.Input(self.train.raw_inputs.shape[1:], dtype=self.train.raw_inputs.dtype.name, name=self.input_name)
        image = self.preprocess(raw)
        if not takes_label(network):
            return keras.Model(raw, network(image), name=network.name)
        label = keras.Input((), dtype="int32", name="label")
        return keras.Model({self.input_name: raw, "label": label}, network({"image": image, "label": label}), name=network.name)

    @abstractmethod
    def preprocess(self, inputs: KerasTensor) -> KerasTensor:
        """The images (batch, H, W, C) that the network takes, for a batch of raw inputs."""

    @abstractmethod
    def images(self, inputs: np.ndarray) -> np.ndarray:
        """The same outside of a model, float32."""

    @abstractmethod
    def features(self, split: Split) -> np.ndarray:
        """What baselines learn from, float32 (examples, values)."""

    def shown(self, images: np.ndarray) -> np.ndarray:
        """What figures show of images that the network takes, from 0 (black) to 1."""
        return images

    def model_inputs(self, model: keras.Model, split: Split, training: bool = False) -> Split:
        """The split with the inputs that `model` takes: with labels where it computes a reward, which only training has."""
        if not takes_label(model):
            return split
        labels = np.broadcast_to(np.asarray(split.targets if training else UNKNOWN_LABEL, np.int32), len(split))
        return Split({self.input_name: split.raw_inputs, "label": labels}, split.targets, source=split.raw_inputs)

    def serving_inputs(self, model: keras.Model, inputs: KerasTensor) -> KerasTensor | dict[str, KerasTensor]:
        if not takes_label(model):
            return inputs
        return {self.input_name: inputs, "label": ops.full(ops.shape(inputs)[:1], UNKNOWN_LABEL, dtype="int32")}

    def figures(
        self, model: keras.Model, predictions: np.ndarray, baselines: Mapping[str, np.ndarray] = MappingProxyType({})
    ) -> Figures:
        networks = [layer for layer in model.layers if isinstance(layer, keras.Model)]  # one: the recipe's
        figures = super().figures(model, predictions, baselines)
        for network in networks:
            figures |= self._glimpses(network, predictions) if takes_label(model) else self._attention(network, predictions)
        return figures

    def _attention(self, network: keras.Model, predictions: np.ndarray) -> dict[str, Figure]:
        """Attention weights of rows or patches over the images; nothing for a network without attention."""
        images = self.images(self.test.raw_inputs[:MAX_SHOWN])
        weights = attention_weights(network, images)
        if weights is None:
            return {}
        height, width = images.shape[1:3]
        patch = next((layer.patch for layer in network.layers if isinstance(layer, PatchLayer)), None)
        rows, columns = (-(-height // patch), -(-width // patch)) if patch else (height, 1)
        right, bottom = (columns * patch, rows * patch) if patch else (width, height)
        what = "patches" if patch else "rows"
        title = f"Attention weights of the {what} of test {self.example_noun}; true / predicted {self.target_noun}"
        figure, tiles = style.create_tiles(title + self.legend, len(images))
        for index, (axes, image, image_weights) in enumerate(zip(tiles, self.shown(images), weights)):
            style.show_image(axes, image)
            opacity = image_weights.reshape(rows, columns) / image_weights.max()
            extent = (-0.5, right - 0.5, bottom - 0.5, -0.5)
            axes.imshow(opacity, cmap=ListedColormap(["red"]), alpha=OVERLAY * opacity, extent=extent)
            axes.set(xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5))
            self._title(axes, index, predictions[index])
        reds = LinearSegmentedColormap.from_list("overlay", ["white", (1, 1 - OVERLAY, 1 - OVERLAY)])
        text = "attention weight, relative to the largest of the image"
        figure.colorbar(ScalarMappable(cmap=reds), ax=tiles, label=text, location="bottom", shrink=0.5, aspect=40)
        return {"attention.png": figure}

    def _title(self, axes: Axes, index: int, logits: np.ndarray) -> None:
        """Write the true and the predicted class above a test image, in red if they differ."""
        text, correct = self.verdict(index, logits)
        axes.set_title(text, color="black" if correct else style.MISTAKE)

    def _glimpses(self, network: keras.Model, predictions: np.ndarray) -> dict[str, Figure]:
        """The glimpses of a network with hard attention, numbered in their order."""
        images = self.images(self.test.raw_inputs[:MAX_SHOWN])
        layer: Any = next((layer for layer in network.layers if isinstance(layer, GlimpseLayer)), None)
        if layer is None:
            return {}
        locations_model = keras.Model(network.input, layer.output[1])
        inputs = {"image": images, "label": np.full(len(images), UNKNOWN_LABEL)}
        locations = locations_model.predict(inputs, verbose=0)  # (images, glimpses, 2), −1..1
        height, width = images.shape[1:3]
        title = f"Glimpses at test {self.example_noun}, numbered in their order; true / predicted class"
        figure, tiles = style.create_tiles(title + self.legend, len(images))
        colors = colormaps["autumn"](np.linspace(0, 1, locations.shape[1]))  # from red to yellow
        for index, (axes, image, path) in enumerate(zip(tiles, self.shown(images), locations)):
            rows, columns = (path.T + 1) / 2 * np.array([[height - 1], [width - 1]])
            style.show_image(axes, image)
            axes.plot(columns, rows, color="tab:orange", linewidth=0.8)
            half = layer.size / 2
            for number, (row, column, color) in enumerate(zip(rows, columns, colors), start=1):
                corner = (column - half, row - half)
                axes.add_patch(Rectangle(corner, 2 * half, 2 * half, fill=False, color=color, linewidth=0.8, alpha=0.7))
                axes.plot(column, row, ".", color=color)
                angle = 2 * np.pi * number / len(path)  # beside the center, so that numbers of glimpses at one place differ
                box = {"boxstyle": "circle,pad=0.1", "facecolor": color, "edgecolor": "none"}
                axes.annotate(
                    str(number), (column, row), (8 * np.sin(angle), 8 * np.cos(angle)), textcoords="offset points",
                    fontsize=7, ha="center", va="center", bbox=box,
                )  # fmt: skip
            axes.set(xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5))
            self._title(axes, index, predictions[index])
        return {"glimpses.png": figure}

    def worst_mistakes(self, predictions: np.ndarray) -> Figures:
        mistakes = self.mistakes(predictions)
        shown = mistakes[:MAX_SHOWN]
        title = mistakes_title(len(mistakes), len(shown), len(predictions), self.example_noun)
        figure, tiles = style.create_tiles(f"{title}; true / predicted {self.target_noun}{self.legend}", len(shown))
        for axes, index, image in zip(tiles, shown, self.shown(self.images(self.test.raw_inputs[shown]))):
            style.show_image(axes, image)
            axes.set_title(self.verdict(index, predictions[index])[0])
        return {"worst_mistakes.png": figure}


def takes_label(model: keras.Model) -> bool:
    """Whether a network, the model around it, or the distiller of that model learns from a reward, and so takes the label."""
    return any(isinstance(layer, RewardLayer) for layer in nested_layers(model))
