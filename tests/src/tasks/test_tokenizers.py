"""Texts to token ids and back, compared with computations in plain Python."""

import itertools
import re
import unicodedata
from collections import Counter

import numpy as np
import pytest

from recipes.specs import END, PADDING, START, UNKNOWN
from src.tasks import tokenizers
from src.tasks.tokenizers import SPECIAL, Tokenizer, normalize

TEXTS = ["the cat sat on the mat\n", "the hat — 我喜欢吃苹果", "naïve 😀 <|end|> the"]
KINDS = ["words", "characters", "bytes", "bpe"]


def words(text):
    """The words of a lowercased text, character by character."""
    result, last = [], " "
    for letter in text.lower():
        category = unicodedata.category(letter)
        unspaced = re.match("(CJK|HIRAGANA|KATAKANA|THAI|LAO|KHMER|MYANMAR)", unicodedata.name(letter, ""))
        within = category[0] in "LNM" or letter in "'’_-"
        if letter in "\t\n\v\f\r ":
            last = " "
        elif (last == "word" and within and not unspaced) or (last == "unspaced" and category[0] == "M"):
            result[-1] += letter
        else:
            result.append(letter)
            last = "unspaced" if unspaced and category[0] == "L" else "word" if within else " "
    return result


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The cat's hat, isn't it?", ["the", "cat's", "hat", ",", "isn't", "it", "?"]),
        ("我喜欢吃苹果", ["我", "喜", "欢", "吃", "苹", "果"]),
        ("我喜欢Apple手机。", ["我", "喜", "欢", "apple", "手", "机", "。"]),
        ("カタカナとひらがな", list("カタカナとひらがな")),
        ("Größe ÉTÉ", ["größe", "été"]),
        ("x_1=np.ones(3)", ["x_1", "=", "np", ".", "ones", "(", "3", ")"]),
        ("well-known  \n thing", ["well-known", "thing"]),
        ("a\u00a0b\vc", ["a", "\u00a0", "b", "c"]),  # a space beyond ASCII is a token
        ("ที่นี่", ["ที่", "นี่"]),  # vowel marks stay with their letters
    ],
)
def test_words(text, expected):
    assert list(normalize([text], "words", lowercase=True)) == [" ".join(expected)] == [" ".join(words(text))]


def test_most_frequent_tokens_have_the_smallest_ids_and_rare_ones_are_unknown():
    texts = ["c b a b c c D d d d", "e a, e a e,"]
    counts = Counter(itertools.chain.from_iterable(map(words, texts)))
    tokenizer = Tokenizer.train(texts, "words", size=4 + 4, lowercase=True)
    assert tokenizer.tokens == [*SPECIAL, "d", "e", "c", "a"]
    assert tokenizer.tokens[4:] == sorted(counts, key=lambda word: (-counts[word], -ord(word)))[:4]
    encoded = tokenizer.configure(length=5, end=True).encode(["a b D"])
    assert encoded.tolist() == [[7, UNKNOWN, 4, END, PADDING]]


def test_characters():
    texts = ["Ab c", "bb\nB"]
    assert Tokenizer.train(texts, "characters", 100, lowercase=True).tokens[4:] == ["b", "c", "a", " ", "\n"]
    assert Tokenizer.train(texts, "characters", 7).tokens[4:] == ["b", "c", "B"]
    # Without a limit, the first in the order of code points comes first.
    assert Tokenizer.train(texts, "characters").tokens[4:] == ["b", "\n", " ", "A", "B", "c"]


@pytest.mark.parametrize(("start", "end"), [(False, False), (False, True), (True, False), (True, True)])
@pytest.mark.parametrize("length", [2, 3, 4, 7])
def test_texts_are_truncated_or_padded(length, start, end):
    tokenizer = Tokenizer.train(["aaaabbbccd"], "characters", 100)
    ids = {token: token_id for token_id, token in enumerate(tokenizer.tokens)}
    expected = []
    for text in ("abcd", "a"):
        row = [START] * start + [ids[letter] for letter in text] + [END] * end
        expected.append((row + [PADDING] * length)[:length])
    configured = tokenizer.configure(length=length, start=start, end=end)
    assert configured.encode(["abcd", b"a"]).tolist() == expected
    assert Tokenizer.from_json(configured.to_json()).encode(["abcd", "a"]).tolist() == expected
    assert tokenizer.length is None  # the original is as it was


@pytest.mark.parametrize("kind", ["words", "characters"])
def test_a_text_without_tokens_is_one_unknown_token(kind):
    tokenizer = Tokenizer.train(["a b"], kind, 100).configure(length=3)
    assert tokenizer.encode([""]).tolist() == [[UNKNOWN, PADDING, PADDING]]
    assert tokenizer.encode([]).shape == (0, 3)


@pytest.mark.parametrize("kind", KINDS)
def test_decoding_restores_texts(kind):
    tokenizer = Tokenizer.train(TEXTS, kind, 300).configure(length=60, start=True, end=True)
    restored = Tokenizer.from_json(tokenizer.to_json())
    encoded = tokenizer.encode(TEXTS)
    assert tokenizer.decode(encoded) == list(normalize(TEXTS, kind, lowercase=False))
    np.testing.assert_array_equal(restored.encode(TEXTS), encoded)
    assert (encoded[(encoded != PADDING) & (encoded != START) & (encoded != END)] >= len(SPECIAL)).all()
    after_the_end = np.where(np.cumsum(encoded == END, axis=1) > (encoded == END), 5, encoded)
    assert (after_the_end == 5).any()
    assert tokenizer.decode(after_the_end) == tokenizer.decode(encoded)
    assert tokenizer.tokens[:4] == SPECIAL
    if kind != "words":
        assert tokenizer.character_counts[encoded].sum(axis=1).tolist() == list(map(len, TEXTS))


