"""Text classification."""

import dataclasses
import math
import re
from collections.abc import Mapping, Sequence
from types import MappingProxyType

import keras
import numpy as np

from recipes.specs import PADDING, Tokens
from src.config.tasks import TextClassificationSettings, TextMultilabelClassificationSettings
from src.datasets import Array, Data, Split, lazy
from src.datasets.stored import StoredArray
from src.errors import UserError
from src.figures import html
from src.tasks.base import Figures
from src.tasks.baselines import texts as methods
from src.tasks.baselines.interface import Baselines, Prediction
from src.tasks.classification import Classification, attention_weights, mistakes_title
from src.tasks.serving import Serving
from src.tasks.tokenizers import Kind, Tokenizer, normalize, training_texts

MAX_SHOWN, MAX_CHARACTERS = 16, 1000  # texts on a page, and how much of each
MARKUP = re.compile(r"</?[a-zA-Z][a-zA-Z0-9]*\s*/?>")  # tags of HTML


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
    baseline_settings = ("tokenizer", "lowercase")

    def __init__(
        self,
        settings: TextClassificationSettings | TextMultilabelClassificationSettings,
        data: Data,
        tokenizer: Tokenizer | None = None,
    ):
        for name, split in data.splits.items():
            check_texts(split.raw_inputs, f"the {name} split of dataset={data.name}")
        super().__init__(settings, data)
        self.settings = settings
        # What a language model is trained on: texts with START before them, and their own case.
        like_language_model = tokenizer is not None or settings.tokenizer in ("bytes", "bpe")
        if tokenizer is None:
            lowercase = settings.lowercase and not like_language_model
            texts = training_texts(data.train.raw_inputs, settings.tokenizer)
            tokenizer = Tokenizer.train(texts, settings.tokenizer, settings.vocabulary_size, lowercase)
        self.input_tokenizer = tokenizer.configure(length=settings.length, start=like_language_model)
        self.train, self.validation, self.test = map(self._encode_split, (self.train, self.validation, self.test))
        self.inputs = Tokens(settings.length, len(self.input_tokenizer))

    def _encode_split(self, split: Split) -> Split:
        return Split(self.input_tokenizer.encode(split.raw_inputs), split.targets, source=split.raw_inputs)

    def wrap(self, network: keras.Model) -> keras.Model:
        return network

    def serving(self, model: keras.Model) -> Serving:
        return dataclasses.replace(super().serving(model), input_tokenizer=self.input_tokenizer)

    def serving_example(self) -> list[str]:
        return [self.test.raw_inputs[0].decode()]

    def learned_baselines(self) -> Baselines:
        """They see whole texts, where a recipe sees the first `task.length` tokens."""
        return {"bag_of_words": self._bag_of_words, "nb_svm": self._nb_svm}

    @property
    def token_kind(self) -> Kind:
        return "characters" if self.settings.tokenizer == "characters" else "words"

    def normalize(self, split: Split, characters: float = math.inf) -> list[str]:
        """The texts of a split as baselines take them: tokens separated by spaces, or characters.

        Args:
            split: of this task.
            characters: how many are enough: texts follow until there are more.
        """
        texts = []
        for text in normalize(lazy.rows(split.raw_inputs), self.token_kind, self.settings.lowercase):
            texts.append(text)
            characters -= len(text)
            if characters < 0:
                break
        return texts

    def _bag_of_words(self) -> Prediction:
        train, test = self.normalize(self.train, methods.MAX_CHARACTERS), self.normalize(self.test)
        return methods.bag_of_words(train, self.train.targets, test, self.outputs.count, self.token_kind)

    def _nb_svm(self) -> Prediction:
        train = self.normalize(self.train, methods.MAX_CHARACTERS)
        validation, test = map(self.normalize, (self.validation, self.test))
        targets = self.train.targets, self.validation.targets
        return methods.nb_svm((train, targets[0]), (validation, targets[1]), test, self.outputs.count, self.token_kind)

    def figures(
        self, model: keras.Model, predictions: np.ndarray, baselines: Mapping[str, np.ndarray] = MappingProxyType({})
    ) -> Figures:
        return {**super().figures(model, predictions, baselines), **self._attention(model, predictions)}

    def worst_mistakes(self, predictions: np.ndarray) -> Figures:
        mistakes = self.mistakes(predictions)
        shown = mistakes[:MAX_SHOWN]
        rows = [
            f"<p>{self._heading(index, predictions[index])}</p>"
            f"<blockquote>{html.escape(MARKUP.sub(' ', self.test.raw_inputs[index].decode())[:MAX_CHARACTERS])}</blockquote>"
            for index in shown
        ]
        title = mistakes_title(len(mistakes), len(shown), len(predictions), self.example_noun)
        return {"worst_mistakes.html": html.page(f"{title}; true / predicted {self.target_noun}", rows)}

    def _attention(self, model: keras.Model, predictions: np.ndarray) -> dict[str, str]:
        """Attention weights of the tokens of the first test texts; nothing for a model without attention."""
        token_ids = self.test.take(MAX_SHOWN).array
        weights = attention_weights(model, token_ids, token_ids != PADDING)
        if weights is None:
            return {}
        rows = [html.weight_scale("the largest weight of the text")]
        for index, text_weights in enumerate(weights):
            tokens = self.input_tokenizer.split(self.test.raw_inputs[index].decode())
            shown = without_markup(tokens)
            highlighted = html.highlight([tokens[place] for place in shown], text_weights[shown])
            largest = f"{text_weights.max():.3f}; {1 / max(len(tokens), 1):.3f} if all were equal"
            rows.append(f"<p>{self._heading(index, predictions[index])} — largest weight {largest}</p><p>{highlighted}</p>")
        title = f"Attention weights of the tokens of test texts; true / predicted {self.target_noun}"
        return {"attention.html": html.page(title, rows)}

    def _heading(self, index: int, logits: np.ndarray) -> str:
        """HTML of the true and the predicted class of a test example, in red if they differ."""
        text, correct = self.verdict(index, logits)
        return f"<b{'' if correct else ' class=mistake'}>{html.escape(text)}</b>"


def without_markup(tokens: Sequence[str]) -> list[int]:
    """The places of the tokens that are no HTML tag: texts from the web hold tags like <br />, split into several tokens."""
    places = np.repeat(np.arange(len(tokens)), [len(token) for token in tokens])  # of each character
    markup: set[int] = set()
    for tag in MARKUP.finditer("".join(tokens)):
        markup.update(places[tag.start() : tag.end()].tolist())
    return [place for place in range(len(tokens)) if place not in markup]


def check_texts(texts: Array, where: str) -> None:
    """Check that an array holds texts, none of them empty.

    Args:
        texts: what should be an array of bytes.
        where: the texts' place in the data, for messages.

    Raises:
        UserError: it does not.
    """
    if texts.dtype != object or texts.ndim != 1:
        raise UserError(f"{where[0].upper()}{where[1:]} holds no texts; choose another dataset.inputs.")

    def find_empty() -> np.ndarray:
        return np.array([index for index, text in enumerate(lazy.rows(texts)) if not text.decode().strip()])

    empty = texts.keep("empty", find_empty) if isinstance(texts, StoredArray) else find_empty()
    if len(empty):
        raise UserError(
            f"Example {empty[0]} of {where} is an empty text ({len(empty)} in all); leave them out of the data, or choose "
            "other dataset.splits."
        )
