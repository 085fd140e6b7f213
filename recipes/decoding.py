"""Writing a sequence with a model that gives the logits of the next token: greedily, by beam search, or by drawing.

The model has two methods. `begin(source, length)` reads what is to be answered and gives a state, tensors in any nesting with
the batch as first axis; a language model, which answers nothing, has `begin(batch, length)`. `step(token, index, state)` takes
the tokens (batch,) at position `index` and gives the logits (batch, vocabulary) of those that follow, and the new state.
"""

from typing import Any

import keras
from keras import KerasTensor, ops

from recipes.kinds import END, PADDING, START

LENGTH_PENALTY = 0.6  # α of Wu et al. 2016: 0 prefers short answers, 1 compares log-probabilities per token
NEVER = -1e9


def greedy(model: keras.Model, source: KerasTensor, length: int) -> KerasTensor:
    """The likeliest token at each step.

    Args:
        model: with `begin` and `step`.
        source: (batch, S).
        length: tokens at most, `END` included.

    Returns:
        int32 (batch, length): `END` closes an answer, padding follows.
    """
    batch = ops.shape(source)[0]

    def unfinished(
        index: KerasTensor, last: KerasTensor, finished: KerasTensor, written: KerasTensor, state: Any
    ) -> KerasTensor:
        return ops.logical_and(index < length, ops.logical_not(ops.all(finished)))

    def write(
        index: KerasTensor, last: KerasTensor, finished: KerasTensor, written: KerasTensor, state: Any
    ) -> tuple[KerasTensor, ...]:
        logits, state = model.step(last, index, state)
        token = ops.where(finished, PADDING, ops.cast(ops.argmax(_allowed(logits), axis=-1), "int32"))
        written = ops.where(ops.arange(length)[None] == index, token[:, None], written)
        return index + 1, token, ops.logical_or(finished, token == END), written, state

    start = ops.full((batch,), START, dtype="int32")
    empty = ops.full((batch, length), PADDING, dtype="int32")
    first = (ops.convert_to_tensor(0, "int32"), start, start == END, empty, model.begin(source, length))
    return ops.while_loop(unfinished, write, first)[3]


def beam_search(model: keras.Model, source: KerasTensor, length: int, beams: int) -> KerasTensor:
    """The likeliest of the answers that `beams` partial answers, kept at each step, lead to.

    An answer's log-probability is divided by ((5 + tokens) / 6)^α, so that long ones are not at a disadvantage (Wu et al.:
    Google's neural machine translation system, arXiv:1609.08144, 2016, equation 14).

    Args:
        model: with `begin` and `step`.
        source: (batch, S).
        length: tokens at most, `END` included.
        beams: answers kept; 1 is greedy.

    Returns:
        int32 (batch, length): `END` closes an answer, padding follows.
    """
    batch = ops.shape(source)[0]
    state = keras.tree.map_structure(lambda x: ops.repeat(x, beams, axis=0), model.begin(source, length))

    def unfinished(
        index: KerasTensor, last: KerasTensor, finished: KerasTensor, written: KerasTensor, scores: KerasTensor, state: Any
    ) -> KerasTensor:
        return ops.logical_and(index < length, ops.logical_not(ops.all(finished)))

    def write(
        index: KerasTensor, last: KerasTensor, finished: KerasTensor, written: KerasTensor, scores: KerasTensor, state: Any
    ) -> tuple[KerasTensor, ...]:
        logits, state = model.step(ops.reshape(last, (-1,)), index, state)
        vocabulary = logits.shape[-1]
        logs = ops.reshape(ops.log_softmax(_allowed(ops.cast(logits, "float32")), axis=-1), (-1, beams, vocabulary))
        nothing = ops.where(ops.arange(vocabulary) == PADDING, 0.0, NEVER)  # all that can follow an end
        logs = ops.where(finished[:, :, None], nothing, logs)
        total = ops.reshape(scores[:, :, None] + logs, (-1, beams * vocabulary))
        scores, chosen = ops.top_k(total, beams)  # (batch, beams)
        beam, token = chosen // vocabulary, ops.cast(chosen % vocabulary, "int32")
        rows = ops.reshape(ops.arange(batch)[:, None] * beams + ops.cast(beam, "int32"), (-1,))
        state = keras.tree.map_structure(lambda x: ops.take(x, rows, axis=0), state)
        written = ops.reshape(ops.take(ops.reshape(written, (-1, length)), rows, axis=0), (-1, beams, length))
        written = ops.where(ops.arange(length) == index, token[:, :, None], written)
        finished = ops.reshape(ops.take(ops.reshape(finished, (-1,)), rows, axis=0), (-1, beams))
        return index + 1, token, ops.logical_or(finished, token == END), written, scores, state

    start = ops.full((batch, beams), START, dtype="int32")
    empty = ops.full((batch, beams, length), PADDING, dtype="int32")
    scores = ops.tile(ops.where(ops.arange(beams) == 0, 0.0, NEVER)[None], (batch, 1))  # all beams are alike at first
    first = (ops.convert_to_tensor(0, "int32"), start, start == END, empty, scores, state)
    _, _, _, written, scores, _ = ops.while_loop(unfinished, write, first)
    tokens = ops.cast(ops.sum(ops.cast(written != PADDING, "int32"), axis=-1), "float32")
    best = ops.argmax(scores / ((5 + tokens) / 6) ** LENGTH_PENALTY, axis=-1)
    return ops.take_along_axis(written, best[:, None, None], axis=1)[:, 0]


