"""Image classification."""

import numpy as np
from keras import KerasTensor, layers

from recipes.specs import Image
from src.config.tasks import ImageClassificationSettings, ImageMultilabelClassificationSettings
from src.datasets import Data, Split, validation
from src.datasets.conversion import PixelRange
from src.tasks.base import Task
from src.tasks.baselines import images as methods
from src.tasks.baselines.interface import Baselines, Prediction, SkippedError, join_notes, sample_note
from src.tasks.visual_classification import VisualClassification


class ImageClassification(VisualClassification):
    """Images (H, W, C) to one of several classes. The model takes pixels as they are in the data, and scales them to 0..1.

    Attributes:
        pixels: the values that are scaled to 0 and 1.
    """

    example_noun = "images"
    baseline_settings = ("name",)  # they do not depend on the weights of the classes

    def __init__(self, settings: ImageClassificationSettings | ImageMultilabelClassificationSettings, data: Data):
        validation.check_images(data, settings.name)
        super().__init__(settings, data)
        self.pixels = PixelRange.of(data.train.raw_inputs)
        self.inputs = Image(*data.train.raw_inputs.shape[1:])

    def preprocess(self, inputs: KerasTensor) -> KerasTensor:
        low, high = self.pixels
        # In float32 whatever the precision of the network: 16 bits do not hold the values of pixels of 16 bits.
        return layers.Rescaling(1 / (high - low), offset=-low / (high - low), dtype="float32", name="scale")(inputs)

    def images(self, inputs: np.ndarray) -> np.ndarray:
        return self.pixels.normalize(inputs)

    def learned_baselines(self) -> Baselines:
        return {
            "logistic_regression": self._logistic_regression,
            "nearest_neighbors": self._nearest_neighbors,
            "gradient_boosting": self._gradient_boosting,
        }

    def features(self, split: Split) -> np.ndarray:
        """Pixels from 0 to 1, float32 (examples, values)."""
        return self.pixels.normalize(np.asarray(split.raw_inputs).reshape(len(split), -1))

    def _logistic_regression(self) -> Prediction:
        train = self.train.take(methods.regression_examples(self.train.raw_inputs[0].size))
        values = methods.logistic_regression(self.features(train), train.targets, self.features(self.test), self.outputs.count)
        return Prediction(values, sample_note(len(train), len(self.train), "images"))

    def _nearest_neighbors(self) -> Prediction:
        train = self.train.take(methods.neighbor_examples(self.train.raw_inputs[0].size, len(self.validation) + len(self.test)))
        k, values = methods.nearest_neighbors(
            (self.features(train), train.targets),
            (self.features(self.validation), self.validation.targets),
            self.features(self.test),
            self.outputs.count,
        )
        return Prediction(values, join_notes(f"k = {k}", sample_note(len(train), len(self.train), "images")))

    def _gradient_boosting(self) -> Prediction:
        size = self.train.raw_inputs.size * self.outputs.count
        if size > methods.BOOSTING_VALUES:
            raise SkippedError(f"{size:,} pixels times classes are more than {methods.BOOSTING_VALUES:,}")
        train, test = self.features(self.train), self.features(self.test)
        return Prediction(methods.gradient_boosting(train, self.train.targets, test, self.outputs.count))


def as_image_classification(task: Task) -> ImageClassification:
    """Narrow the type of a task that the checked settings say to be image classification."""
    if not isinstance(task, ImageClassification):
        raise TypeError(f"Distillation and LiteRT export need ImageClassification, not {type(task).__name__}.")
    return task
