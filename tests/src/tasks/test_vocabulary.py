"""Vocabularies of characters, bytes and byte pairs lose nothing, and count characters."""

import numpy as np
import pytest

from recipes.specs import END, START, UNKNOWN
from src.tasks.tokenizers import SPECIAL, Vocabulary

TEXTS = ["the cat sat on the mat\n", "the hat — 我喜欢吃苹果", "naïve 😀 <|end|> the"]


@pytest.mark.parametrize("tokens", ["character", "byte", "bpe"])
def test_decoding_restores_texts(tokens):
    vocabulary = Vocabulary.from_texts(TEXTS, tokens, 300)
    restored = Vocabulary.from_json(vocabulary.to_json())
    for text in TEXTS:
        token_ids = vocabulary.encode(text)
        assert min(token_ids) >= len(SPECIAL)  # also where a text holds the name of a special token
        assert vocabulary.decode(token_ids) == text
        assert restored.encode(text) == token_ids
        assert vocabulary.character_counts[token_ids].sum() == len(text)
    assert [vocabulary.tokenizer.id_to_token(token_id) for token_id in range(4)] == SPECIAL


def test_vocabulary_sizes():
    assert len(Vocabulary.from_texts(["abca"], "character", 0)) == 4 + 3
    assert len(Vocabulary.from_texts(["abca"], "byte", 0)) == 4 + 256
    assert len(Vocabulary.from_texts(TEXTS, "bpe", 270)) == 270
    assert Vocabulary.from_texts(["abca"], "byte", 0).encode("é") == Vocabulary.from_texts(["x"], "byte", 0).encode("é")
    assert len(Vocabulary.from_texts(TEXTS, "byte", 0).encode("é")) == 2
    assert len(Vocabulary.from_texts(["the the the the"], "bpe", 270).encode("the")) == 1  # the most frequent pairs are joined


def test_unknown_characters_are_unknown_tokens_and_bytes_never_are():
    assert Vocabulary.from_texts(["abc"], "character", 0).encode("aéc")[1] == UNKNOWN
    assert UNKNOWN not in Vocabulary.from_texts(["abc"], "bpe", 260).encode("aéc")


def test_token_stream_puts_start_and_end_around_every_text():
    vocabulary = Vocabulary.from_texts(["ab", "b"], "character", 0)
    a, b = vocabulary.encode("ab")
    np.testing.assert_array_equal(vocabulary.encode_stream(["ab", "b"]), [START, a, b, END, START, b, END])
