"""Texts to token numbers and back: by word or by character, all in TensorFlow, or in byte pairs."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from keras import layers

from recipes.specs import END, PADDING, START
from src.vocabulary import Vocabulary

# Written without spaces between words: each character is a word of its own.
UNSPACED = r"[\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}]\p{M}*"
# All but letters, digits, marks, spaces, and what is found inside words: don't, full-time.
PUNCTUATION = r"[^\p{L}\p{N}\p{M}\s'’_-]"
CHUNK = 1_000  # texts at once

Unit = str  # "word" or "character"


class Tokenizer:
    """A vocabulary, and what turns texts into its numbers and back.

    The numbers 0 to 3 are those of `recipes.specs`: padding, unknown, start, end. The others are the tokens of the texts that
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
