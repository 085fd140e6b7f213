"""Multi-label classification of texts."""

import keras

from src.tasks.baselines import labels, texts
from src.tasks.baselines.interface import Baselines, Prediction, sample_note
from src.tasks.multilabel_classification import MultilabelClassification, add_thresholds
from src.tasks.text_classification import TextClassification


class TextMultilabelClassification(MultilabelClassification, TextClassification):
    """Texts to any number of labels. The model takes token ids (batch, length)."""

    def wrap(self, network: keras.Model) -> keras.Model:
        return add_thresholds(super().wrap(network))

    def learned_baselines(self) -> Baselines:
        """It sees whole texts, where a recipe sees the first `task.length` tokens."""
        return {"bag_of_words": self._one_vs_rest}

    def _one_vs_rest(self) -> Prediction:
        """One logistic regression on TF–IDF features for each label."""
        train = self.normalize(self.train, texts.MAX_CHARACTERS)
        validation, test = map(self.normalize, (self.validation, self.test))
        used = texts.within(train)
        vectorizer = texts.tfidf(self.token_kind)
        features = vectorizer.fit_transform(train[:used])
        validation_logits, test_logits = labels.one_vs_rest(
            texts.regression, features, self.train.targets[:used], vectorizer.transform(validation), vectorizer.transform(test)
        )
        return self.baseline_prediction(validation_logits, test_logits, sample_note(used, len(self.train), "texts"))