def test_vocabulary_sizes():
    assert len(Tokenizer.train(["abca"], "characters")) == 4 + 3
    assert len(Tokenizer.train(["abca"], "bytes")) == 4 + 256
    assert len(Tokenizer.train(TEXTS, "bpe", 270)) == 270


def test_bytes_are_those_of_utf_8():
    tokenizer = Tokenizer.train(["abca"], "bytes")
    letters = [tokenizer.encode_prompt(chr(code))[1:] for code in (0x41, 0xE9, 0x6211, 0x1F600)]
    assert list(map(len, letters)) == [1, 2, 3, 4]
    assert tokenizer.character_counts[np.concatenate(letters)].tolist() == [1, 1, 0, 1, 0, 0, 1, 0, 0, 0]
    assert Tokenizer.train(["x"], "bytes").encode_prompt("é") == tokenizer.encode_prompt("é")


def test_the_vocabulary_of_bytes_needs_no_texts():
    """The library would learn each text as one word, which takes 47 bytes of memory for each byte of it."""
    tokenizer = Tokenizer.train((pytest.fail("a text was read") for _ in range(1)), "bytes")
    assert tokenizer.decode(np.array([tokenizer.encode_prompt(TEXTS[2])])) == [TEXTS[2]]


def test_the_most_frequent_pairs_are_joined():
    assert len(Tokenizer.train(["the the the the"], "bpe", 270).encode_prompt("the")) == 1 + 1


def test_unknown_characters_are_unknown_tokens_and_bytes_never_are():
    assert Tokenizer.train(["abc"], "characters").encode_prompt("aéc")[2] == UNKNOWN
    assert UNKNOWN not in Tokenizer.train(["abc"], "bpe", 260).encode_prompt("aéc")


def test_token_stream_puts_start_and_end_around_every_text():
    tokenizer = Tokenizer.train(["ab", "b"], "characters").configure(start=True, end=True)
    start, a, b = tokenizer.encode_prompt("ab")
    assert start == START
    np.testing.assert_array_equal(tokenizer.encode_stream(["ab", "b"]), [START, a, b, END, START, b, END])


def test_long_texts_are_encoded_few_at_a_time(monkeypatch):
    texts = ["a" * length for length in (3, 3, 3, 9, 1, 1)]
    tokenizer = Tokenizer.train(texts, "bytes").configure(length=4)
    expected = tokenizer.encode(texts)
    monkeypatch.setattr(tokenizers, "CHUNK_CHARACTERS", 5)
    assert list(map(len, tokenizers._chunks(texts))) == [2, 2, 2]
    np.testing.assert_array_equal(tokenizer.encode(texts), expected)


def test_encoding_a_batch_equals_encoding_each_text():
    texts = [f"w{n % 7} w{n % 3}" for n in range(2_500)]
    tokenizer = Tokenizer.train(texts, "words", 50).configure(length=4)
    rows = [0, 999, 1000, 2499]
    np.testing.assert_array_equal(tokenizer.encode(texts)[rows], [tokenizer.encode([texts[n]])[0] for n in rows])


@pytest.mark.parametrize("kind", KINDS)
def test_names_of_special_tokens_are_ordinary_text(kind):
    tokenizer = Tokenizer.train(["a <|start|> <|end|> <|padding|>"], kind, 300)
    assert min(tokenizer.encode_prompt("<|start|> <|end|>")[1:]) >= len(SPECIAL)


def test_parts_of_a_text_are_shown_as_they_are_written():
    tokenizer = Tokenizer.train(["the hat"], "words", 50, lowercase=True)
    assert tokenizer.configure(length=9, start=True, end=True).split("The Dog's hat") == ["⏵", "The", "Dog's", "hat", "⏎"]
    assert tokenizer.configure(length=2).split("The Dog's hat") == ["The", "Dog's"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_long_text_has_the_same_tokens_in_pieces(kind, monkeypatch):
    draw = np.random.default_rng(0)
    spaces = [" ", " ", "  ", "\n", "\r\n", "\t", "\u00a0", "\u2028", "\x1c"]
    letters = ["a", "b", "it's", "’s", "7", "Σ", "é", "e\u0301", "苹", "ที่", "🙂", "<|end|>", "_", ".", *spaces]
    texts = ["".join(draw.choice(letters, 400)) for _ in range(30)] + ["", " ", "\n a"]
    tokenizer = Tokenizer.train(texts, kind, 400 if kind == "bpe" else None).configure(start=True, end=True)
    whole = tokenizer.encode_stream(texts, padding=2)
    monkeypatch.setattr(tokenizers, "PIECE", 3)
    np.testing.assert_array_equal(tokenizer.encode_stream(texts, padding=2), whole)
    separate = [tokenizer.encode_stream([text]) for text in texts]
    np.testing.assert_array_equal(np.concatenate([*separate, [PADDING, PADDING]]), whole)
    assert (whole == START).sum() == (whole == END).sum() == len(texts)
