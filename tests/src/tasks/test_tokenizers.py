"""Texts to token ids and back."""

import numpy as np
import pytest
import tensorflow as tf

from recipes.specs import END, PADDING, START, UNKNOWN
from src.tasks.tokenizers import Tokenizer


def texts(*strings):
    return np.array([text.encode() for text in strings], dtype=object)


def make_tokenizer(*strings, unit="word", vocabulary=100, length=8, lowercase=True):
    return Tokenizer(texts(*strings), unit, vocabulary, length, lowercase)


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("The cat's hat, isn't it?", ["the", "cat's", "hat", ",", "isn't", "it", "?"]),
        ("我喜欢吃苹果", ["我", "喜", "欢", "吃", "苹", "果"]),
        ("我喜欢Apple手机。", ["我", "喜", "欢", "apple", "手", "机", "。"]),
        ("カタカナとひらがな", list("カタカナとひらがな")),
        ("Größe ÉTÉ", ["größe", "été"]),
        ("x_1=np.ones(3)", ["x_1", "=", "np", ".", "ones", "(", "3", ")"]),
        ("well-known  \n thing", ["well-known", "thing"]),
    ],
)
def test_words(text, tokens):
    assert make_tokenizer(text).tokenize(text) == tokens


def test_thai_is_split_and_vowel_marks_stay_with_their_letters():
    assert make_tokenizer("ที่นี่").tokenize("ที่นี่") == ["ที่", "นี่"]


def test_characters():
    tokenizer = make_tokenizer("Ab c", unit="character")
    assert tokenizer.tokenize("Ab c") == ["a", "b", " ", "c"]
    assert make_tokenizer("Ab c", unit="character", lowercase=False).tokenize("Ab c") == ["A", "b", " ", "c"]


def test_most_frequent_tokens_have_the_smallest_ids_and_rare_ones_are_unknown():
    tokenizer = make_tokenizer("c b a b c c d d d d", vocabulary=7)
    assert tokenizer.tokens.tolist() == ["", "[UNK]", "[START]", "[END]", "d", "c", "b"]
    assert tokenizer.encode(texts("a b d"), end=True).tolist() == [[UNKNOWN, 6, 4, END, 0, 0, 0, 0]]


def test_texts_are_truncated_or_padded():
    tokenizer = make_tokenizer("a a a a b b b c c d", length=3)
    assert tokenizer.encode(texts("a b c d", "a")).tolist() == [[4, 5, 6], [4, PADDING, PADDING]]
    assert tokenizer.encode(texts("a b c d", "a"), start=True).tolist() == [[START, 4, 5], [START, 4, PADDING]]
    assert tokenizer.encode(texts("a b c d", "a"), end=True).tolist() == [[4, 5, 6], [4, END, PADDING]]


@pytest.mark.parametrize("unit", ["word", "character"])
def test_token_ids_are_decoded(unit):
    tokenizer = make_tokenizer("one two three", "四", unit=unit, length=20)
    given = texts("three one", "two 四")
    assert tokenizer.decode(tf.constant(tokenizer.encode(given, end=True))).numpy().tolist() == given.tolist()
    after_the_end = np.concatenate([tokenizer.encode(given, end=True)[:, :12], np.full((2, 3), 5)], axis=1)
    assert tokenizer.decode(tf.constant(after_the_end)).numpy().tolist() == given.tolist()


def test_encoding_a_batch_equals_encoding_each_text():
    given = texts(*(f"w{n % 7} w{n % 3}" for n in range(2_500)))
    tokenizer = Tokenizer(given, "word", 50, 4, True)
    np.testing.assert_array_equal(
        tokenizer.encode(given)[[0, 999, 1000, 2499]],
        np.concatenate([tokenizer.encode(given[[n]]) for n in (0, 999, 1000, 2499)]),
    )


def test_names_of_special_tokens_are_ordinary_text():
    tokenizer = make_tokenizer("a [START] [END] [UNK]")
    assert START not in tokenizer.encode(texts("a [START] b"))[0]
    assert tokenizer.tokenize("[END]") == ["[", "end", "]"]