def sample(
    model: keras.Model, prompt: KerasTensor, length: int, *, seed: keras.random.SeedGenerator | int,
    temperature: float = 1.0, top_k: int | None = None, top_p: float = 1.0, allowed: tuple[int, int | None] = (END, None),
) -> KerasTensor:  # fmt: skip
    """Goes on from a prompt, each token drawn from what the model thinks comes next.

    Args:
        model: a language model, with `begin` and `step` (a cache) or without.
        prompt: int32 (batch, P), 1 ≤ P ≤ length, without padding.
        length: tokens at most, the prompt and `END` included.
        seed: of the draws.
        temperature: logits are divided by it; 0 takes the likeliest token.
        top_k: draws from so many likeliest tokens alone.
        top_p: draws from the fewest likeliest tokens that together have this probability (Holtzman et al.: The curious case of
            neural text degeneration. ICLR 2020).
        allowed: the first token that may be drawn, and the first one after it that may not. No text holds padding, an unknown
            word, or a second start.

    Returns:
        int32 (batch, length): the prompt, what follows, `END` if it came, and padding.
    """
    seed = keras.random.SeedGenerator(seed) if isinstance(seed, int) else seed
    model = model if hasattr(model, "step") else Rereading(model)
    batch, given = ops.shape(prompt)
    prompt = ops.cast(prompt, "int32")

    def unfinished(index: KerasTensor, finished: KerasTensor, written: KerasTensor, state: Any) -> KerasTensor:
        return ops.logical_and(index < length - 1, ops.logical_not(ops.all(finished)))

    def write(index: KerasTensor, finished: KerasTensor, written: KerasTensor, state: Any) -> tuple[KerasTensor, ...]:
        logits, state = model.step(ops.take(written, index, axis=1), index, state)
        token = draw(_allowed(ops.cast(logits, "float32"), *allowed), seed, temperature, top_k, top_p)
        token = ops.where(finished, PADDING, token)
        there = ops.logical_and(ops.arange(length)[None] == index + 1, index + 1 >= given)
        written = ops.where(there, token[:, None], written)
        ended = ops.logical_and(token == END, index + 1 >= given)
        return index + 1, ops.logical_or(finished, ended), written, state

    written = ops.concatenate([prompt, ops.full((batch, length - given), PADDING, dtype="int32")], axis=1)
    first = (ops.convert_to_tensor(0, "int32"), ops.zeros((batch,), "bool"), written, model.begin(batch, length))
    return ops.while_loop(unfinished, write, first)[2]


class Rereading:
    """A language model without `begin` and `step`, made to write: for each token it reads all that came before again.

    Args:
        model: tokens (batch, T) to the logits of what follows each of them (batch, T, vocabulary).
    """

    def __init__(self, model: keras.Model):
        self.model = model

    def begin(self, batch: int | KerasTensor, length: int) -> KerasTensor:
        """Nothing is written yet."""
        return ops.full((batch, length), PADDING, dtype="int32")

    def step(self, token: KerasTensor, index: KerasTensor, state: KerasTensor) -> tuple[KerasTensor, KerasTensor]:
        """The token (batch,) at position `index` to the next one's logits, and all tokens up to now."""
        state = ops.where(ops.arange(state.shape[1])[None] == index, token[:, None], state)
        return ops.take(self.model(state, training=False), index, axis=1), state


def draw(
    logits: KerasTensor,
    seed: keras.random.SeedGenerator | int,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float = 1.0,
) -> KerasTensor:
    """Tokens int32 (batch,) drawn from logits (batch, vocabulary); arguments as in `sample`."""
    if temperature == 0:
        return ops.cast(ops.argmax(logits, axis=-1), "int32")
    logits = logits / temperature
    if top_k is not None and top_k < logits.shape[-1]:
        least = ops.top_k(logits, top_k)[0][:, -1:]
        logits = ops.where(logits < least, NEVER, logits)
    if top_p < 1:
        falling = ops.flip(ops.sort(logits, axis=-1), axis=-1)
        before = ops.cumsum(ops.softmax(falling, axis=-1), axis=-1) - ops.softmax(falling, axis=-1)
        kept = ops.sum(ops.cast(before < top_p, "int32"), axis=-1, keepdims=True)  # at least one
        least = ops.take_along_axis(falling, kept - 1, axis=-1)
        logits = ops.where(logits < least, NEVER, logits)
    return ops.cast(keras.random.categorical(logits, 1, seed=seed)[:, 0], "int32")


def _allowed(logits: KerasTensor, first: int = END, end: int | None = None) -> KerasTensor:
    """Logits that rule out all tokens but those from `first` up to `end`: with none given, what no answer holds."""
    ids = ops.arange(logits.shape[-1])
    outside = ops.logical_or(ids < first, ids >= (logits.shape[-1] if end is None else end))
    return ops.where(outside, ops.cast(NEVER, logits.dtype), logits)
