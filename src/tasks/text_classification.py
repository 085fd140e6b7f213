"""Text classification."""

import keras
import numpy as np
from scipy.special import softmax
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression

from recipes.specs import PADDING, Tokens
from src.config.tasks import TextClassificationSettings
from src.datasets import Data, Split
from src.errors import UserError
from src.tasks import html
from src.tasks.base import Figures, Metrics
from src.tasks.classification import Classification, attention_weights
from src.tasks.tokenizers import Kind, Tokenizer, normalize

MAX_SHOWN = 16  # texts on a page
IMPOSSIBLE = np.log(1e-9)  # log-probability of a class without training examples


class TextClassification(Classification):
    """Texts to one of several classes.

    The model takes token ids (batch, length).

    Args:
        settings: of the task.
        data: texts in UTF-8 with class labels.
        tokenizer: of a pretrained language model; None: one is trained on the training set.
    """

    example_noun = "texts"
    input_tokenizer: Tokenizer

    def __init__(self, settings: TextClassificationSettings, data: Data, tokenizer: Tokenizer | None = None):
        for name, split in data.splits.items():
            check_texts(split.raw, f"the {name} split of dataset={data.name}")
        super().__init__(data)
        self.settings = settings
        # What a language model is trained on: texts with START before them, and their own case.
        like_language_model = tokenizer is not None or settings.tokenizer in ("bytes", "bpe")
        if tokenizer is None:
            lowercase = settings.lowercase and not like_language_model
            tokenizer = Tokenizer.train(data.train.raw, settings.tokenizer, settings.vocabulary_size, lowercase)
        self.input_tokenizer = tokenizer.configure(length=settings.length, start=like_language_model)
        self.train, self.validation, self.test = map(self._encode_split, (self.train, self.validation, self.test))
        self.inputs = Tokens(settings.length, len(self.input_tokenizer))

    def _encode_split(self, split: Split) -> Split:
        return Split(self.input_tokenizer.encode(split.raw), split.targets, source=split.raw)

    def wrap(self, network: keras.Model) -> keras.Model:
        return network

    def linear_model(self) -> dict[str, Metrics]:
        """Logistic regression on TF–IDF features of tokens and pairs of tokens.

        It sees whole texts, where a recipe sees the first `task.length` tokens.
        """
        kind: Kind = "characters" if self.settings.tokenizer == "characters" else "words"
        vectorizer = TfidfVectorizer(
            analyzer="word" if kind == "words" else "char",
            tokenizer=str.split if kind == "words" else None,
            token_pattern=None, lowercase=False, ngram_range=(1, 2), min_df=2, sublinear_tf=True,
        )  # fmt: skip
        train, test = (normalize(split.raw, kind, self.settings.lowercase) for split in (self.train, self.test))
        present = np.unique(self.train.targets)
        log_probabilities = np.full((len(self.test), self.outputs.count), IMPOSSIBLE)
        if len(present) > 1:
            model = LogisticRegression(C=10, max_iter=200).fit(vectorizer.fit_transform(train), self.train.targets)
            log_probabilities[:, present] = model.predict_log_proba(vectorizer.transform(test))
        else:
            log_probabilities[:, present] = 0.0
        return {"bag_of_words": self.metrics(self.test, log_probabilities)}

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
            tokens = self.input_tokenizer.split(self.test.raw[index].decode())
            highlighted = html.highlight(tokens, text_weights[: len(tokens)])
            rows.append(f"<p>{self._verdict(index, predictions[index])}</p><p>{highlighted}</p>")
        return {"attention.html": html.page("Attention weights: the darker, the larger", rows)}

    def _verdict(self, index: int, logits: np.ndarray) -> str:
        """HTML of the true and the predicted class of a test example, with their probabilities."""
        probabilities = softmax(logits)
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
