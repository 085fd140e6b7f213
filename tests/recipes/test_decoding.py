"""Greedy and beam search on models whose best sequence can be computed."""

import itertools
import math

import keras
import numpy as np
import pytest

from recipes import decoding
from recipes.specs import END, PADDING, START, StepwiseDecoder

A, B, C = 4, 5, 6


class Table(StepwiseDecoder):
    """A model whose next token depends on the last one alone: {token: {next: probability}}, for each example."""

    def __init__(self, tables):
        self.logs = np.full((len(tables), 7, 7), -30.0, np.float32)
        for n, table in enumerate(tables):
            for last, following in table.items():
                for token, probability in following.items():
                    self.logs[n, last, token] = math.log(probability)

    def init_cache(self, source, length):
        return {"row": keras.ops.convert_to_tensor(source[:, 0])}

    def decode_step(self, token, index, cache):
        rows = keras.ops.convert_to_tensor(self.logs.reshape(-1, 7))
        return keras.ops.take(rows, keras.ops.cast(cache["row"], "int32") * 7 + token, axis=0), cache

    def log_probability(self, row, tokens):
        return sum(self.logs[row, last, token] for last, token in zip((START, *tokens), tokens))


TRAP = {
    START: {A: 0.6, B: 0.4},
    A: {A: 0.35, B: 0.35, END: 0.3},
    B: {C: 1.0},
    C: {END: 1.0},
}  # A is likelier, and leads nowhere
PLAIN = {START: {A: 1.0}, A: {B: 0.9, END: 0.1}, B: {END: 0.9, A: 0.1}}
MODEL, SOURCE = Table([TRAP, PLAIN]), np.array([[0], [1]])


def test_greedy_decoding_takes_the_most_likely_token_and_stops_at_the_end():
    decoded = keras.ops.convert_to_numpy(decoding.greedy(MODEL, SOURCE, 5))
    assert decoded[1].tolist() == [A, B, END, PADDING, PADDING]
    assert decoded[0, 0] == A


def test_one_beam_equals_greedy_decoding():
    np.testing.assert_array_equal(decoding.beam_search(MODEL, SOURCE, 5, 1), decoding.greedy(MODEL, SOURCE, 5))


def test_beam_search_finds_better_sequences_than_greedy_decoding():
    decoded = keras.ops.convert_to_numpy(decoding.beam_search(MODEL, SOURCE, 5, 3))
    assert decoded.tolist() == [[B, C, END, PADDING, PADDING], [A, B, END, PADDING, PADDING]]


@pytest.mark.parametrize("seed", range(3))
def test_wide_beam_search_finds_the_best_sequence(seed):
    draw = np.random.default_rng(seed)
    table = {last: dict(zip((END, A, B, C), draw.dirichlet([1] * 4))) for last in (START, A, B, C)}
    model, length = Table([table]), 3
    answers = []
    for size in range(length + 1):
        for tokens in itertools.product((A, B, C), repeat=size):
            full = (*tokens, END) if size < length else tokens
            answers.append((model.log_probability(0, full) / ((5 + len(full)) / 6) ** 0.6, full))
    best = max(answers)[1]
    decoded = keras.ops.convert_to_numpy(decoding.beam_search(model, np.array([[0]]), length, 27))
    assert tuple(token for token in decoded[0] if token != PADDING) == best


def test_special_tokens_are_never_generated():
    class Wrong(Table):
        def decode_step(self, token, index, cache):
            logits, cache = super().decode_step(token, index, cache)
            return keras.ops.concatenate([keras.ops.ones_like(logits[:, :3]) * 50, logits[:, 3:]], axis=1), cache

    wrong = Wrong([TRAP, PLAIN])
    np.testing.assert_array_equal(decoding.greedy(wrong, SOURCE, 5), decoding.greedy(MODEL, SOURCE, 5))
    np.testing.assert_array_equal(decoding.beam_search(wrong, SOURCE, 5, 3), decoding.beam_search(MODEL, SOURCE, 5, 3))
