"""Tokenizers: texts to token ids and back.

`Vocabulary` tokenizes any text to characters, bytes or byte pairs; `Encoder` encodes texts with it for a language model.
`Tokenizer` splits by word or by character with TensorFlow operations; `SubwordTokenizer` has the same interface for byte pairs.
"""

from collections.abc import Iterable, Sequence
from typing import Any, Self

import numpy as np
import tensorflow as tf
import tokenizers
from keras import layers
from tokenizers import decoders, models, normalizers, pre_tokenizers, trainers

from recipes.specs import END, PADDING, START, UNKNOWN

SPECIAL = ["<|padding|>", "<|unknown|>", "<|start|>", "<|end|>"]  # in the order of their ids in `recipes.specs`
# Scripts without spaces between words: each character is a word of its own.
UNSPACED = r"[\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}]\p{M}*"
# All but letters, digits, marks, spaces, and what occurs inside words: don't, full-time.
PUNCTUATION = r"[^\p{L}\p{N}\p{M}\s'’_-]"
CHUNK = 1_000  # texts to encode at once

Unit = str  # "word" or "character"


class Vocabulary:
    """Tokens and their ids; ids 0 to 3 are those of `recipes.specs`.

    Args:
        tokenizer: with the special tokens first.

    Attributes:
        character_counts: (vocabulary,), the number of characters that begin in each token.
    """

    def __init__(self, tokenizer: tokenizers.Tokenizer):
        self.tokenizer = tokenizer
        tokenizer.encode_special_tokens = True  # the name of a special token within a text is ordinary text
        self.character_counts = np.array([0, 1, 0, 0, *map(self._count_characters, self._tokens())])

    @classmethod
    def from_texts(cls, texts: Sequence[str], tokens: str, size: int, lowercase: bool = False) -> Self:
        """Make the vocabulary of texts.

        Args:
            texts: of the training set.
            tokens: character: all characters that occur; byte: the 256 bytes of UTF-8; bpe: byte pair encoding (Sennrich,
                Haddow, Birch: Neural machine translation of rare words with subword units. ACL 2016).
            size: of the vocabulary; bpe only.
            lowercase: whether texts are lowercased.
        """
        if tokens == "character":
            tokenizer = tokenizers.Tokenizer(models.WordLevel(unk_token=SPECIAL[UNKNOWN]))
            tokenizer.pre_tokenizer = pre_tokenizers.Split(tokenizers.Regex(r"[\s\S]"), "isolated")
            tokenizer.decoder = decoders.Fuse()
            trainer: trainers.Trainer = trainers.WordLevelTrainer(special_tokens=SPECIAL, vocab_size=2**31, show_progress=False)
        else:
            tokenizer = tokenizers.Tokenizer(models.BPE())
            tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=tokens == "bpe")
            tokenizer.decoder = decoders.ByteLevel()
            alphabet = pre_tokenizers.ByteLevel.alphabet()
            trainer = trainers.BpeTrainer(
                special_tokens=SPECIAL, initial_alphabet=sorted(alphabet), show_progress=False,
                vocab_size=size if tokens == "bpe" else len(SPECIAL) + len(alphabet),
            )  # fmt: skip
        if lowercase:
            tokenizer.normalizer = normalizers.Lowercase()
        tokenizer.train_from_iterator(texts, trainer)
        return cls(tokenizer)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Restore a vocabulary from the result of `to_json`."""
        return cls(tokenizers.Tokenizer.from_str(text))

    def to_json(self) -> str:
        """Serialize the vocabulary."""
        return self.tokenizer.to_str()

    def __len__(self) -> int:
        return self.tokenizer.get_vocab_size()

    def _tokens(self) -> list[str]:
        """All tokens but the special ones, in the order of their ids."""
        return [self._token(token_id) for token_id in range(len(SPECIAL), len(self))]

    def _token(self, token_id: int) -> str:
        token = self.tokenizer.id_to_token(token_id)
        if token is None:
            raise ValueError(f"The vocabulary has no token with id {token_id}.")
        return token

    def _count_characters(self, token: str) -> int:
        return sum(
            byte & 0b1100_0000 != 0b1000_0000 for byte in self._bytes(token)
        )  # continuation bytes of UTF-8 begin no character

    def _bytes(self, token: str) -> bytes:
        return (
            token.encode()
            if isinstance(self.tokenizer.model, models.WordLevel)
            else bytes(BYTE_OF_LETTER[letter] for letter in token)
        )

    def token_bytes(self) -> list[bytes]:
        """The bytes of each token in UTF-8, maybe part of a character; special tokens have none."""
        return [b""] * len(SPECIAL) + [self._bytes(token) for token in self._tokens()]

    def encode(self, text: str) -> list[int]:
        """Tokenize a text to token ids."""
        return self.tokenizer.encode(text).ids

    def encode_stream(self, texts: Sequence[str]) -> np.ndarray:
        """Concatenate the tokens of texts, each between START and END: int32 (tokens,)."""
        sequences = [[START, *encoding.ids, END] for encoding in self.tokenizer.encode_batch(list(texts))]
        return np.concatenate(sequences).astype(np.int32)

    def decode(self, token_ids: Sequence[int]) -> str:
        """The text of tokens; special tokens are left out."""
        return self.tokenizer.decode(list(token_ids))


class Encoder:
    """Encodes texts as inputs of fixed length, in the form that language models are trained on.

    Args:
        vocabulary: of the tokens.
        length: of an input in tokens.
    """

    def __init__(self, vocabulary: Vocabulary, length: int):
        self.vocabulary, self.length = vocabulary, length

    def __call__(self, texts: Iterable[str | bytes]) -> np.ndarray:
        """Encode each text as START and its tokens, truncated or padded: int32 (texts, length)."""
        strings = [text.decode() if isinstance(text, bytes) else str(text) for text in texts]
        rows = np.full((len(strings), self.length), PADDING, np.int32)
        for row, encoding in zip(rows, self.vocabulary.tokenizer.encode_batch(strings)):
            token_ids = [START, *encoding.ids][: self.length]
            row[: len(token_ids)] = token_ids
        return rows


def _byte_of_letter() -> dict[str, int]:
    """{letter: byte}: byte-level BPE represents printable bytes by themselves, all others by letters from U+0100 on."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    unprintable = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + n): byte for n, byte in enumerate(unprintable)}


