"""Translation: texts to texts."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import sacrebleu
import tensorflow as tf
from keras import ops

from recipes import decoding
from recipes.specs import PADDING, SourceTarget, TargetTokenLogits
from src.config.tasks import TranslationSettings
from src.datasets import Data, Split, pipeline
from src.tasks import html
from src.tasks.base import Figures, Metrics, ServingFunction, Task
from src.tasks.losses import TokenAccuracy, TokenCrossentropy
from src.tasks.text_classification import check_texts
from src.tasks.tokenizers import Encoder, SubwordTokenizer, Tokenizer, Vocabulary

MAX_SHOWN = 8  # pairs on a page


class Translation(Task):
    """Translation of source texts to target texts.

    Models train with teacher forcing: they get the source and all target tokens before the predicted one. For evaluation and
    inference the whole target is decoded from the source alone. Predictions are texts (examples,), as are the references that
    `metrics` compares them with.
    """

    units = {}

    def __init__(self, settings: TranslationSettings, data: Data):
        for name in ("train", "validation", "test"):
            for side in ("inputs", "targets"):
                check_texts(getattr(getattr(data, name), side), f"the {name} split of dataset={data.name} ({side})")
        self.settings = settings
        self.source: Tokenizer | SubwordTokenizer
        self.target: Tokenizer | SubwordTokenizer
        lengths = settings.source_length, settings.target_length + 1  # of a target with START or END
        sides = data.train.raw, data.train.targets
        if settings.unit == "bpe":  # one vocabulary for both languages: names are spelled alike
            texts = [text.decode() for side in sides for text in side]
            vocabulary = Vocabulary.from_texts(texts, "bpe", settings.vocabulary, settings.lowercase)
            self.source, self.target = (SubwordTokenizer(vocabulary, length, settings.lowercase) for length in lengths)
            self.encoder = Encoder(vocabulary, settings.source_length)
        else:
            self.source, self.target = (
                Tokenizer(side, settings.unit, settings.vocabulary, length, settings.lowercase)
                for side, length in zip(sides, lengths)
            )
        self.train, self.validation, self.test = map(self._encode_split, (data.train, data.validation, data.test))
        self.inputs = SourceTarget(settings.source_length, len(self.source), self.target.length, len(self.target))
        self.outputs = TargetTokenLogits(self.target.length, len(self.target))
        self.mean_length = float((self.train.targets != PADDING).sum(axis=1).mean())

    def _encode_split(self, split: Split) -> Split:
        inputs = {
            "source": self.source.encode(split.raw, start=self.encoder is not None),
            "target": self.target.encode(split.targets, start=True),
        }
        return Split(inputs, self.target.encode(split.targets, end=True), source=split.raw, reference=split.targets)

    def wrap(self, network: keras.Model) -> keras.Model:
        return network

    def loss(self) -> keras.losses.Loss:
        return TokenCrossentropy(self.mean_length, self.settings.label_smoothing)

    def training_metrics(self, model: keras.Model) -> list[keras.metrics.Metric]:
        return [TokenAccuracy(name="token_accuracy")]

    def predict(self, model: keras.Model, split: Split, batch_size: int) -> np.ndarray:
        translate = tf.function(self._translate_fn(model), reduce_retracing=True)
        batches = [translate(inputs["source"]).numpy() for inputs in pipeline.prediction(split, batch_size)]
        return np.concatenate(batches)[: len(split)]

    def _translate_fn(self, model: keras.Model) -> Callable[[tf.Tensor], tf.Tensor]:
        """The function from source token ids (batch, length) to target texts (batch,)."""

        def translate(source: tf.Tensor) -> tf.Tensor:
            if self.settings.beams == 1:
                token_ids = decoding.greedy(model, source, self.target.length)
            else:
                token_ids = decoding.beam_search(model, source, self.target.length, self.settings.beams)
            return self.target.decode(token_ids)

        return translate

    def metrics(self, split: Split, predictions: np.ndarray) -> Metrics:
        """Exact match, the fraction of texts equal to the reference; BLEU and chrF of sacrebleu, 0 to 100."""
        references = self._normalize(split.raw_targets)
        hypotheses = [text.decode() if isinstance(text, bytes) else text for text in predictions]
        return {
            "exact_match": float(np.mean([hypothesis == reference for hypothesis, reference in zip(hypotheses, references)])),
            "bleu": sacrebleu.corpus_bleu(hypotheses, [references], force=True).score,
            "chrf": sacrebleu.corpus_chrf(hypotheses, [references]).score,
        }

    def _normalize(self, texts: np.ndarray) -> list[str]:
        """Normalize texts as decoded ones are: lowercased if the tokenizer does that, and words separated by single spaces."""
        standardized = self.target.standardize(tf.constant(texts)).numpy()
        return [" ".join(text.decode().split()) if self.settings.unit == "word" else text.decode() for text in standardized]

    def baselines(self) -> dict[str, Metrics]:
        """A copy of the source."""
        sources = self._normalize(self.test.raw)
        return {"copy": self.metrics(self.test, np.array(sources, dtype=object))}

    def serving_fn(self, model: keras.Model) -> tuple[ServingFunction, list[Any]]:
        """Texts (batch,), or token ids where there is an `encoder`, to `text` (batch,), their translations."""
        translate, source = self._translate_fn(model), self.source
        if isinstance(source, SubwordTokenizer):
            return lambda token_ids: {"text": translate(token_ids)}, [model]
        return lambda texts: {"text": translate(source(texts))}, [model, source.layer]

    def figures(self, model: keras.Model, predictions: np.ndarray) -> Figures:
        examples = self.test.take(MAX_SHOWN)
        targets = self.target.encode(predictions[:MAX_SHOWN], start=True)
        weights = ops.convert_to_numpy(model.alignments({"source": examples.inputs["source"], "target": targets}))
        rows = []
        for index, (source, reference) in enumerate(zip(examples.raw, examples.raw_targets)):
            prediction = predictions[index].decode()
            start = ["⏵"] * (self.encoder is not None)
            source_tokens = [*start, *self.source.tokenize(source.decode())][: self.source.length]
            target_tokens = [*self.target.tokenize(prediction), "⏎"][: self.target.length]
            rows.append(f"<p>{html.escape(prediction)} &nbsp; (reference: {html.escape(reference.decode())})</p>")
            shown_weights = weights[index, : len(target_tokens), : len(source_tokens)]
            rows.append(html.alignment_table(source_tokens, target_tokens, shown_weights))
        return {"alignments.html": html.page("Attention to source tokens (columns) for each target token (rows)", rows)}
