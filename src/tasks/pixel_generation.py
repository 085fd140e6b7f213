"""Image generation pixel by pixel, with a language model over grey levels."""

import functools
import json
from collections.abc import Callable
from typing import Any

import hydra.utils
import keras
import numpy as np
from keras import KerasTensor, ops

from recipes import decoding
from recipes.specs import END, START, NextTokenLogits, Tokens
from src.config.schema import Settings
from src.config.tasks import PixelGenerationSettings
from src.datasets import Data, Split, lazy
from src.tasks.image_generation import IMAGES_FILE, GenerativeTask, ImageSampler
from src.tasks.losses import TokenAccuracy, TokenCrossentropy
from src.tasks.reference_classifier import ReferenceClassifier
from src.tasks.serving import SAMPLING_PARAMS, SAMPLING_SIGNATURE, Signature

FIRST_LEVEL = END + 1  # token id of level 0


class PixelGeneration(GenerativeTask):
    """Autoregressive generation: rows from the top, pixels from the left, channel by channel.

    The first token is the class, where there are classes; the others are grey levels, 0..255 quantized to `task.levels`.
    """

    def __init__(self, settings: PixelGenerationSettings, data: Data, reference_classifier: ReferenceClassifier | None = None):
        self.levels = settings.levels
        super().__init__(settings, data, reference_classifier)
        self.inputs, self.outputs = self.tokenizer.specs()

    @functools.cached_property
    def tokenizer(self) -> "PixelTokenizer":
        """The tokenizer of the images."""
        return PixelTokenizer(self.shape, self.classes, self.levels)

    def encode_split(self, split: Split) -> Split:
        labels = self._labels(split)
        tokens = lazy.encode(self.tokenizer.encode, split.single, labels)
        inputs, targets = lazy.encode(lambda rows: rows[:, :-1], tokens), lazy.encode(lambda rows: rows[:, 1:], tokens)
        return Split(inputs, targets, source=labels, reference=split.single)

    def loss(self) -> keras.losses.Loss:
        return TokenCrossentropy(self.outputs.length)

    def training_metrics(self, model: keras.Model) -> list[keras.metrics.Metric]:
        return [TokenAccuracy(name="token_accuracy")]

    def sampler(self, model: keras.Model) -> ImageSampler:
        return PixelSampler(model, self.tokenizer)

    def serving_options(self) -> tuple[dict[str, Any], Signature]:
        return SAMPLING_PARAMS, SAMPLING_SIGNATURE

    def artifacts(self) -> dict[str, str]:
        metadata = {"shape": list(self.shape), "classes": list(self.classes), "levels": self.tokenizer.levels}
        return {IMAGES_FILE: json.dumps(metadata)}

    @classmethod
    def from_run(cls, settings: Settings, images: str, load_weights: Callable[[keras.Model], None]) -> ImageSampler:
        """Restore the sampler of a run.

        Args:
            settings: of the run.
            images: content of its `IMAGES_FILE`.
            load_weights: function that loads the weights of that run into the model.
        """
        metadata = json.loads(images)
        tokenizer = PixelTokenizer(tuple(metadata["shape"]), tuple(metadata["classes"]), metadata["levels"])
        inputs, outputs = tokenizer.specs()
        model = hydra.utils.get_method(settings.model.target)(inputs, outputs, **settings.model.hyperparameters)
        model(np.zeros((1, outputs.length), np.int32))  # creates the weights
        load_weights(model)
        return PixelSampler(model, tokenizer)


class PixelTokenizer:
    """Converts images to tokens and back.

    Args:
        shape: (H, W, C).
        classes: class names.
        levels: number of grey levels.
    """

    def __init__(self, shape: tuple[int, ...], classes: tuple[str, ...], levels: int):
        self.shape, self.classes, self.levels = shape, classes, levels

    def specs(self) -> tuple[Tokens, NextTokenLogits]:
        """Specification of a recipe's inputs and outputs."""
        length, vocabulary = int(np.prod(self.shape)), FIRST_LEVEL + self.levels + len(self.classes)
        return Tokens(length, vocabulary), NextTokenLogits(length, vocabulary)

    def encode(self, images: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """Convert images uint8 (n, H, W, C) and labels (n,) to token ids int32 (n, 1 + H W C)."""
        levels = np.rint(images.reshape(len(images), -1) / 255 * (self.levels - 1)).astype(np.int32)
        return np.concatenate([self.start_tokens(labels)[:, None], FIRST_LEVEL + levels], axis=1)

    def start_tokens(self, labels: KerasTensor) -> KerasTensor:
        """The first token of an image of each label (n,): its class, or START where there are no classes."""
        return FIRST_LEVEL + self.levels + labels if self.classes else 0 * labels + START

    def decode(self, tokens: KerasTensor) -> KerasTensor:
        """Convert token ids (n, 1 + H W C) to images uint8 (n, H, W, C), as tensors."""
        levels = ops.cast(tokens[:, 1:] - FIRST_LEVEL, "float32")
        return ops.reshape(ops.cast(ops.round(levels * (255 / (self.levels - 1))), "uint8"), (-1, *self.shape))


class PixelSampler(ImageSampler):
    """A language model that generates images.

    Args:
        model: token ids to the logits of the next token.
        tokenizer: of the images.
    """

    def __init__(self, model: keras.Model, tokenizer: PixelTokenizer):
        self.model, self.tokenizer, self.classes = model, tokenizer, tokenizer.classes
        self.conditional = bool(tokenizer.classes)
        self.defaults = dict(decoding.SAMPLING_DEFAULTS)
        self._compiled = {}

    def sample_batch(self, labels: KerasTensor, seed: keras.random.SeedGenerator, **options: Any) -> KerasTensor:
        if self.conditional:
            random_labels = keras.random.randint(ops.shape(labels), 0, len(self.classes), seed=seed)
            labels = ops.where(labels < 0, ops.cast(random_labels, "int32"), labels)
        prompt = self.tokenizer.start_tokens(ops.cast(labels, "int32"))[:, None]
        length = 1 + int(np.prod(self.tokenizer.shape))
        levels = (FIRST_LEVEL, FIRST_LEVEL + self.tokenizer.levels)
        tokens = decoding.sample(self.model, prompt, length, seed=seed, allowed=levels, **options)
        return self.tokenizer.decode(tokens)
