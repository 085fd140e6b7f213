"""How good generated images are, in the eyes of a classifier that was trained on real ones."""

from typing import Self

import hydra.utils
import keras
import numpy as np

from src.config import schema
from src.datasets import Data
from src.errors import UserError
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
    def restored(cls, chosen: schema.Settings, data: Data, weights: str, run_id: str, accuracy: float) -> Self:
        """From what a run kept: its settings, and the path of its weights.

        Raises:
            UserError: its recipe has changed since.
        """
        model = ImageClassification(chosen.task_as(schema.ImageClassification), data).model(
            hydra.utils.get_method(chosen.model.target), chosen.model.hyperparameters
        )
        try:
            model.load_weights(weights)
        except ValueError as error:
            raise UserError(
                f"The weights of run {run_id}, which was to judge, do not fit recipe {chosen.model.name}, which has changed "
                "since; delete that run, and another one is made."
            ) from error
        return cls(model, run_id, accuracy)

    def look(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Images uint8 (n, H, W, C) to features (n, d), the input of its last layer, and probabilities (n, classes)."""
        filled = np.zeros((-(-len(images) // BATCH) * BATCH, *images.shape[1:]), np.float32)  # other shapes, other last digits
        filled[: len(images)] = images.astype(np.float32) / 255
        features, logits = (seen[: len(images)] for seen in self.eye.predict(filled, batch_size=BATCH, verbose=0))
        shares = np.exp(logits - logits.max(axis=1, keepdims=True), dtype=np.float64)
        return features.astype(np.float64), shares / shares.sum(axis=1, keepdims=True)
