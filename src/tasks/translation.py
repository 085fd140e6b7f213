"""Translation: what does this sequence say, written another way?"""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import sacrebleu
import tensorflow as tf
from keras import KerasTensor, ops
from matplotlib.figure import Figure

from recipes import decoding
from recipes.specs import PADDING, SourceTarget, TargetTokenLogits
from src import settings
from src.datasets import Data, Part, pipeline
from src.serving import Answer
from src.tasks import pages
from src.tasks.task import Metrics, Task
from src.tasks.text_classification import check_texts
from src.tasks.tokenization import Subwords, Tokenizer
from src.vocabulary import Encoder, Vocabulary

SHOWN = 8  # pairs on a page


class Translation(Task):
    """Texts to texts.

    The model learns by teacher forcing: it is given the source and the target up to each token, and tells the next one. When it
    is judged and when it is used it writes the whole target by itself. Predictions are texts (examples,), as are the references
    that `metrics` compares them with.
    """

    units = {}

    def __init__(self, chosen: settings.Translation, data: Data):
        for name in ("train", "validation", "test"):
            for side in ("inputs", "targets"):
                check_texts(getattr(getattr(data, name), side), f"the {name} part of dataset={data.name} ({side})")
        self.chosen = chosen
        self.source: Tokenizer | Subwords
        self.target: Tokenizer | Subwords
        lengths = chosen.source_length, chosen.target_length + 1  # of a target with START or END
        sides = data.train.raw, data.train.targets
        if chosen.unit == "bpe":  # one vocabulary for both, in which names are written alike
            both = [text.decode() for side in sides for text in side]
            vocabulary = Vocabulary.learned(both, "bpe", chosen.vocabulary, chosen.lowercase)
            self.source, self.target = (Subwords(vocabulary, length, chosen.lowercase) for length in lengths)
            self.encoder = Encoder(vocabulary, chosen.source_length)
        else:
            self.source, self.target = (
                Tokenizer(side, chosen.unit, chosen.vocabulary, length, chosen.lowercase)
                for side, length in zip(sides, lengths)
            )
        self.train, self.validation, self.test = map(self._encoded, (data.train, data.validation, data.test))
        self.inputs = SourceTarget(chosen.source_length, len(self.source), self.target.length, len(self.target))
        self.outputs = TargetTokenLogits(self.target.length, len(self.target))
        self.mean_length = float((self.train.targets != PADDING).sum(axis=1).mean())

    def _encoded(self, part: Part) -> Part:
        given = {
            "source": self.source.encode(part.raw, start=self.encoder is not None),
            "target": self.target.encode(part.targets, start=True),
        }
        return Part(given, self.target.encode(part.targets, end=True), source=part.raw, reference=part.targets)

    def around(self, network: keras.Model) -> keras.Model:
        return network

    def loss(self) -> keras.losses.Loss:
        return TokenCrossentropy(self.mean_length, self.chosen.label_smoothing)

    def training_metrics(self) -> list[keras.metrics.Metric]:
        return [TokenAccuracy(name="token_accuracy")]

    def predict(self, model: keras.Model, part: Part, batch_size: int) -> np.ndarray:
        write = tf.function(self._write(model), reduce_retracing=True)
        written = [write(inputs["source"]).numpy() for inputs in pipeline.prediction(part, batch_size)]
        return np.concatenate(written)[: len(part)]

    def _write(self, model: keras.Model) -> Callable[[tf.Tensor], tf.Tensor]:
        def write(source: tf.Tensor) -> tf.Tensor:
            if self.chosen.beams == 1:
                numbers = decoding.greedy(model, source, self.target.length)
            else:
                numbers = decoding.beam_search(model, source, self.target.length, self.chosen.beams)
            return self.target.text(numbers)

        return write

    def metrics(self, part: Part, predictions: np.ndarray) -> Metrics:
        """Exact match, the share of texts that are right to the last character; BLEU and chrF of sacrebleu, 0 to 100."""
        references = self._comparable(part.raw_targets)
        answers = [text.decode() if isinstance(text, bytes) else text for text in predictions]
        return {
            "exact_match": float(np.mean([one == other for one, other in zip(answers, references)])),
            "bleu": sacrebleu.corpus_bleu(answers, [references], force=True).score,
            "chrf": sacrebleu.corpus_chrf(answers, [references]).score,
        }

    def _comparable(self, texts: np.ndarray) -> list[str]:
        """Texts with the capitals, and by words with the spaces, that an answer can have."""
        standard = self.target.standardize(tf.constant(texts)).numpy()
        return [" ".join(text.decode().split()) if self.chosen.unit == "word" else text.decode() for text in standard]

    def baselines(self) -> dict[str, Metrics]:
        """The source, copied."""
        copied = self._comparable(self.test.raw)
        return {"copy": self.metrics(self.test, np.array(copied, dtype=object))}

    def served(self, model: keras.Model) -> tuple[Answer, list[Any]]:
        """Texts (batch,), or their numbers where there is an `encoder`, to `text` (batch,), what the model writes."""
        write, source = self._write(model), self.source
        if isinstance(source, Subwords):
            return lambda numbers: {"text": write(numbers)}, [model]
        return lambda texts: {"text": write(source(texts))}, [model, source.layer]

    def figures(self, model: keras.Model, predictions: np.ndarray) -> dict[str, Figure | str]:
        shown = self.test.first(SHOWN)
        written = self.target.encode(predictions[:SHOWN], start=True)
        weights = ops.convert_to_numpy(model.alignments({"source": shown.inputs["source"], "target": written}))
        rows = []
        for index, (source, reference) in enumerate(zip(shown.raw, shown.raw_targets)):
            said = predictions[index].decode()
            come = [*["⏵"] * (self.encoder is not None), *self.source.split(source.decode())][: self.source.length]
            gone = [*self.target.split(said), "⏎"][: self.target.length]
            rows.append(f"<p>{pages.escape(said)} &nbsp; (reference: {pages.escape(reference.decode())})</p>")
            rows.append(pages.alignment(come, gone, weights[index, : len(gone), : len(come)]))
        return {"alignments.html": pages.page("What it looked at (across) while it wrote each token (down)", rows)}


