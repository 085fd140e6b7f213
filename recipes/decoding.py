"""Decoding: generate a sequence with a model of the next token, by greedy search, beam search or sampling.

The model is a `recipes.specs.StepwiseDecoder`, which predicts one token at a time and caches what it has computed.

References:
    Wu et al.: Google's neural machine translation system. arXiv:1609.08144, 2016. Length penalty of beam search.
    Holtzman, Buys, Du, Forbes, Choi: The curious case of neural text degeneration. ICLR 2020. Sampling with top_p.
"""

from typing import Any

import keras
from keras import KerasTensor, ops

from recipes.specs import END, PADDING, START, StepwiseDecoder

LENGTH_PENALTY = 0.6  # α of Wu et al.: 0 prefers short sequences, 1 compares log-probabilities per token
MINUS_INFINITY = -1e9  # logit of what must not follow

SAMPLING_DEFAULTS: dict[str, Any] = {"temperature": 1.0, "top_k": None, "top_p": 1.0}  # options of `sample`


def greedy(model: StepwiseDecoder, source: KerasTensor, length: int) -> KerasTensor:
    """Generate the likeliest token at each step.

    Args:
        model: of the target, given a source.
        source: (batch, S).
        length: maximum number of tokens, `END` included.

    Returns:
        int32 (batch, length): the target, `END`, and padding.
    """
    batch = ops.shape(source)[0]

    def cond(index: KerasTensor, last: KerasTensor, finished: KerasTensor, tokens: KerasTensor, cache: Any) -> KerasTensor:
        return ops.logical_and(index < length, ops.logical_not(ops.all(finished)))

    def body(
        index: KerasTensor, last: KerasTensor, finished: KerasTensor, tokens: KerasTensor, cache: Any
    ) -> tuple[KerasTensor, ...]:
        logits, cache = model.decode_step(last, index, cache)  # (batch, vocabulary)
        token = ops.where(finished, PADDING, ops.cast(ops.argmax(_filter_logits(logits), axis=-1), "int32"))  # (batch,)
        tokens = ops.where(ops.arange(length)[None] == index, token[:, None], tokens)  # (batch, length)
        return index + 1, token, ops.logical_or(finished, token == END), tokens, cache

    start = ops.full((batch,), START, dtype="int32")
    empty = ops.full((batch, length), PADDING, dtype="int32")
    initial = (ops.convert_to_tensor(0, "int32"), start, start == END, empty, model.init_cache(source, length))
    return ops.while_loop(cond, body, initial)[3]


