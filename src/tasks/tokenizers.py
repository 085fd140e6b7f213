"""Texts to token numbers and back.

`Vocabulary` writes any text, in characters, bytes, or pieces of words; `Encoder` reads texts with it as a language model does.
`Tokenizer` splits by word or by character, all in TensorFlow; `Subwords` is the same for a vocabulary of byte pairs.
"""

from collections.abc import Iterable, Sequence
from typing import Any, Self

import numpy as np
import tensorflow as tf
import tokenizers
from keras import layers
from tokenizers import decoders, models, normalizers, pre_tokenizers, trainers

from recipes.kinds import END, PADDING, START, UNKNOWN

SPECIAL = ["<|padding|>", "<|unknown|>", "<|start|>", "<|end|>"]  # in the order of their numbers in `recipes.kinds`
# Written without spaces between words: each character is a word of its own.
UNSPACED = r"[\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}]\p{M}*"
# All but letters, digits, marks, spaces, and what is found inside words: don't, full-time.
PUNCTUATION = r"[^\p{L}\p{N}\p{M}\s'’_-]"
CHUNK = 1_000  # texts at once

Unit = str  # "word" or "character"


class Vocabulary:
    """Tokens and their numbers; 0 to 3 are those of `recipes.kinds`.

    Args:
        inner: what splits and joins texts.
    """

    def __init__(self, inner: tokenizers.Tokenizer):
        self.inner = inner
        inner.encode_special_tokens = True  # a text in which such a name is written means those letters
        self.characters = np.array([0, 1, 0, 0, *map(self._characters, self._tokens())])  # that begin in each token

    @classmethod
    def learned(cls, texts: Sequence[str], tokens: str, size: int, lowercase: bool = False) -> Self:
        """The vocabulary of texts.

        Args:
            texts: of the training part.
            tokens: character, all that occur; byte, of UTF-8, 256 of them; bpe, byte pair encoding: bytes, and pairs of
                neighbours, the most frequent one joined first, over and over (Sennrich, Haddow, Birch: Neural machine
                translation of rare words with subword units. ACL 2016).
            size: numbers in all, of bpe.
            lowercase: capitals are read as small letters.
        """
        if tokens == "character":
            inner = tokenizers.Tokenizer(models.WordLevel(unk_token=SPECIAL[UNKNOWN]))
            inner.pre_tokenizer = pre_tokenizers.Split(tokenizers.Regex(r"[\s\S]"), "isolated")
            inner.decoder = decoders.Fuse()
            trainer: trainers.Trainer = trainers.WordLevelTrainer(special_tokens=SPECIAL, vocab_size=2**31, show_progress=False)
        else:
            inner = tokenizers.Tokenizer(models.BPE())
            inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=tokens == "bpe")
            inner.decoder = decoders.ByteLevel()
            alphabet = pre_tokenizers.ByteLevel.alphabet()
            trainer = trainers.BpeTrainer(
                special_tokens=SPECIAL, initial_alphabet=sorted(alphabet), show_progress=False,
                vocab_size=size if tokens == "bpe" else len(SPECIAL) + len(alphabet),
            )  # fmt: skip
        if lowercase:
            inner.normalizer = normalizers.Lowercase()
        inner.train_from_iterator(texts, trainer)
        return cls(inner)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """What `to_json` wrote."""
        return cls(tokenizers.Tokenizer.from_str(text))

    def to_json(self) -> str:
        """All of it, to be kept with a run."""
        return self.inner.to_str()

    def __len__(self) -> int:
        return self.inner.get_vocab_size()

    def _tokens(self) -> list[str]:
        """Those behind the first four, in the order of their numbers."""
        return [self._token(number) for number in range(len(SPECIAL), len(self))]

    def _token(self, number: int) -> str:
        token = self.inner.id_to_token(number)
        if token is None:
            raise ValueError(f"The vocabulary has no token of number {number}.")
        return token

    def _characters(self, token: str) -> int:
        return sum(byte & 0b1100_0000 != 0b1000_0000 for byte in self._bytes(token))  # not the bytes that continue one

    def _bytes(self, token: str) -> bytes:
        return token.encode() if isinstance(self.inner.model, models.WordLevel) else bytes(BYTES[letter] for letter in token)

    def pieces(self) -> list[bytes]:
        """What each number writes, in UTF-8; a pair of bytes may be half a character, and the first four write nothing."""
        return [b""] * len(SPECIAL) + [self._bytes(token) for token in self._tokens()]

    def encode(self, text: str) -> list[int]:
        """The numbers of a text's tokens."""
        return self.inner.encode(text).ids

    def stream(self, texts: Sequence[str]) -> np.ndarray:
        """One text after the other, each between START and END: int32 (tokens,)."""
        pieces = [[START, *encoding.ids, END] for encoding in self.inner.encode_batch(list(texts))]
        return np.concatenate(pieces).astype(np.int32)

    def decode(self, numbers: Sequence[int]) -> str:
        """The text that tokens make; padding, START and END are nothing."""
        return self.inner.decode(list(numbers))