BYTE_OF_LETTER = _byte_of_letter()


class Tokenizer:
    """Tokenizer of words or characters, in TensorFlow operations.

    Ids 0 to 3 are those of `recipes.specs`: padding, unknown, start, end. The others are the tokens of `texts`, the most
    frequent first.

    Args:
        texts: to make the vocabulary from, UTF-8 encoded.
        unit: word or character.
        vocabulary: maximum size of the vocabulary.
        length: of a sequence of token ids; longer ones are truncated, shorter ones padded.
        lowercase: whether texts are lowercased.
    """

    def __init__(self, texts: np.ndarray, unit: Unit, vocabulary: int, length: int, lowercase: bool):
        self.unit, self.length, self.lowercase = unit, length, lowercase
        adapted = self._layer(max_tokens=vocabulary - 2)
        adapted.adapt(tf.constant(texts))
        # The first two tokens of a layer are padding and unknown.
        self.layer = self._layer(vocabulary=["[START]", "[END]", *adapted.get_vocabulary()[2:]])
        self.tokens = np.array(self.layer.get_vocabulary(), dtype=object)

    def _layer(self, **options: Any) -> layers.TextVectorization:
        split = "whitespace" if self.unit == "word" else "character"
        return layers.TextVectorization(standardize=self.standardize, split=split, ragged=True, **options)

    def __len__(self) -> int:
        return len(self.tokens)

    def standardize(self, texts: tf.Tensor) -> tf.Tensor:
        """Prepare texts for splitting at spaces (words), or between all characters."""
        if self.lowercase:
            texts = tf.strings.lower(texts, encoding="utf-8")
        if self.unit == "word":
            for pattern in (UNSPACED, PUNCTUATION):
                texts = tf.strings.regex_replace(texts, f"({pattern})", r" \1 ")
        return texts

    def __call__(self, texts: tf.Tensor, start: bool = False, end: bool = False) -> tf.Tensor:
        """Encode texts (batch,) as token ids (batch, length), with START before and END after them if requested.

        A truncated text has no END.
        """
        token_ids = tf.cast(self.layer(texts), tf.int32)  # ragged
        starts, ends = (tf.fill((token_ids.nrows(), 1), token_id) for token_id in (START, END))
        sequences = [starts] * start + [token_ids] + [ends] * end
        return tf.concat(sequences, axis=1).to_tensor(shape=(None, self.length))  # truncates

    def encode(self, texts: np.ndarray, start: bool = False, end: bool = False) -> np.ndarray:
        """Encode any number of texts, as a call does: int32 (texts, length)."""
        chunks = [texts[index : index + CHUNK] for index in range(0, len(texts), CHUNK)]
        return np.concatenate([self(tf.constant(chunk), start, end).numpy() for chunk in chunks])

    def decode(self, token_ids: tf.Tensor) -> tf.Tensor:
        """Decode token ids (batch, length) up to END to texts (batch,)."""
        ended = tf.cumsum(tf.cast(token_ids == END, tf.int32), axis=1) > 0
        ordinary = tf.logical_not(ended) & (token_ids > START)
        tokens = tf.gather(tf.constant(self.tokens.tolist()), token_ids)
        separator = " " if self.unit == "word" else ""
        return tf.strings.reduce_join(tf.ragged.boolean_mask(tokens, ordinary), axis=-1, separator=separator)

    def tokenize(self, text: str) -> Sequence[str]:
        """Split one text into all its tokens."""
        standardized = self.standardize(tf.constant([text]))
        tokens = tf.strings.split(standardized) if self.unit == "word" else tf.strings.unicode_split(standardized, "UTF-8")
        return [token.decode() for token in tokens[0].numpy()]