class TokenCrossentropy(keras.losses.Loss):
    """Cross-entropy of the next token in nats, the mean over all tokens but padding.

    Each sequence counts with its own number of tokens over the mean number, so that the mean over a batch of any size and on
    any number of devices is the same sum over tokens.

    Args:
        mean_length: tokens of a sequence, on average.
        label_smoothing: share of the truth that is spread evenly over all tokens (Szegedy et al. 2016).
    """

    def __init__(self, mean_length: float, label_smoothing: float = 0.0, name: str = "token_crossentropy", **kwargs: Any):
        super().__init__(name=name, **kwargs)
        self.mean_length, self.label_smoothing = mean_length, label_smoothing

    def call(self, y_true: KerasTensor, y_pred: KerasTensor) -> KerasTensor:
        """Token numbers (batch, T) and logits (batch, T, vocabulary), to (batch,)."""
        logs = ops.log_softmax(ops.cast(y_pred, "float32"), axis=-1)
        truth = ops.take_along_axis(logs, ops.cast(y_true, "int32")[..., None], axis=-1)[..., 0]
        loss = -(1 - self.label_smoothing) * truth - self.label_smoothing * ops.mean(logs, axis=-1)
        return ops.sum(ops.where(y_true == PADDING, 0.0, loss), axis=-1) / self.mean_length

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "mean_length": self.mean_length, "label_smoothing": self.label_smoothing}


class TokenAccuracy(keras.metrics.Mean):
    """Share of tokens, padding not counted, that were told right given all before them."""

    def update_state(self, y_true: KerasTensor, y_pred: KerasTensor, sample_weight: KerasTensor | None = None) -> Any:
        """Token numbers (batch, T), logits (batch, T, vocabulary), weights of the sequences (batch,)."""
        real = ops.cast(ops.not_equal(y_true, PADDING), "float32")
        right = ops.cast(ops.equal(ops.cast(ops.argmax(y_pred, axis=-1), y_true.dtype), y_true), "float32")
        if sample_weight is not None:
            real = real * ops.cast(sample_weight, "float32")[:, None]
        return super().update_state(right, sample_weight=real)