class Encoder:
    """Texts to rows of numbers, as a language model has read them.

    Args:
        vocabulary: of the numbers.
        length: of a row.
    """

    def __init__(self, vocabulary: Vocabulary, length: int):
        self.vocabulary, self.length = vocabulary, length

    def __call__(self, texts: Iterable[str | bytes]) -> np.ndarray:
        """START, and what follows as far as there is room, or padding: int32 (texts, length)."""
        plain = [text.decode() if isinstance(text, bytes) else str(text) for text in texts]
        rows = np.full((len(plain), self.length), PADDING, np.int32)
        for row, encoding in zip(rows, self.vocabulary.inner.encode_batch(plain)):
            numbers = [START, *encoding.ids][: self.length]
            row[: len(numbers)] = numbers
        return rows


def _letters_of_bytes() -> dict[str, int]:
    """{letter: byte}: byte-level vocabularies write printable bytes as themselves, the others as letters from U+0100 on."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + n): byte for n, byte in enumerate(others)}


BYTES = _letters_of_bytes()


class Tokenizer:
    """A vocabulary, and what turns texts into its numbers and back.

    The numbers 0 to 3 are those of `recipes.kinds`: padding, unknown, start, end. The others are the tokens of the texts that
    it was made from, the most frequent first.

    Args:
        texts: UTF-8 encoded.
        unit: word or character.
        vocabulary: numbers at most.
        length: tokens that a text is cut or filled up to.
        lowercase: capitals are not told from small letters.
    """

    def __init__(self, texts: np.ndarray, unit: Unit, vocabulary: int, length: int, lowercase: bool):
        self.unit, self.length, self.lowercase = unit, length, lowercase
        counting = self._layer(max_tokens=vocabulary - 2)
        counting.adapt(tf.constant(texts))
        # The layer's own first two are padding and unknown.
        self.layer = self._layer(vocabulary=["[START]", "[END]", *counting.get_vocabulary()[2:]])
        self.words = np.array(self.layer.get_vocabulary(), dtype=object)

    def _layer(self, **more: Any) -> layers.TextVectorization:
        split = "whitespace" if self.unit == "word" else "character"
        return layers.TextVectorization(standardize=self.standardize, split=split, ragged=True, **more)

    def __len__(self) -> int:
        return len(self.words)

    def standardize(self, texts: tf.Tensor) -> tf.Tensor:
        """Texts as they are split: at spaces (words), or between all characters."""
        if self.lowercase:
            texts = tf.strings.lower(texts, encoding="utf-8")
        if self.unit == "word":
            for alone in (UNSPACED, PUNCTUATION):
                texts = tf.strings.regex_replace(texts, f"({alone})", r" \1 ")
        return texts

    def __call__(self, texts: tf.Tensor, start: bool = False, end: bool = False) -> tf.Tensor:
        """Texts (batch,) to numbers (batch, length), with START before and END behind them if that is asked for.

        A text that is cut loses its END.
        """
        tokens = self.layer(texts)  # ragged
        rows = tf.cast(tokens, tf.int32)
        around = [tf.fill((rows.nrows(), 1), number) for number in (START, END)]
        parts = [around[0]] * start + [rows] + [around[1]] * end
        return tf.concat(parts, axis=1).to_tensor(shape=(None, self.length))  # what is longer is cut

    def encode(self, texts: np.ndarray, start: bool = False, end: bool = False) -> np.ndarray:
        """As a call, for any number of texts: int32 (texts, length)."""
        chunks = [self(tf.constant(texts[at : at + CHUNK]), start, end).numpy() for at in range(0, len(texts), CHUNK)]
        return np.concatenate(chunks)

    def text(self, numbers: tf.Tensor) -> tf.Tensor:
        """Numbers (batch, length), `END` and all that follows left out, to texts (batch,)."""
        ended = tf.cumsum(tf.cast(numbers == END, tf.int32), axis=1) > 0
        written = tf.logical_not(ended) & (numbers > START)
        words = tf.gather(tf.constant(self.words.tolist()), numbers)
        between = " " if self.unit == "word" else ""
        return tf.strings.reduce_join(tf.ragged.boolean_mask(words, written), axis=-1, separator=between)

    def split(self, text: str) -> Sequence[str]:
        """The tokens of one text, however many, as they are looked up."""
        standard = self.standardize(tf.constant([text]))
        found = tf.strings.split(standard) if self.unit == "word" else tf.strings.unicode_split(standard, "UTF-8")
        return [token.decode() for token in found[0].numpy()]


class Subwords:
    """As `Tokenizer`, with a vocabulary of byte pairs: no token is unknown. TensorFlow cannot find them, but can write them.

    Args:
        vocabulary: of byte pairs.
        length: tokens that a text is cut or filled up to.
        lowercase: whether the vocabulary reads capitals as small letters.
    """

    def __init__(self, vocabulary: Vocabulary, length: int, lowercase: bool):
        self.vocabulary, self.length, self.lowercase = vocabulary, length, lowercase
        self.pieces = vocabulary.pieces()

    def __len__(self) -> int:
        return len(self.vocabulary)

    def standardize(self, texts: tf.Tensor) -> tf.Tensor:
        """Texts with the capitals that can be written."""
        return tf.strings.lower(texts, encoding="utf-8") if self.lowercase else texts

    def encode(self, texts: np.ndarray, start: bool = False, end: bool = False) -> np.ndarray:
        """Texts (batch,) to int32 (batch, length), with START before and END behind them; one that is cut loses its END."""
        rows = np.full((len(texts), self.length), PADDING, np.int32)
        for row, encoding in zip(rows, self.vocabulary.inner.encode_batch([text.decode() for text in texts])):
            numbers = ([START] * start + encoding.ids + [END] * end)[: self.length]
            row[: len(numbers)] = numbers
        return rows

    def text(self, numbers: tf.Tensor) -> tf.Tensor:
        """Numbers (batch, length), `END` and all that follows left out, to texts (batch,)."""
        ended = tf.cumsum(tf.cast(numbers == END, tf.int32), axis=1) > 0
        pieces = tf.where(ended, "", tf.gather(tf.constant(self.pieces), numbers))
        # What is written may cut a character in two.
        return tf.strings.unicode_transcode(tf.strings.reduce_join(pieces, axis=-1), "UTF-8", "UTF-8", errors="replace")

    def split(self, text: str) -> Sequence[str]:
        """The tokens of one text, however many."""
        return [self.vocabulary.decode([number]) for number in self.vocabulary.encode(text)]
