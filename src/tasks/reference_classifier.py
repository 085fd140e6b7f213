"""How good generated images are, in the eyes of a classifier that was trained on real ones."""

from collections.abc import Callable
from typing import Self

import hydra.utils
import keras
import numpy as np

from src.config import schema
from src.datasets import Data
from src.tasks.image_classification import ImageClassification

BATCH = 250  # images looked at at once


class Judge:
    """A finished run's classifier: what it sees in images, and what it takes them for.

    Args:
        model: as the task `ImageClassification` makes it.
        run_id: of its run.
        accuracy: on the test part.
    """

    def __init__(self, model: keras.Model, run_id: str, accuracy: float):
        self.run_id, self.accuracy = run_id, accuracy
        network = next(layer for layer in model.layers if isinstance(layer, keras.Model))  # what the recipe built
        logits = network.get_layer("logits")
        self.eye = keras.Model(network.input, [logits.input, logits.output])

    @classmethod
    def restored(
        cls, chosen: schema.Settings, data: Data, load_weights: Callable[[keras.Model], None], run_id: str, accuracy: float
    ) -> Self:
        """From what a run kept: its settings, and what loads its weights."""
        model = ImageClassification(chosen.task_as(schema.ImageClassification), data).model(
            hydra.utils.get_method(chosen.model.target), chosen.model.hyperparameters
        )
        load_weights(model)
        return cls(model, run_id, accuracy)

    def look(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Images uint8 (n, H, W, C) to features (n, d), the input of its last layer, and probabilities (n, classes)."""
        filled = np.zeros((-(-len(images) // BATCH) * BATCH, *images.shape[1:]), np.float32)  # other shapes, other last digits
        filled[: len(images)] = images.astype(np.float32) / 255
        features, logits = (seen[: len(images)] for seen in self.eye.predict(filled, batch_size=BATCH, verbose=0))
        shares = np.exp(logits - logits.max(axis=1, keepdims=True), dtype=np.float64)
        return features.astype(np.float64), shares / shares.sum(axis=1, keepdims=True)
