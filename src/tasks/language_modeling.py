"""Language modeling: what comes next?"""

import math
from typing import Any

import hydra.utils
import keras
import numpy as np
import tensorflow as tf
from keras import ops
from matplotlib.figure import Figure

from recipes import decoding
from recipes.specs import END, PADDING, START, UNKNOWN, NextTokenLogits, Tokens
from src import settings
from src.datasets import Data, Part, pipeline
from src.errors import UserError
from src.serving import Answer
from src.tasks.task import Metrics, Task
from src.tasks.text_classification import check_texts
from src.tasks.translation import TokenAccuracy, TokenCrossentropy
from src.vocabulary import Vocabulary

VOCABULARY_FILE = "vocabulary.json"
SAMPLES, SAMPLED = 4, 300  # texts that are written to be looked at, and tokens of each
BETWEEN = f"\n{'-' * 40}\n"  # texts
BACKING = (1, 10, 100, 1000)  # how many times the bigram model has seen the unigrams' opinion; chosen on the validation part


class LanguageModeling(Task):
    """Texts, one after the other, cut into windows; each token is told from those before it in its window.

    Predictions are log-likelihoods in nats (windows, context) of the targets, 0 for padding.
    """

    units = {"nll": "nats"}
    KEPT = VOCABULARY_FILE  # what, besides settings and weights, `restored` needs

    def __init__(self, chosen: settings.LanguageModeling, data: Data, vocabulary: Vocabulary | None = None):
        parts = {name: getattr(data, name).raw for name in ("train", "validation", "test")}
        for name, texts in parts.items():
            check_texts(texts, f"the {name} part of dataset={data.name}")
        texts = {name: [text.decode() for text in found] for name, found in parts.items()}
        self.chosen = chosen
        self.vocabulary = vocabulary or Vocabulary.learned(texts["train"], chosen.tokens, chosen.bpe_vocabulary)
        streams = {name: self.vocabulary.stream(found) for name, found in texts.items()}
        # In training the windows overlap by half: each token is told once with little before it, and once with more.
        self.train = windows(streams["train"], chosen.context, every=max(chosen.context // 2, 1))
        self.validation, self.test = (windows(streams[name], chosen.context) for name in ("validation", "test"))
        self.inputs = Tokens(chosen.context, len(self.vocabulary))
        self.outputs = NextTokenLogits(chosen.context, len(self.vocabulary))

    def around(self, network: keras.Model) -> keras.Model:
        return network

    def loss(self) -> keras.losses.Loss:
        return TokenCrossentropy(self.chosen.context)

    def training_metrics(self) -> list[keras.metrics.Metric]:
        return [TokenAccuracy(name="token_accuracy")]

    def predict(self, model: keras.Model, part: Part, batch_size: int) -> np.ndarray:
        @tf.function(reduce_retracing=True)
        def told(inputs: tf.Tensor, targets: tf.Tensor) -> tf.Tensor:
            logs = ops.log_softmax(ops.cast(model(inputs, training=False), "float32"), axis=-1)
            truth = ops.take_along_axis(logs, ops.cast(targets, "int32")[..., None], axis=-1)[..., 0]
            return ops.where(ops.equal(targets, PADDING), 0.0, truth)

        found = [told(inputs, targets).numpy() for inputs, targets, _ in pipeline.evaluation(part, batch_size)]
        return np.concatenate(found)[: len(part)]

    def metrics(self, part: Part, predictions: np.ndarray) -> Metrics:
        """Over all tokens: nats per token, perplexity; bits per character, which tokens of any kind can be compared by."""
        nats = -float(predictions.sum(dtype=np.float64))
        tokens = int((part.targets != PADDING).sum())
        characters = int(self.vocabulary.characters[part.targets].sum())
        return {
            "nll": nats / tokens,
            "perplexity": math.exp(nats / tokens),
            "bits_per_character": nats / math.log(2) / max(characters, 1),
        }

    def baselines(self) -> dict[str, Metrics]:
        """How often each token occurs, and how often after the one before it."""
        size = len(self.vocabulary)
        unigrams = np.bincount(self.train.targets.ravel(), minlength=size) + 1.0
        unigrams[PADDING] = 0
        unigrams /= unigrams.sum()
        pairs, counts = np.unique(_pair(self.train.array, self.train.targets, size), return_counts=True)
        before = np.bincount(pairs // size, counts, minlength=size)

        def bigram(part: Part, backing: float) -> np.ndarray:
            wanted = _pair(part.array, part.targets, size)
            at = np.minimum(np.searchsorted(pairs, wanted), len(pairs) - 1)
            seen = np.where(pairs[at] == wanted, counts[at], 0)
            share = (seen + backing * unigrams[part.targets]) / (before[part.array] + backing)
            return _logs(share, part)

        best = min(BACKING, key=lambda backing: -bigram(self.validation, backing).sum())
        return {
            "unigram": self.metrics(self.test, _logs(unigrams[self.test.targets], self.test)),
            "bigram": self.metrics(self.test, bigram(self.test, best)),
        }

    def served(self, model: keras.Model) -> tuple[Answer, list[Any]]:
        """Token numbers (batch, context) to `probability` (batch, vocabulary) of what follows the last one."""

        def answer(tokens: tf.Tensor) -> dict:
            last = ops.maximum(ops.sum(ops.cast(ops.not_equal(tokens, PADDING), "int32"), axis=1) - 1, 0)
            logits = ops.take_along_axis(model(tokens, training=False), last[:, None, None], axis=1)[:, 0]
            return {"probability": ops.softmax(ops.cast(logits, "float32"))}

        return answer, [model]

    def figures(self, model: keras.Model, predictions: np.ndarray) -> dict[str, Figure | str]:
        return {"samples.txt": self.samples(model)}

    def samples(self, model: keras.Model) -> str:
        """Some texts that a model writes."""
        writer = Writer(model, self.vocabulary, self.chosen.context)
        return BETWEEN.join(writer.write("", SAMPLES, SAMPLED, seed=0))

    def glance(self, model: keras.Model) -> tuple[Metrics, dict[str, Figure | str]]:
        return {}, {"samples.txt": self.samples(model)}

    def artifacts(self) -> dict[str, str]:
        return {VOCABULARY_FILE: self.vocabulary.to_json()}

    @classmethod
    def restored(cls, chosen: settings.Settings, vocabulary: str, weights: str) -> "Writer":
        """What writes, from what a run kept: its settings, its vocabulary as JSON, the path of its weights."""
        known = Vocabulary.from_json(vocabulary)
        context = chosen.task_as(settings.LanguageModeling).context
        recipe = hydra.utils.get_method(chosen.model.target)
        model = recipe(Tokens(context, len(known)), NextTokenLogits(context, len(known)), **chosen.model.hyperparameters)
        model(np.zeros((1, context), np.int32))
        model.load_weights(weights)
        return Writer(model, known, context)


class Writer:
    """A language model with its vocabulary, which goes on from a prompt.

    Args:
        model: tokens (batch, context) to the logits of what follows each of them.
        vocabulary: what its tokens mean.
        context: tokens that it sees.
    """

    how = dict(decoding.SAMPLING_DEFAULTS)

    def __init__(self, model: keras.Model, vocabulary: Vocabulary, context: int):
        self.model, self.vocabulary, self.context = model, vocabulary, context

    def write(self, prompt: str, number: int, length: int, seed: int, **how: Any) -> list[str]:
        """So many texts of at most `length` tokens after the prompt, the prompt included.

        A text that outgrows the context goes on from its last half, which is read again.

        Args:
            prompt: what they begin with; may be empty.
            number: of texts.
            length: of each, in tokens.
            seed: of what is drawn.
            how: temperature, top_k and top_p of `recipes.decoding.sample`.

        Raises:
            UserError: the prompt holds characters that the model does not know, or leaves no room in the context.
        """
        start = [START, *self.vocabulary.encode(prompt)]
        if UNKNOWN in start:
            strange = sorted({letter for letter in prompt if UNKNOWN in self.vocabulary.encode(letter)})
            raise UserError(f"The model has never seen {' '.join(map(repr, strange))}; leave that out of the prompt.")
        if len(start) >= self.context:
            raise UserError(
                f"The prompt has {len(start) - 1} tokens, and the model sees {self.context} with what it writes; "
                f"type one of at most {self.context - 2} tokens."
            )
        generator = keras.random.SeedGenerator(seed)
        go_on = tf.function(
            lambda window, room: decoding.sample(self.model, window, room, seed=generator, **how), autograph=False
        )
        window = np.tile(np.array(start, np.int32), (number, 1))
        written, wanted = window, len(start) + length
        while written.shape[1] < wanted:
            room = min(self.context, window.shape[1] + wanted - written.shape[1])
            longer = go_on(tf.constant(window), room).numpy()
            written = np.concatenate([written, longer[:, window.shape[1] :]], axis=1)
            window = written[:, -max(self.context // 2, 1) :]
        return [self._text(row) for row in written[:, 1:].tolist()]

    def _text(self, numbers: list[int]) -> str:
        return self.vocabulary.decode(numbers[: numbers.index(END)] if END in numbers else numbers)


def windows(stream: np.ndarray, context: int, every: int | None = None) -> Part:
    """A stream of tokens (n,) as windows (windows, context), and for each token the one after it; the last window is padded.

    Args:
        stream: int32.
        context: tokens of a window.
        every: tokens from one window to the next; None: as many as a window has, so that each is told once.
    """
    every = every or context
    starts = np.arange(0, max(len(stream) - 1, 1), every)
    padded = np.concatenate([stream, np.full(context + 1, PADDING, np.int32)])
    rows = padded[starts[:, None] + np.arange(context + 1)]
    return Part(np.where(rows[:, 1:] == PADDING, PADDING, rows[:, :-1]), rows[:, 1:])


def _pair(first: np.ndarray, second: np.ndarray, size: int) -> np.ndarray:
    return first.astype(np.int64) * size + second


def _logs(share: np.ndarray, part: Part) -> np.ndarray:
    return np.where(part.targets == PADDING, 0.0, np.log(np.maximum(share, 1e-12)))
