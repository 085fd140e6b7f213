"""Text classification: which of a few classes does a text belong to?"""

from collections.abc import Sequence

import keras
import numpy as np
import tensorflow as tf
from matplotlib.figure import Figure
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression

from recipes.specs import PADDING, UNKNOWN, Tokens
from src import settings
from src.datasets import Data, Part
from src.errors import UserError
from src.tasks import pages
from src.tasks.classification import Classification, attention_weights
from src.tasks.task import Metrics
from src.tasks.tokenization import Tokenizer
from src.vocabulary import Encoder, Vocabulary

SHOWN = 16  # texts on a page


class TextClassification(Classification):
    """Texts to one of a few classes.

    The model takes token numbers (batch, length); others are served a model that takes the texts themselves.
    """

    things = "texts"

    def __init__(self, chosen: settings.TextClassification, data: Data, vocabulary: Vocabulary | None = None):
        super().__init__(data)
        for name in ("train", "validation", "test"):
            check_texts(getattr(data, name).raw, f"the {name} part of dataset={data.name}")
        self.chosen = chosen
        unit = chosen.unit if chosen.unit in ("word", "character") else "word"
        self.tokenizer = Tokenizer(data.train.raw, unit, chosen.vocabulary, chosen.length, chosen.lowercase)
        if vocabulary is not None or chosen.unit != unit:  # tokens that TensorFlow cannot find
            texts = [text.decode() for text in data.train.raw]
            vocabulary = vocabulary or Vocabulary.learned(texts, chosen.unit, chosen.vocabulary)
            self.encoder = Encoder(vocabulary, chosen.length)
        else:
            self.encoders = (self.tokenizer.layer,)
        self.train, self.validation, self.test = map(self._encoded, (data.train, data.validation, data.test))
        self.inputs = Tokens(chosen.length, len(self.encoder.vocabulary if self.encoder else self.tokenizer))

    def _encoded(self, part: Part) -> Part:
        encode = self.encoder or self.tokenizer.encode
        return Part(encode(part.raw), part.targets, source=part.raw)

    def encode(self, inputs: tf.Tensor) -> tf.Tensor:
        """Texts (batch,) to token numbers (batch, length); of a text without a single token, one that is unknown.

        Where there is an `encoder`, numbers come in already.
        """
        if self.encoder is not None:
            return inputs
        numbers = self.tokenizer(inputs)
        nothing = tf.concat([tf.ones_like(numbers[:, :1]) * UNKNOWN, numbers[:, 1:]], axis=1)
        return tf.where(numbers[:, :1] == 0, nothing, numbers)

    def around(self, network: keras.Model) -> keras.Model:
        return network

    def linear_model(self) -> dict[str, Metrics]:
        """Logistic regression on a bag of words: how often each token and pair of tokens occurs, weighed by how rare it is.

        It sees the whole text, where a recipe sees the first `task.length` tokens.
        """
        by_word = self.tokenizer.unit == "word"
        words = TfidfVectorizer(
            analyzer="word" if by_word else "char",
            tokenizer=str.split if by_word else None,
            token_pattern=None, lowercase=False, ngram_range=(1, 2), min_df=2, sublinear_tf=True,
        )  # fmt: skip
        train, test = (self._standard(part.raw) for part in (self.train, self.test))
        seen = np.unique(self.train.targets)
        logs = np.full((len(self.test), self.outputs.count), np.log(1e-9))
        if len(seen) > 1:
            model = LogisticRegression(C=10, max_iter=200).fit(words.fit_transform(train), self.train.targets)
            logs[:, seen] = model.predict_log_proba(words.transform(test))
        else:
            logs[:, seen] = 0.0
        return {"bag_of_words": self.metrics(self.test, logs)}

    def _standard(self, texts: np.ndarray) -> list[str]:
        return [text.decode() for text in self.tokenizer.standardize(tf.constant(texts)).numpy()]

    def figures(self, model: keras.Model, predictions: np.ndarray) -> dict[str, Figure | str]:
        return {**super().figures(model, predictions), **self._attention(model, predictions)}

    def worst_mistakes(self, logs: np.ndarray) -> dict[str, Figure | str]:
        worst, count = self._worst(logs)
        rows = [
            f"<p>{self._verdict(index, logs[index])}</p>"
            f"<blockquote>{pages.escape(self.test.raw[index].decode()[:1000])}</blockquote>"
            for index in worst[:SHOWN]
        ]
        return {"worst_mistakes.html": pages.page(f"The worst of {count} mistakes on {len(logs):,} test texts", rows)}

    def _attention(self, model: keras.Model, predictions: np.ndarray) -> dict[str, str]:
        """How much the model looked at each token of the first test texts; nothing for a recipe that does not attend."""
        tokens = self.test.first(SHOWN).array
        weights = attention_weights(model, tokens, tokens != PADDING)
        if weights is None:
            return {}
        rows = []
        for index, each in enumerate(weights):
            words = self._split(self.test.raw[index].decode())[: self.chosen.length]
            rows.append(f"<p>{self._verdict(index, predictions[index])}</p><p>{pages.weighted(words, each[: len(words)])}</p>")
        return {"attention.html": pages.page("What it looked at: the darker, the more", rows)}

    def _split(self, text: str) -> Sequence[str]:
        if self.encoder is None:
            return self.tokenizer.split(text)
        return ["", *(self.encoder.vocabulary.decode([number]) for number in self.encoder.vocabulary.encode(text))]

    def _verdict(self, index: int, logits: np.ndarray) -> str:
        truth, answer = self.test.targets[index], logits.argmax()
        share = np.exp(logits - np.logaddexp.reduce(logits))
        told = [f"<b>{self.classes[label]}</b> ({share[label]:.1%})" for label in (truth, answer)]
        return f"is {told[0]}, taken for {told[1]}"


def check_texts(texts: np.ndarray, where: str) -> None:
    """Raises a UserError unless these are texts, none of them empty."""
    if texts.dtype != object or texts.ndim != 1:
        raise UserError(f"{where[0].upper()}{where[1:]} holds no texts; choose another dataset.inputs.")
    empty = [index for index, text in enumerate(texts) if not text.decode().strip()]
    if empty:
        raise UserError(
            f"Example {empty[0]} of {where} is an empty text ({len(empty)} in all); leave them out of the data, or choose "
            "other dataset.splits."
        )