class SubwordTokenizer:
    """Tokenizer of byte pairs, with the interface of `Tokenizer`; only decoding consists of TensorFlow operations.

    Args:
        vocabulary: of byte pairs.
        length: of a sequence of token ids; longer ones are truncated, shorter ones padded.
        lowercase: whether the vocabulary lowercases texts.
    """

    def __init__(self, vocabulary: Vocabulary, length: int, lowercase: bool):
        self.vocabulary, self.length, self.lowercase = vocabulary, length, lowercase
        self.token_bytes = vocabulary.token_bytes()

    def __len__(self) -> int:
        return len(self.vocabulary)

    def standardize(self, texts: tf.Tensor) -> tf.Tensor:
        """Lowercase texts, if the vocabulary does."""
        return tf.strings.lower(texts, encoding="utf-8") if self.lowercase else texts

    def encode(self, texts: np.ndarray, start: bool = False, end: bool = False) -> np.ndarray:
        """Encode texts (batch,) as int32 (batch, length), with START before and END after them; a truncated text has no END."""
        rows = np.full((len(texts), self.length), PADDING, np.int32)
        for row, encoding in zip(rows, self.vocabulary.tokenizer.encode_batch([text.decode() for text in texts])):
            token_ids = ([START] * start + encoding.ids + [END] * end)[: self.length]
            row[: len(token_ids)] = token_ids
        return rows

    def decode(self, token_ids: tf.Tensor) -> tf.Tensor:
        """Decode token ids (batch, length) up to END to texts (batch,)."""
        ended = tf.cumsum(tf.cast(token_ids == END, tf.int32), axis=1) > 0
        pieces = tf.where(ended, "", tf.gather(tf.constant(self.token_bytes), token_ids))
        # A text may end within a character.
        return tf.strings.unicode_transcode(tf.strings.reduce_join(pieces, axis=-1), "UTF-8", "UTF-8", errors="replace")

    def tokenize(self, text: str) -> Sequence[str]:
        """Split one text into all its tokens."""
        return [self.vocabulary.decode([token_id]) for token_id in self.vocabulary.encode(text)]
