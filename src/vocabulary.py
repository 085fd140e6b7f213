"""Texts as tokens that any text can be written in, for language models: characters, bytes, or pieces of words."""

from collections.abc import Iterable, Sequence
from typing import Self

import numpy as np
import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers, trainers

from recipes.specs import END, PADDING, START, UNKNOWN

SPECIAL = ["<|padding|>", "<|unknown|>", "<|start|>", "<|end|>"]  # in the order of their numbers in `recipes.specs`


class Vocabulary:
    """Tokens and their numbers; 0 to 3 are those of `recipes.specs`.

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