def beam_search(model: StepwiseDecoder, source: KerasTensor, length: int, beams: int) -> KerasTensor:
    """Generate the likeliest sequence among those that `beams` prefixes, kept at each step, lead to.

    The log-probability of a sequence is divided by ((5 + tokens) / 6)^α, so that long ones are not at a disadvantage (Wu et
    al., equation 14).

    Args:
        model: of the target, given a source.
        source: (batch, S).
        length: maximum number of tokens, `END` included.
        beams: number of prefixes kept; 1 is greedy search.

    Returns:
        int32 (batch, length): the target, `END`, and padding.
    """
    batch = ops.shape(source)[0]
    # Every example `beams` times, one after the other: (batch · beams, …)
    cache = keras.tree.map_structure(lambda x: ops.repeat(x, beams, axis=0), model.init_cache(source, length))

    def cond(
        index: KerasTensor, last: KerasTensor, finished: KerasTensor, tokens: KerasTensor, scores: KerasTensor, cache: Any
    ) -> KerasTensor:
        return ops.logical_and(index < length, ops.logical_not(ops.all(finished)))

    def body(
        index: KerasTensor, last: KerasTensor, finished: KerasTensor, tokens: KerasTensor, scores: KerasTensor, cache: Any
    ) -> tuple[KerasTensor, ...]:
        logits, new_cache = model.decode_step(ops.reshape(last, (-1,)), index, cache)  # (batch · beams, vocabulary)
        vocabulary = logits.shape[-1]
        logs = ops.log_softmax(_filter_logits(ops.cast(logits, "float32")), axis=-1)
        logs = ops.reshape(logs, (-1, beams, vocabulary))  # (batch, beams, vocabulary)
        padding = ops.where(ops.arange(vocabulary) == PADDING, 0.0, MINUS_INFINITY)  # nothing else follows `END`
        logs = ops.where(finished[:, :, None], padding, logs)
        # The best `beams` of all continuations of all beams
        total = ops.reshape(scores[:, :, None] + logs, (-1, beams * vocabulary))  # (batch, beams · vocabulary)
        scores, best = ops.top_k(total, beams)  # (batch, beams)
        beam, token = best // vocabulary, ops.cast(best % vocabulary, "int32")  # (batch, beams)
        # Reorder all state by the beams that were continued. What no step changes, the encoded source, is equal in all beams.
        rows = ops.reshape(ops.arange(batch)[:, None] * beams + ops.cast(beam, "int32"), (-1,))  # (batch · beams,)
        cache = keras.tree.map_structure(lambda old, new: old if new is old else ops.take(new, rows, axis=0), cache, new_cache)
        tokens = ops.take(ops.reshape(tokens, (-1, length)), rows, axis=0)  # (batch · beams, length)
        tokens = ops.reshape(tokens, (-1, beams, length))  # (batch, beams, length)
        tokens = ops.where(ops.arange(length) == index, token[:, :, None], tokens)
        finished = ops.take(ops.reshape(finished, (-1,)), rows, axis=0)  # (batch · beams,)
        finished = ops.reshape(finished, (-1, beams))  # (batch, beams)
        return index + 1, token, ops.logical_or(finished, token == END), tokens, scores, cache

    start = ops.full((batch, beams), START, dtype="int32")
    empty = ops.full((batch, beams, length), PADDING, dtype="int32")
    # All beams are alike at first: only the first one counts.
    scores = ops.tile(ops.where(ops.arange(beams) == 0, 0.0, MINUS_INFINITY)[None], (batch, 1))  # (batch, beams)
    initial = (ops.convert_to_tensor(0, "int32"), start, start == END, empty, scores, cache)
    _, _, _, tokens, scores, _ = ops.while_loop(cond, body, initial)
    count = ops.cast(ops.sum(ops.cast(tokens != PADDING, "int32"), axis=-1), "float32")  # (batch, beams)
    best = ops.argmax(scores / ((5 + count) / 6) ** LENGTH_PENALTY, axis=-1)  # (batch,)
    return ops.take_along_axis(tokens, best[:, None, None], axis=1)[:, 0]


def sample(
    model: keras.Model, prompt: KerasTensor, length: int, *, seed: keras.random.SeedGenerator | int,
    temperature: float | KerasTensor = 1.0, top_k: int | KerasTensor | None = None, top_p: float | KerasTensor = 1.0,
    allowed: tuple[int, int | None] = (END, None), stop: KerasTensor | None = None,
) -> KerasTensor:  # fmt: skip
    """Continue a prompt, sampling each token from the predicted distribution.

    The options are numbers, or scalar tensors where one graph has to serve all their values.

    Args:
        model: a language model: a `StepwiseDecoder`, or any from tokens (batch, T) to the logits of the next tokens.
        prompt: int32 (batch, P), 1 ≤ P ≤ length, without padding.
        length: maximum number of tokens, the prompt and `END` included.
        seed: of the random numbers.
        temperature: divides the logits; 0 takes the likeliest token.
        top_k: sample among the `top_k` likeliest tokens.
        top_p: sample among the fewest likeliest tokens that together have this probability (Holtzman et al.).
        allowed: the first token id that may be sampled, and the first id after those that may (None: the last may). The default
            excludes padding, unknown words and a second start.
        stop: number of tokens, at most `length`, after which no more are sampled; None: `length`.

    Returns:
        int32 (batch, length): the prompt, its continuation, `END` if it was sampled, and padding.
    """
    seed = keras.random.SeedGenerator(seed) if isinstance(seed, int) else seed
    decoder = model if isinstance(model, StepwiseDecoder) else UncachedDecoder(model)
    batch, prompt_length = ops.shape(prompt)
    prompt = ops.cast(prompt, "int32")

    def cond(index: KerasTensor, finished: KerasTensor, tokens: KerasTensor, cache: Any) -> KerasTensor:
        return ops.logical_and(index < (length if stop is None else stop) - 1, ops.logical_not(ops.all(finished)))

    def body(index: KerasTensor, finished: KerasTensor, tokens: KerasTensor, cache: Any) -> tuple[KerasTensor, ...]:
        logits, cache = decoder.decode_step(ops.take(tokens, index, axis=1), index, cache)  # (batch, vocabulary)
        token = sample_token(_filter_logits(ops.cast(logits, "float32"), *allowed), seed, temperature, top_k, top_p)  # (batch,)
        token = ops.where(finished, PADDING, token)
        after_prompt = index + 1 >= prompt_length  # before, the token is given
        tokens = ops.where(ops.logical_and(ops.arange(length)[None] == index + 1, after_prompt), token[:, None], tokens)
        ended = ops.logical_and(token == END, after_prompt)
        return index + 1, ops.logical_or(finished, ended), tokens, cache

    tokens = ops.concatenate([prompt, ops.full((batch, length - prompt_length), PADDING, dtype="int32")], axis=1)
    initial = (ops.convert_to_tensor(0, "int32"), ops.zeros((batch,), "bool"), tokens, decoder.init_cache(batch, length))
    return ops.while_loop(cond, body, initial)[2]


