"""Translation: texts to texts."""

import itertools
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import MappingProxyType

import keras
import numpy as np
import tensorflow as tf
from keras import ops
from sacrebleu.metrics import BLEU, CHRF

from recipes import decoding
from recipes.specs import PADDING, SourceTarget, TargetTokenLogits
from src import terminal
from src.config.tasks import TranslationSettings
from src.datasets import Array, Data, Split, lazy, pipeline
from src.figures import html
from src.tasks.base import Figures, Metrics, Task
from src.tasks.baselines import translation as methods
from src.tasks.baselines.interface import Baselines, Prediction, sample_note
from src.tasks.losses import TokenAccuracy, TokenCrossentropy
from src.tasks.serving import DEFAULT_FUNCTION, Serving, batch_spec
from src.tasks.text_classification import check_texts
from src.tasks.tokenizers import Tokenizer, normalize, training_texts
from src.uncertainty import BLEU_COUNTS

MAX_SHOWN = 8  # pairs on a page
HAN = re.compile(r"[\u3400-\u9fff]")  # Chinese characters


class Translation(Task):
    """Translation of source texts to target texts.

    Models train with teacher forcing: they get the source and all target tokens before the predicted one. For evaluation and
    inference the whole target is decoded from the source alone. Predictions are texts (examples,), as are the references that
    `metrics` compares them with.

    Attributes:
        measurement: sacrebleu's signature of BLEU and that of chrF.
    """

    units = {}
    input_tokenizer: Tokenizer
    output_tokenizer: Tokenizer
    baseline_settings = ("tokenizer", "lowercase")

    def __init__(self, settings: TranslationSettings, data: Data):
        for name in ("train", "validation", "test"):
            for side in ("raw_inputs", "targets"):
                check_texts(
                    getattr(getattr(data, name), side), f"the {name} split of dataset={data.name} ({side.removeprefix('raw_')})"
                )
        self.settings = settings
        # Where the model's texts are lower-cased, so are the references, which the signature says (case:lc). sacrebleu's
        # tokenizer for Chinese takes each character for a word, and leaves all else to 13a, the one that it uses otherwise.
        chinese = sum(bool(HAN.search(text.decode())) for text in data.test.targets) > len(data.test) / 2
        self._bleu = BLEU(lowercase=settings.lowercase, tokenize="zh" if chinese else "13a", force=True)
        self._chrf = CHRF(lowercase=settings.lowercase)
        for metric in (self._bleu, self._chrf):
            metric.corpus_score([""], [[""]])  # a signature is complete once a score has been computed
        self.measurement = f"BLEU {self._bleu.get_signature()}, chrF {self._chrf.get_signature()}"
        kind, size, lowercase = settings.tokenizer, settings.vocabulary_size, settings.lowercase
        sides = training_texts(data.train.raw_inputs, kind), training_texts(data.train.targets, kind)
        if kind == "bpe":  # one vocabulary for both languages: names are spelled alike
            source = target = Tokenizer.train(itertools.chain(*sides), kind, size, lowercase)
        else:
            source, target = (Tokenizer.train(side, kind, size, lowercase) for side in sides)
        self.target_length = settings.target_length + 1  # with START or END
        self.input_tokenizer = source.configure(length=settings.source_length, start=kind == "bpe")
        self.output_tokenizer = target.configure(length=self.target_length + 1, start=True, end=True)
        self.train, self.validation, self.test = map(self._encode_split, (data.train, data.validation, data.test))
        self.inputs = SourceTarget(settings.source_length, len(source), self.target_length, len(target))
        self.outputs = TargetTokenLogits(self.target_length, len(target))
        self.mean_length = float((self.train.targets != PADDING).sum(axis=1).mean())

    def _encode_split(self, split: Split) -> Split:
        target, next_tokens = self._encode_targets(split.targets)
        inputs = {"source": self.input_tokenizer.encode(split.raw_inputs), "target": target}
        return Split(inputs, next_tokens, source=split.raw_inputs, reference=split.targets)

    def _encode_targets(self, texts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Target token ids after START, and the token that follows each of them: (texts, target_length) each."""
        token_ids = self.output_tokenizer.encode(texts)
        next_tokens = token_ids[:, 1:]
        return np.where(next_tokens == PADDING, PADDING, token_ids[:, :-1]), next_tokens

    def wrap(self, network: keras.Model) -> keras.Model:
        return network

    def loss(self) -> keras.losses.Loss:
        return TokenCrossentropy(self.mean_length, self.settings.label_smoothing)

    def training_metrics(self, model: keras.Model) -> list[keras.metrics.Metric]:
        return [TokenAccuracy(name="token_accuracy")]

    def predict(self, model: keras.Model, split: Split, batch_size: int) -> np.ndarray:
        translate = tf.function(self._translate_fn(model), reduce_retracing=True)
        inputs = pipeline.prediction(split, batch_size)
        batches = [translate(batch["source"]).numpy() for batch in terminal.track(inputs, -(-len(split) // batch_size))]
        return np.array(self.output_tokenizer.decode(np.concatenate(batches)[: len(split)]), dtype=object)

    def _translate_fn(self, model: keras.Model) -> Callable[[tf.Tensor], tf.Tensor]:
        """The function from source token ids (batch, source_length) to target token ids (batch, target_length)."""

        def translate(source: tf.Tensor) -> tf.Tensor:
            if self.settings.beams == 1:
                return decoding.greedy(model, source, self.target_length)
            return decoding.beam_search(model, source, self.target_length, self.settings.beams)

        return translate

    def metrics(self, split: Split, predictions: np.ndarray) -> Metrics:
        """BLEU and chrF of sacrebleu, 0 to 100, on the references as they are in the data; exact match.

        exact_match: fraction of texts equal to the reference, both normalized as decoded texts are.
        """
        hypotheses, references = list(predictions), _strings(split.raw_targets)
        return {
            "exact_match": float(np.mean(self._exact_matches(split, predictions))),
            "bleu": self._bleu.corpus_score(hypotheses, [references]).score,
            "chrf": self._chrf.corpus_score(hypotheses, [references]).score,
        }

    def _exact_matches(self, split: Split, predictions: np.ndarray) -> np.ndarray:
        return np.array(self._normalize(predictions)) == np.array(self._normalize(lazy.rows(split.raw_targets)))

    def example_results(self, split: Split, predictions: np.ndarray) -> dict[str, np.ndarray]:
        """Source, hypothesis, reference, whether the two are equal, and the counts from which sacrebleu computes BLEU."""
        references = _strings(split.raw_targets)
        scores = [self._bleu.corpus_score([text], [[reference]]) for text, reference in zip(predictions, references)]
        counts = [[*score.counts, *score.totals, score.sys_len, score.ref_len] for score in scores]
        return {
            "source": np.array(_strings(split.raw_inputs), dtype=object),
            "hypothesis": predictions,
            "reference": np.array(references, dtype=object),
            "exact_match": self._exact_matches(split, predictions),
            **dict(zip(BLEU_COUNTS, np.array(counts).T)),
        }

    def _normalize(self, texts: Iterable[str | bytes]) -> list[str]:
        """Normalize texts as decoded ones are."""
        return list(normalize(texts, self.settings.tokenizer, self.settings.lowercase))

    def baselines(self) -> Baselines:
        return {
            "copy": lambda: Prediction(np.array(_strings(self.test.raw_inputs), dtype=object)),
            "word_by_word": self._word_by_word,
        }

    def _word_by_word(self) -> Prediction:
        """Each word of the source by the most frequent word that it is aligned with."""

        def words(texts: Array) -> Iterator[str]:
            return normalize(lazy.rows(texts), "words", self.settings.lowercase)

        sources, targets = methods.first_texts(words(self.train.raw_inputs), words(self.train.raw_targets))
        values = methods.word_by_word(words(self.test.raw_inputs), methods.dictionary(sources, targets))
        return Prediction(np.array(values, dtype=object), sample_note(len(sources), len(self.train), "texts"))

    def serving(self, model: keras.Model) -> Serving:
        """Texts to `text`, their translations."""
        translate = self._translate_fn(model)

        def translate_tokens(inputs: tf.Tensor) -> dict:
            return {"token_ids": translate(inputs)}

        signature = {"inputs": batch_spec(self.train.inputs["source"])}
        return Serving(
            "Translator", {DEFAULT_FUNCTION: (translate_tokens, signature)}, [model],
            example=[self.test.raw_inputs[0].decode()], outputs={"text": ("object", ())},
            input_tokenizer=self.input_tokenizer, output_tokenizer=self.output_tokenizer,
        )  # fmt: skip

    def figures(
        self, model: keras.Model, predictions: np.ndarray, baselines: Mapping[str, np.ndarray] = MappingProxyType({})
    ) -> Figures:
        examples = self.test.take(MAX_SHOWN)
        target, _ = self._encode_targets(predictions[:MAX_SHOWN])
        weights = ops.convert_to_numpy(model.alignments({"source": examples.inputs["source"], "target": target}))
        rows = [html.weight_scale("1")]
        for index, (source, reference) in enumerate(zip(*map(lazy.rows, (examples.raw_inputs, examples.raw_targets)))):
            source_tokens = self.input_tokenizer.split(source.decode())
            target_tokens = self.output_tokenizer.split(predictions[index])[1:]  # without START
            rows.append(f"<p><b>{html.escape(predictions[index])}</b> — reference: {html.escape(reference.decode())}</p>")
            shown_weights = weights[index, : len(target_tokens), : len(source_tokens)]
            rows.append(html.alignment_table(source_tokens, target_tokens, shown_weights))
        return {
            "alignments.html": html.page(
                "Attention to the source tokens (columns) of test texts for each token of the translation (rows)", rows
            )
        }


def _strings(texts: Array) -> list[str]:
    return [text.decode() for text in lazy.rows(texts)]
