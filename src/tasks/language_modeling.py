"""Language modeling: prediction of the next token of texts."""

import math
from collections.abc import Callable, Mapping
from itertools import repeat
from types import MappingProxyType
from typing import Any

import hydra.utils
import keras
import numpy as np
import tensorflow as tf
from keras import ops
from numpy.lib.stride_tricks import sliding_window_view

from recipes import decoding
from recipes.specs import PADDING, UNKNOWN, NextTokenLogits, Tokens
from src import terminal
from src.config.schema import Settings
from src.config.tasks import LanguageModelingSettings
from src.datasets import Data, Split, pipeline
from src.errors import UserError
from src.tasks.base import Figures, Generative, Metrics, Task
from src.tasks.baselines import language as methods
from src.tasks.baselines.interface import Baselines, Prediction, join_notes, sample_note
from src.tasks.losses import TokenAccuracy, TokenCrossentropy
from src.tasks.serving import DEFAULT_FUNCTION, SAMPLING_PARAMS, SAMPLING_SIGNATURE, STATE, RandomState, Serving, batch_spec
from src.tasks.text_classification import check_texts
from src.tasks.tokenizers import Tokenizer, training_texts

VOCABULARY_FILE = "vocabulary.json"
SAMPLES, SAMPLE_TOKENS = 4, 300  # texts in a figure, and tokens of each
SERVED_TOKENS, EXAMPLE_TOKENS = 300, 20  # that a served model generates, and those of its example
SEPARATOR = f"\n{'-' * 40}\n"  # between sampled texts