class UncachedDecoder(StepwiseDecoder):
    """Decode with a language model that has no cache: for each token, it reads all tokens before it again.

    Args:
        model: tokens (batch, T) to the logits of the token after each of them (batch, T, vocabulary).
    """

    def __init__(self, model: keras.Model):
        self.model = model

    def init_cache(self, context: int | KerasTensor, length: int) -> KerasTensor:
        """The tokens so far, for a batch of `context` sequences: none."""
        return ops.full((context, length), PADDING, dtype="int32")

    def decode_step(self, token: KerasTensor, index: KerasTensor, cache: KerasTensor) -> tuple[KerasTensor, KerasTensor]:
        """The token (batch,) at position `index` to the logits of the next one (batch, vocabulary), and the tokens so far."""
        tokens = ops.where(ops.arange(cache.shape[1])[None] == index, token[:, None], cache)  # (batch, length)
        return ops.take(self.model(tokens, training=False), index, axis=1), tokens


def sample_token(
    logits: KerasTensor,
    seed: keras.random.SeedGenerator | int,
    temperature: float | KerasTensor = 1.0,
    top_k: int | KerasTensor | None = None,
    top_p: float | KerasTensor = 1.0,
) -> KerasTensor:
    """Sample tokens int32 (batch,) from logits (batch, vocabulary); arguments as in `sample`."""
    likeliest = ops.cast(ops.argmax(logits, axis=-1), "int32")
    if _is_number(temperature, 0):
        return likeliest
    logits = logits / (ops.where(temperature == 0, 1.0, temperature) if ops.is_tensor(temperature) else temperature)
    if top_k is not None and (ops.is_tensor(top_k) or top_k < logits.shape[-1]):
        descending = ops.flip(ops.sort(logits, axis=-1), axis=-1)
        smallest = ops.take(descending, ops.minimum(top_k, logits.shape[-1]) - 1, axis=-1)[:, None]  # that is kept, (batch, 1)
        logits = ops.where(logits < smallest, MINUS_INFINITY, logits)
    if not _is_number(top_p, 1):
        descending = ops.flip(ops.sort(logits, axis=-1), axis=-1)
        p = ops.softmax(descending, axis=-1)
        before = ops.cumsum(p, axis=-1) - p  # probability of all likelier tokens
        count = ops.sum(ops.cast(before < top_p, "int32"), axis=-1, keepdims=True)  # (batch, 1), at least 1
        smallest = ops.take_along_axis(descending, count - 1, axis=-1)  # (batch, 1)
        # A tensor may be 1: nothing is left out then, though the sum of all probabilities is rounded.
        logits = ops.where(ops.logical_and(top_p < 1, logits < smallest), MINUS_INFINITY, logits)
    token = ops.cast(keras.random.categorical(logits, 1, seed=seed)[:, 0], "int32")
    return ops.where(temperature == 0, likeliest, token) if ops.is_tensor(temperature) else token


def _is_number(option: float | KerasTensor, value: float) -> bool:
    """Whether an option is a number with this value; of a tensor that is not known before the graph runs."""
    return not ops.is_tensor(option) and option == value


def _filter_logits(logits: KerasTensor, first: int = END, end: int | None = None) -> KerasTensor:
    """Logits (batch, vocabulary) in which only the tokens from `first` up to `end` (exclusive; None: all) can follow."""
    ids = ops.arange(logits.shape[-1])
    outside = ops.logical_or(ids < first, ids >= (logits.shape[-1] if end is None else end))
    return ops.where(outside, ops.cast(MINUS_INFINITY, logits.dtype), logits)
