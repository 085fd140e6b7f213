"""Multi-label classification by recipes that take images: of images, and of audio clips by their spectrograms."""

import keras
from sklearn.linear_model import LogisticRegression

from src.errors import UserError
from src.tasks.audio_classification import AudioClassification
from src.tasks.baselines import images, labels
from src.tasks.baselines.interface import Baselines, Prediction, sample_note
from src.tasks.image_classification import ImageClassification
from src.tasks.multilabel_classification import MultilabelClassification, add_thresholds
from src.tasks.visual_classification import VisualClassification, takes_label


class VisualMultilabelClassification(MultilabelClassification, VisualClassification):
    """What both share. Stands before image or audio classification among the bases of a task."""

    def wrap(self, network: keras.Model) -> keras.Model:
        if takes_label(network):
            raise UserError(
                "This recipe learns by a reward for the one right class, so it cannot learn several labels; choose another "
                "model, or model.kind=soft."
            )
        return add_thresholds(super().wrap(network))

    def learned_baselines(self) -> Baselines:
        return {"logistic_regression": self._one_vs_rest}

    def _one_vs_rest(self) -> Prediction:
        """One logistic regression for each label."""
        values = self.features(self.train.take(1)).shape[1]
        train = self.train.take(images.regression_examples(values))
        inputs = map(self.features, (train, self.validation, self.test))
        validation, test = labels.one_vs_rest(
            lambda: LogisticRegression(max_iter=images.REGRESSION_ITERATIONS), next(inputs), train.targets, *inputs
        )
        return self.baseline_prediction(validation, test, sample_note(len(train), len(self.train), self.example_noun))


class ImageMultilabelClassification(VisualMultilabelClassification, ImageClassification):
    """Images (H, W, C) to any number of labels. The model takes pixels as they are in the data, and scales them to 0..1."""


class AudioMultilabelClassification(VisualMultilabelClassification, AudioClassification):
    """Audio clips (samples,) to any number of labels. The model takes samples as they are in the data."""
