"""Characters, bytes and pieces of words: nothing is lost, and characters are counted right."""

import numpy as np
import pytest

from recipes.specs import END, START, UNKNOWN
from src.vocabulary import SPECIAL, Vocabulary

TEXTS = ["the cat sat on the mat\n", "the hat — 我喜欢吃苹果", "naïve 😀 <|end|> the"]


@pytest.mark.parametrize("tokens", ["character", "byte", "bpe"])
def test_texts_come_back_as_they_were(tokens):
    vocabulary = Vocabulary.learned(TEXTS, tokens, 300)
    again = Vocabulary.from_json(vocabulary.to_json())
    for text in TEXTS:
        numbers = vocabulary.encode(text)
        assert min(numbers) >= len(SPECIAL)  # also where a text holds the name of a special token
        assert vocabulary.decode(numbers) == text
        assert again.encode(text) == numbers
        assert vocabulary.characters[numbers].sum() == len(text)
    assert [vocabulary.inner.id_to_token(number) for number in range(4)] == SPECIAL


def test_the_numbers_of_tokens():
    assert len(Vocabulary.learned(["abca"], "character", 0)) == 4 + 3
    assert len(Vocabulary.learned(["abca"], "byte", 0)) == 4 + 256
    assert len(Vocabulary.learned(TEXTS, "bpe", 270)) == 270
    assert Vocabulary.learned(["abca"], "byte", 0).encode("é") == Vocabulary.learned(["x"], "byte", 0).encode("é")
    assert len(Vocabulary.learned(TEXTS, "byte", 0).encode("é")) == 2
    assert len(Vocabulary.learned(["the the the the"], "bpe", 270).encode("the")) == 1  # the most frequent pairs are joined


def test_an_unknown_character_is_unknown_and_no_byte_is():
    assert Vocabulary.learned(["abc"], "character", 0).encode("aéc")[1] == UNKNOWN
    assert UNKNOWN not in Vocabulary.learned(["abc"], "bpe", 260).encode("aéc")


def test_a_stream_has_every_text_between_start_and_end():
    vocabulary = Vocabulary.learned(["ab", "b"], "character", 0)
    a, b = vocabulary.encode("ab")
    np.testing.assert_array_equal(vocabulary.stream(["ab", "b"]), [START, a, b, END, START, b, END])
