"""Image generation pixel by pixel: a language model whose tokens are levels of grey."""

import json
from typing import Any

import hydra.utils
import keras
import numpy as np
from keras import KerasTensor, ops

from recipes import decoding
from recipes.specs import END, START, NextTokenLogits, Tokens
from src import settings
from src.datasets import Data, Part
from src.tasks.image_generation import IMAGES_FILE, Generation, Painter
from src.tasks.translation import TokenAccuracy, TokenCrossentropy

FIRST = END + 1  # number of the level 0


class PixelGeneration(Generation):
    """Rows from the top, pixels from the left, channels; each is told from those before it.

    The first token names the class, where there are classes; the others are levels of 0..255, `task.levels` in all.
    """

    def __init__(self, chosen: settings.PixelGeneration, data: Data):
        self.pixels = Pixels(data.train.raw.shape[1:], data.classes, chosen.levels)
        super().__init__(chosen, data)
        self.inputs, self.outputs = self.pixels.kinds()

    def part(self, raw: Part) -> Part:
        labels = self._labels(raw)
        tokens = self.pixels.tokens(raw.array, labels)
        return Part(tokens[:, :-1], tokens[:, 1:], source=labels, reference=raw.array)

    def loss(self) -> keras.losses.Loss:
        return TokenCrossentropy(self.outputs.length)

    def training_metrics(self) -> list[keras.metrics.Metric]:
        return [TokenAccuracy(name="token_accuracy")]

    def painter(self, model: keras.Model) -> Painter:
        return PixelPainter(model, self.pixels)

    def artifacts(self) -> dict[str, str]:
        known = {"shape": list(self.shape), "classes": list(self.classes), "levels": self.pixels.levels}
        return {IMAGES_FILE: json.dumps(known)}

    @classmethod
    def restored(cls, chosen: settings.Settings, images: str, weights: str) -> Painter:
        """What makes images, from what a run kept: its settings, `IMAGES_FILE`, the path of its weights."""
        known = json.loads(images)
        pixels = Pixels(tuple(known["shape"]), tuple(known["classes"]), known["levels"])
        inputs, outputs = pixels.kinds()
        model = hydra.utils.get_method(chosen.model.target)(inputs, outputs, **chosen.model.hyperparameters)
        model(np.zeros((1, outputs.length), np.int32))
        model.load_weights(weights)
        return PixelPainter(model, pixels)


class Pixels:
    """Images as tokens.

    Args:
        shape: (H, W, C).
        classes: their names.
        levels: of grey, that are told apart.
    """

    def __init__(self, shape: tuple[int, ...], classes: tuple[str, ...], levels: int):
        self.shape, self.classes, self.levels = shape, classes, levels

    def kinds(self) -> tuple[Tokens, NextTokenLogits]:
        """What a recipe is asked to take and to give."""
        length, vocabulary = int(np.prod(self.shape)), FIRST + self.levels + len(self.classes)
        return Tokens(length, vocabulary), NextTokenLogits(length, vocabulary)

    def tokens(self, images: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """Images uint8 (n, H, W, C) and labels (n,) to int32 (n, 1 + H W C)."""
        levels = np.rint(images.reshape(len(images), -1) / 255 * (self.levels - 1)).astype(np.int32)
        return np.concatenate([self.first(labels)[:, None], FIRST + levels], axis=1)

    def first(self, labels: KerasTensor) -> KerasTensor:
        """The token that an image of each label (n,) begins with."""
        return FIRST + self.levels + labels if self.classes else 0 * labels + START

    def images(self, tokens: KerasTensor) -> KerasTensor:
        """Tokens (n, 1 + H W C) to images uint8 (n, H, W, C), as tensors."""
        levels = ops.cast(tokens[:, 1:] - FIRST, "float32")
        return ops.reshape(ops.cast(ops.round(levels * (255 / (self.levels - 1))), "uint8"), (-1, *self.shape))


class PixelPainter(Painter):
    """A language model that makes images.

    Args:
        model: tokens to the logits of what comes next.
        pixels: what they mean.
    """

    def __init__(self, model: keras.Model, pixels: Pixels):
        self.model, self.pixels, self.classes = model, pixels, pixels.classes
        self.conditional = bool(pixels.classes)
        self.how = dict(decoding.SAMPLING_DEFAULTS)
        self._compiled = {}

    def images(self, labels: KerasTensor, seed: keras.random.SeedGenerator, **how: Any) -> KerasTensor:
        if self.conditional:
            any_class = keras.random.randint(ops.shape(labels), 0, len(self.classes), seed=seed)
            labels = ops.where(labels < 0, ops.cast(any_class, "int32"), labels)
        first = self.pixels.first(ops.cast(labels, "int32"))[:, None]
        length = 1 + int(np.prod(self.pixels.shape))
        written = decoding.sample(self.model, first, length, seed=seed, allowed=(FIRST, FIRST + self.pixels.levels), **how)
        return self.pixels.images(written)
