"""Text classification."""

from collections.abc import Sequence

import keras
import numpy as np
import tensorflow as tf
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression

from recipes.specs import PADDING, UNKNOWN, Tokens
from src.config.tasks import TextClassificationSettings
from src.datasets import Data, Split
from src.errors import UserError
from src.tasks import html
from src.tasks.base import Figures, Metrics
from src.tasks.classification import Classification, attention_weights
from src.tasks.tokenizers import Encoder, Tokenizer, Vocabulary

MAX_SHOWN = 16  # texts on a page
IMPOSSIBLE = np.log(1e-9)  # log-probability of a class without training examples


class TextClassification(Classification):
    """Texts to one of several classes.

    The model takes token ids (batch, length); the served model takes texts.

    Args:
        settings: of the task.
        data: texts in UTF-8 with class labels.
        vocabulary: of a pretrained language model, to tokenize with; None: one is made from the training set.
    """

    example_noun = "texts"

    def __init__(self, settings: TextClassificationSettings, data: Data, vocabulary: Vocabulary | None = None):
        for name, split in data.splits.items():
            check_texts(split.raw, f"the {name} split of dataset={data.name}")
        super().__init__(data)
        self.settings = settings
        unit = settings.unit if settings.unit in ("word", "character") else "word"
        self.tokenizer = Tokenizer(data.train.raw, unit, settings.vocabulary, settings.length, settings.lowercase)
        if vocabulary is not None or settings.unit != unit:  # tokenizations without TensorFlow operations
            texts = [text.decode() for text in data.train.raw]
            vocabulary = vocabulary or Vocabulary.from_texts(texts, settings.unit, settings.vocabulary)
            self.encoder = Encoder(vocabulary, settings.length)
        else:
            self.serving_layers = (self.tokenizer.layer,)
        self.train, self.validation, self.test = map(self._encode_split, (self.train, self.validation, self.test))
        self.inputs = Tokens(settings.length, len(self.encoder.vocabulary if self.encoder else self.tokenizer))

    def _encode_split(self, split: Split) -> Split:
        encode = self.encoder or self.tokenizer.encode
        return Split(encode(split.raw), split.targets, source=split.raw)

    def serving_inputs(self, model: keras.Model, inputs: tf.Tensor) -> tf.Tensor:
        """Tokenize texts (batch,) to token ids (batch, length); a text without any token becomes one unknown token.

        Where there is an `encoder`, the inputs are token ids already.
        """
        if self.encoder is not None:
            return inputs
        token_ids = self.tokenizer(inputs)
        empty = tf.concat([tf.ones_like(token_ids[:, :1]) * UNKNOWN, token_ids[:, 1:]], axis=1)
        return tf.where(token_ids[:, :1] == 0, empty, token_ids)

    def wrap(self, network: keras.Model) -> keras.Model:
        return network

    def linear_model(self) -> dict[str, Metrics]:
        """Logistic regression on TF–IDF features of tokens and pairs of tokens.

        It sees whole texts, where a recipe sees the first `task.length` tokens.
        """
        by_word = self.tokenizer.unit == "word"
        vectorizer = TfidfVectorizer(
            analyzer="word" if by_word else "char",
            tokenizer=str.split if by_word else None,
            token_pattern=None, lowercase=False, ngram_range=(1, 2), min_df=2, sublinear_tf=True,
        )  # fmt: skip
        train, test = (self._standardize(split.raw) for split in (self.train, self.test))
        present = np.unique(self.train.targets)
        log_probabilities = np.full((len(self.test), self.outputs.count), IMPOSSIBLE)
        if len(present) > 1:
            model = LogisticRegression(C=10, max_iter=200).fit(vectorizer.fit_transform(train), self.train.targets)
            log_probabilities[:, present] = model.predict_log_proba(vectorizer.transform(test))
        else:
            log_probabilities[:, present] = 0.0
        return {"bag_of_words": self.metrics(self.test, log_probabilities)}

    def _standardize(self, texts: np.ndarray) -> list[str]:
        return [text.decode() for text in self.tokenizer.standardize(tf.constant(texts)).numpy()]

    def figures(self, model: keras.Model, predictions: np.ndarray) -> Figures:
        return {**super().figures(model, predictions), **self._attention(model, predictions)}

    def worst_mistakes(self, log_probabilities: np.ndarray) -> Figures:
        mistakes = self._mistakes(log_probabilities)
        rows = [
            f"<p>{self._verdict(index, log_probabilities[index])}</p>"
            f"<blockquote>{html.escape(self.test.raw[index].decode()[:1000])}</blockquote>"
            for index in mistakes[:MAX_SHOWN]
        ]
        title = f"The worst of {len(mistakes)} mistakes on {len(log_probabilities):,} test texts"
        return {"worst_mistakes.html": html.page(title, rows)}

    def _attention(self, model: keras.Model, predictions: np.ndarray) -> dict[str, str]:
        """Attention weights of the tokens of the first test texts; nothing for a model without attention."""
        token_ids = self.test.take(MAX_SHOWN).array
        weights = attention_weights(model, token_ids, token_ids != PADDING)
        if weights is None:
            return {}
        rows = []
        for index, text_weights in enumerate(weights):
            tokens = self._tokenize(self.test.raw[index].decode())[: self.settings.length]
            highlighted = html.highlight(tokens, text_weights[: len(tokens)])
            rows.append(f"<p>{self._verdict(index, predictions[index])}</p><p>{highlighted}</p>")
        return {"attention.html": html.page("Attention weights: the darker, the larger", rows)}

    def _tokenize(self, text: str) -> Sequence[str]:
        """The tokens of a text, one for each position of the model's input."""
        if self.encoder is None:
            return self.tokenizer.tokenize(text)
        return ["", *(self.encoder.vocabulary.decode([token_id]) for token_id in self.encoder.vocabulary.encode(text))]

    def _verdict(self, index: int, logits: np.ndarray) -> str:
        """HTML of the true and the predicted class of a test example, with their probabilities."""
        probabilities = np.exp(logits - np.logaddexp.reduce(logits))
        labels = (self.test.targets[index], logits.argmax())
        target, predicted = (f"<b>{self.classes[label]}</b> ({probabilities[label]:.1%})" for label in labels)
        return f"true: {target}, predicted: {predicted}"


def check_texts(texts: np.ndarray, where: str) -> None:
    """Check that an array holds texts, none of them empty.

    Args:
        texts: what should be an array of bytes.
        where: the texts' place in the data, for messages.

    Raises:
        UserError: it does not.
    """
    if texts.dtype != object or texts.ndim != 1:
        raise UserError(f"{where[0].upper()}{where[1:]} holds no texts; choose another dataset.inputs.")
    empty = [index for index, text in enumerate(texts) if not text.decode().strip()]
    if empty:
        raise UserError(
            f"Example {empty[0]} of {where} is an empty text ({len(empty)} in all); leave them out of the data, or choose "
            "other dataset.splits."
        )
