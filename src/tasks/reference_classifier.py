"""The classifier of real images in whose features generated images are compared with real ones."""

from collections.abc import Callable
from typing import Self

import hydra.utils
import keras
import numpy as np

from src.config.schema import Settings
from src.config.tasks import ImageClassificationSettings
from src.datasets import Array, Data, Split, lazy, pipeline
from src.datasets.conversion import PixelRange
from src.tasks.image_classification import ImageClassification

BATCH_SIZE = 250


class ReferenceClassifier:
    """The image classifier of a finished run, as a feature extractor.

    Args:
        model: as the task `ImageClassification` builds it.
        run_id: id of its run.
        accuracy: accuracy on the test set.
    """

    def __init__(self, model: keras.Model, run_id: str, accuracy: float):
        self.run_id, self.accuracy = run_id, accuracy
        network = next(layer for layer in model.layers if isinstance(layer, keras.Model))  # the recipe's
        last = next(layer for layer in network.layers if layer.output is network.output)  # its input is the features
        self.extractor = keras.Model(network.input, [last.input, network.output])

    @classmethod
    def from_run(
        cls, settings: Settings, data: Data, load_weights: Callable[[keras.Model], None], run_id: str, accuracy: float
    ) -> Self:
        """Restore it from a run.

        Args:
            settings: of the run.
            data: images of the kind that it was trained on.
            load_weights: function that loads the run's weights.
            run_id: id of the run.
            accuracy: accuracy of the run on the test set.

        Raises:
            UserError: the recipe has changed since the run.
        """
        task = ImageClassification(settings.task_as(ImageClassificationSettings), data)
        model = task.build_model(hydra.utils.get_method(settings.model.target), settings.model.hyperparameters)
        load_weights(model)
        return cls(model, run_id, accuracy)

    def features_and_probabilities(self, images: Array) -> tuple[np.ndarray, np.ndarray]:
        """Features, the input of the last layer, (n, d) and class probabilities (n, classes) of images uint8 (n, H, W, C)."""
        scaled = lazy.encode(PixelRange.of(images).normalize, images)
        # The last batch is padded: results differ in their last digits between batch sizes.
        batches = pipeline.prediction(Split(scaled, np.zeros(len(images))), BATCH_SIZE)
        outputs = self.extractor.predict(batches, verbose=0)
        features, logits = (output[: len(images)] for output in outputs)
        exponentials = np.exp(logits - logits.max(axis=1, keepdims=True), dtype=np.float64)
        return features.astype(np.float64), exponentials / exponentials.sum(axis=1, keepdims=True)