class LanguageModeling(Task, Generative):
    """Prediction of each token from those before it, in windows over the concatenated texts.

    Predictions are log-likelihoods in nats (windows, context) of the targets, 0 for padding.
    """

    units = {"nll": "nats"}
    ARTIFACT = VOCABULARY_FILE

    def __init__(self, settings: LanguageModelingSettings, data: Data, tokenizer: Tokenizer | None = None):
        for name in ("train", "validation", "test"):
            check_texts(getattr(data, name).raw_inputs, f"the {name} split of dataset={data.name}")
        self.settings = settings
        if tokenizer is None:
            size = settings.vocabulary_size if settings.tokenizer == "bpe" else None  # a language model knows every character
            tokenizer = Tokenizer.train(training_texts(data.train.raw_inputs, settings.tokenizer), settings.tokenizer, size)
        self.tokenizer = tokenizer.configure(start=True, end=True)
        context = settings.context
        streams = [self.tokenizer.encode_stream(split.raw_inputs, padding=context) for split in data.splits.values()]
        # Training windows overlap by half: each token is predicted once from a short context, and once from a longer one.
        self.training_stride = max(context // 2, 1)
        self.train, self.validation, self.test = map(
            windows, streams, repeat(context), (self.training_stride, context, context)
        )
        self.inputs = Tokens(settings.context, len(self.tokenizer))
        self.outputs = NextTokenLogits(settings.context, len(self.tokenizer))

    def wrap(self, network: keras.Model) -> keras.Model:
        return network

    def loss(self) -> keras.losses.Loss:
        return TokenCrossentropy(self.settings.context)

    def training_metrics(self, model: keras.Model) -> list[keras.metrics.Metric]:
        return [TokenAccuracy(name="token_accuracy")]

    def predict(self, model: keras.Model, split: Split, batch_size: int) -> np.ndarray:
        @tf.function(reduce_retracing=True)
        def log_likelihoods(inputs: tf.Tensor, targets: tf.Tensor) -> tf.Tensor:
            log_probabilities = ops.log_softmax(ops.cast(model(inputs, training=False), "float32"), axis=-1)
            values = ops.take_along_axis(log_probabilities, ops.cast(targets, "int32")[..., None], axis=-1)[..., 0]
            return ops.where(ops.equal(targets, PADDING), 0.0, values)

        batches = pipeline.evaluation(split, batch_size)
        shown = terminal.track(batches, -(-len(split) // batch_size))
        return np.concatenate([log_likelihoods(inputs, targets).numpy() for inputs, targets, _ in shown])[: len(split)]

    def metrics(self, split: Split, predictions: np.ndarray) -> Metrics:
        """Nats per token, perplexity, and bits per character, which can be compared between tokenizations."""
        nats = -float(predictions.sum(dtype=np.float64))
        tokens = int((split.targets != PADDING).sum())
        characters = int(self.tokenizer.character_counts[split.targets].sum())
        return {
            "nll": nats / tokens,
            "perplexity": math.exp(nats / tokens),
            "bits_per_character": nats / math.log(2) / max(characters, 1),
        }

    def example_results(self, split: Split, predictions: np.ndarray) -> dict[str, np.ndarray]:
        """A row for each window: its negative log-likelihood in nats, and its numbers of tokens and characters."""
        return {
            "nats": -predictions.sum(axis=1, dtype=np.float64),
            "tokens": (split.targets != PADDING).sum(axis=1),
            "characters": self.tokenizer.character_counts[split.targets].sum(axis=1),
        }

    def baselines(self) -> Baselines:
        """They see all tokens before the one that they predict, also those before its window."""
        return {"unigram": self._unigram, "kneser_ney": self._kneser_ney}

    def baseline_dependencies(self) -> tuple[str, ...]:
        return (self.tokenizer.to_json(),)

    def _training_stream(self) -> tuple[np.ndarray, str]:
        """The tokens whose n-grams are counted, and a note if they are not all."""
        stride = self.training_stride
        used = unroll(self.train.take(-(-methods.MAX_TOKENS // stride)), stride)[: methods.MAX_TOKENS]
        count = (len(self.train) - 1) * stride + int((self.train.targets[-1] != PADDING).sum()) + 1
        return used, sample_note(len(used), count, "tokens")

    def _unigram(self) -> Prediction:
        stream, note = self._training_stream()
        tokens = unroll(self.test)[1:]
        return Prediction(self._log_likelihoods(methods.unigrams(stream[1:], tokens, len(self.tokenizer))), note)

    def _kneser_ney(self) -> Prediction:
        """Of the order with the smallest perplexity of the validation set."""
        stream, note = self._training_stream()
        n_grams, validation = methods.NGrams(stream, len(self.tokenizer)), unroll(self.validation)
        orders = range(1, methods.MAX_ORDER + 1)
        order = max(orders, key=lambda order: np.log(n_grams.kneser_ney(validation, order)[1:]).sum())
        probabilities = n_grams.kneser_ney(unroll(self.test), order)[1:]
        return Prediction(self._log_likelihoods(probabilities), join_notes(f"n = {order}", note))

    def _log_likelihoods(self, probabilities: np.ndarray) -> np.ndarray:
        """Predictions for the test set from the probabilities of its tokens (tokens,)."""
        predictions = np.zeros(self.test.targets.shape)
        predictions[self.test.targets != PADDING] = np.log(probabilities)
        return predictions

    def serving(self, model: keras.Model) -> Serving:
        """Texts to `text`, their continuations; and the probabilities of the token after them."""
        random_state, context = RandomState(), self.settings.context

        def generate(inputs: tf.Tensor, state: tf.Tensor, stop: tf.Tensor, **options: tf.Tensor) -> dict:
            random_state.set(state)
            token_ids = decoding.sample(model, inputs, context, seed=random_state.seed, stop=stop, **options)
            return {"token_ids": token_ids, "state": random_state.get()}

        def next_token(inputs: tf.Tensor) -> dict:
            """Token ids (batch, context) to `probability` (batch, vocabulary) of the token after the last one."""
            last = ops.maximum(ops.sum(ops.cast(ops.not_equal(inputs, PADDING), "int32"), axis=1) - 1, 0)
            logits = ops.take_along_axis(model(inputs, training=False), last[:, None, None], axis=1)[:, 0]
            return {"probability": ops.softmax(ops.cast(logits, "float32"))}

        signature = {"inputs": tf.TensorSpec((None, None), tf.int32), "state": STATE, "stop": tf.TensorSpec((), tf.int32)}
        return Serving(
            "TextGenerator",
            {
                DEFAULT_FUNCTION: (generate, signature | SAMPLING_SIGNATURE),
                "next_token": (next_token, {"inputs": batch_spec(self.train.array)}),
            },
            [model, random_state], example=[self._prompt()], outputs={"text": ("object", ())}, settings={"context": context},
            params={"length": SERVED_TOKENS, "seed": 0, **SAMPLING_PARAMS, "number": 1, "probabilities": False},
            example_params={"length": EXAMPLE_TOKENS}, input_tokenizer=self.tokenizer,
        )  # fmt: skip

    def _prompt(self) -> str:
        """The beginning of the first training text, of at most half a context: the vocabulary has all its characters."""
        length = self.settings.context // 2
        text = self.tokenizer.decode(self.train.array[:1, :length])[0].rstrip("\ufffd")  # half a character
        while len(self.tokenizer.encode_prompt(text)) > length and text:
            text = text[:-1]
        return text

    def figures(
        self, model: keras.Model, predictions: np.ndarray, baselines: Mapping[str, np.ndarray] = MappingProxyType({})
    ) -> Figures:
        return {"samples.txt": f"{SAMPLES} uncurated samples\n\n{self.samples(model)}"}

    def samples(self, model: keras.Model) -> str:
        """Texts that a model generates without a prompt."""
        generator = TextGenerator(model, self.tokenizer, self.settings.context)
        return SEPARATOR.join(generator.generate("", SAMPLES, SAMPLE_TOKENS, seed=0))

    def preview(self, model: keras.Model) -> tuple[Metrics, Callable[[], Figures]]:
        return {}, lambda: {"samples.txt": self.samples(model)}

    def artifacts(self) -> dict[str, str]:
        return {VOCABULARY_FILE: self.tokenizer.to_json()}

    @classmethod
    def from_run(cls, settings: Settings, tokenizer: str, load_weights: Callable[[keras.Model], None]) -> "TextGenerator":
        """Restore the text generator of a run.

        Args:
            settings: of the run.
            tokenizer: content of its `VOCABULARY_FILE`.
            load_weights: function that loads the weights of that run into the model.
        """
        restored = Tokenizer.from_json(tokenizer)
        context = settings.task_as(LanguageModelingSettings).context
        build = hydra.utils.get_method(settings.model.target)
        inputs, outputs = Tokens(context, len(restored)), NextTokenLogits(context, len(restored))
        model = build(inputs, outputs, **settings.model.hyperparameters)
        model(np.zeros((1, context), np.int32))  # creates the weights
        load_weights(model)
        return TextGenerator(model, restored, context)


class TextGenerator:
    """A language model with its tokenizer, which continues a prompt.

    Args:
        model: token ids (batch, context) to the logits of the token that follows each.
        tokenizer: of the model.
        context: length of the context in tokens.

    Attributes:
        defaults: {option: default} of sampling.
    """

    defaults = dict(decoding.SAMPLING_DEFAULTS)

    def __init__(self, model: keras.Model, tokenizer: Tokenizer, context: int):
        self.model, self.tokenizer, self.context = model, tokenizer, context

    def generate(self, prompt: str, number: int, length: int, seed: int, **options: Any) -> list[str]:
        """Generate texts that begin with the prompt and have at most `length` tokens after it.

        When a text outgrows the context, its last half context becomes the new prompt.

        Args:
            prompt: beginning of the texts; may be empty.
            number: number of texts.
            length: tokens of each text after the prompt.
            seed: of sampling.
            options: temperature, top_k and top_p of `recipes.decoding.sample`.

        Raises:
            UserError: the prompt holds characters that are not in the vocabulary, or is too long for the context.
        """
        prompt_tokens = self.tokenizer.encode_prompt(prompt)
        if UNKNOWN in prompt_tokens:
            unknown = sorted({letter for letter in prompt if UNKNOWN in self.tokenizer.encode_prompt(letter)})
            raise UserError(
                f"The vocabulary of the model does not have {' '.join(map(repr, unknown))}; leave it out of the prompt."
            )
        if len(prompt_tokens) >= self.context:
            raise UserError(
                f"The prompt has {len(prompt_tokens) - 1} tokens, and the context of the model {self.context}, with what it "
                f"generates; type a prompt of at most {self.context - 2} tokens."
            )
        seed_generator = keras.random.SeedGenerator(seed)
        sample = tf.function(
            lambda window, length: decoding.sample(self.model, window, length, seed=seed_generator, **options), autograph=False
        )
        window = np.tile(np.array(prompt_tokens, np.int32), (number, 1))
        tokens, total = window, len(prompt_tokens) + length
        while tokens.shape[1] < total:
            sampled = sample(tf.constant(window), min(self.context, window.shape[1] + total - tokens.shape[1])).numpy()
            tokens = np.concatenate([tokens, sampled[:, window.shape[1] :]], axis=1)
            window = tokens[:, -max(self.context // 2, 1) :]
        return self.tokenizer.decode(tokens)


def windows(stream: np.ndarray, context: int, stride: int) -> Split:
    """Windows (windows, context) of a stream of tokens, with the next token of each token as its target; views of the stream.

    Args:
        stream: token ids int32 (n + context,), the last `context` of which are PADDING.
        context: tokens in a window.
        stride: tokens from the start of a window to that of the next.
    """
    count = -(-max(len(stream) - context - 1, 1) // stride)
    rows = sliding_window_view(stream, context + 1)[::stride][:count]
    return Split(rows[:, :-1], rows[:, 1:])


def unroll(split: Split, stride: int | None = None) -> np.ndarray:
    """The stream (n,) that windows with a stride were cut from; None: they do not overlap."""
    targets = split.targets if stride is None else split.targets[:, :stride]
    joined = np.concatenate([split.array[0, :1], targets[:-1].ravel(), split.targets[-1]])
    return joined[joined != PADDING]
