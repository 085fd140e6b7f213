"""Tokenizers: texts to token ids and back, with the library `tokenizers`.

There is one class. Words, characters, bytes and byte pairs are four configurations of it.
"""

import functools
import hashlib
import itertools
import logging
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Literal, Self

import numpy as np
import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors, trainers

from recipes.specs import END, PADDING, START, UNKNOWN
from src.datasets import Array, lazy
from src.datasets.stored import StoredArray
from src.tasks.baselines.interface import spaced_rows

log = logging.getLogger(__name__)

SPECIAL = ["<|padding|>", "<|unknown|>", "<|start|>", "<|end|>"]  # in the order of their ids in `recipes.specs`
DISPLAYED = {START: "⏵", END: "⏎"}  # in figures
# Scripts without spaces between words: each character is a word of its own.
UNSPACED = r"[\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}]\p{M}*"
SPACES = r"\t\n\v\f\r "  # without those beyond ASCII, which are tokens
# All but letters, digits, marks, spaces, and what occurs inside words: don't, full-time.
PUNCTUATION = rf"[^\p{{L}}\p{{N}}\p{{M}}{SPACES}'’_-]"
CHUNK, CHUNK_CHARACTERS = 1_000, 2_000_000  # texts to encode at once; fewer if they have more characters
PIECE = 10_000  # characters of a long text that are encoded at once: several pieces in parallel
BOUNDARY = re.compile(r"(?<=\S)[ \n]")  # no token crosses the beginning of a run of spaces; others than these differ by library
MAX_BYTES = 500_000_000  # of the texts that a vocabulary is learned from: evenly spaced ones of a larger training set
# Of scripts without spaces in a sample for byte pairs: almost each run of letters is a word that occurs once, and the library
# needs a hundred times the memory of such words to learn from them.
MAX_UNSPACED_BYTES = 20_000_000
MEASURED = 1_000  # texts whose mean length says how many these are

Kind = Literal["words", "characters", "bytes", "bpe"]


class Tokenizer:
    """Texts to token ids and back; ids 0 to 3 are those of `recipes.specs`, and tokens are trained with `train`.

    Args:
        backend: the library's tokenizer.

    Attributes:
        length: of a sequence of token ids; None: as many as a text has.
    """

    def __init__(self, backend: tokenizers.Tokenizer):
        self._backend = backend
        backend.encode_special_tokens = True  # the name of a special token within a text is ordinary text
        self.length: int | None = backend.padding["length"] if backend.padding else None

    @classmethod
    def train(cls, texts: Iterable[str | bytes], kind: Kind, size: int | None = None, lowercase: bool = False) -> Self:
        """Learn the vocabulary of texts.

        Args:
            texts: of the training set.
            kind: words, characters: the most frequent ones; bytes: the 256 bytes of UTF-8; bpe: byte pair encoding (Sennrich,
                Haddow, Birch: Neural machine translation of rare words with subword units. ACL 2016).
            size: of the vocabulary, with the special tokens; None: all words or characters. Bytes have a size of their own.
            lowercase: whether texts are lowercased.
        """
        # Bytes are known: each text would be learned as one word. The library holds 256 strings at once: pieces of long texts.
        strings = itertools.chain.from_iterable(map(_pieces, map(_string, () if kind == "bytes" else texts)))
        if kind in ("bytes", "bpe"):
            backend = tokenizers.Tokenizer(models.BPE())
            backend.decoder = decoders.ByteLevel()
        else:
            backend = tokenizers.Tokenizer(models.WordLevel(unk_token=SPECIAL[UNKNOWN]))
            backend.decoder = decoders.Fuse() if kind == "characters" else None  # without a decoder: joined by spaces
        backend.normalizer = normalizers.Lowercase() if lowercase else None
        backend.pre_tokenizer = _pre_tokenizer(kind)
        if kind in ("words", "characters") and size is not None:
            backend.model = _most_frequent(normalize(strings, kind, lowercase), kind, size)
            backend.add_special_tokens(SPECIAL)
        else:
            backend.train_from_iterator(strings, _trainer(kind, size))
        return cls(backend)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Restore a tokenizer from the result of `to_json`."""
        return cls(tokenizers.Tokenizer.from_str(text))

    def to_json(self) -> str:
        """Serialize the tokenizer, with what `configure` has set."""
        return self._backend.to_str()

    def configure(self, *, length: int | None = None, start: bool = False, end: bool = False) -> "Tokenizer":
        """A copy that encodes texts in another form.

        Args:
            length: of a sequence of token ids; longer ones are truncated, shorter ones padded; None: neither.
            start: whether START stands before each text.
            end: whether END stands after each text; a truncated text has no END.
        """
        backend = tokenizers.Tokenizer.from_str(self.to_json())
        template = [SPECIAL[START]] * start + ["$A"] + [SPECIAL[END]] * end
        special = [(SPECIAL[token_id], token_id) for token_id in (START, END)]
        backend.post_processor = processors.TemplateProcessing(single=template, special_tokens=special)
        backend.no_padding()
        if length is not None:
            backend.enable_padding(length=length, pad_id=PADDING, pad_token=SPECIAL[PADDING])
        return Tokenizer(backend)

    def __len__(self) -> int:
        return self._backend.get_vocab_size()

    @property
    def tokens(self) -> list[str]:
        """All tokens, in the order of their ids; those of bytes and byte pairs are written in the library's letters."""
        vocabulary = self._backend.get_vocab()
        return sorted(vocabulary, key=vocabulary.__getitem__)

    @functools.cached_property
    def character_counts(self) -> np.ndarray:
        """(vocabulary,), the number of characters that begin in each token."""
        byte_level = isinstance(self._backend.model, models.BPE)
        within = _continuation_letters() if byte_level else frozenset()
        counts = [sum(letter not in within for letter in token) for token in self.tokens]
        counts[: len(SPECIAL)] = [0, 1, 0, 0]  # an unknown character is one
        return np.array(counts)

    @functools.cached_property
    def digest(self) -> str:
        """A hash of the tokenizer: 16 hexadecimal digits."""
        return hashlib.blake2b(self.to_json().encode(), digest_size=8).hexdigest()

    def encode(self, texts: Sequence[str | bytes] | Array) -> np.ndarray:
        """Token ids of texts: int32 (texts, length). A text without tokens becomes one UNKNOWN.

        Those of texts on disk are in a file that is mapped to memory.
        """
        if self.length is None:
            raise ValueError("Texts of different lengths are no array; configure a length.")
        if isinstance(texts, StoredArray):
            return texts.convert(f"tokens-{self.length}-{self.digest}", self.encode, np.int32).reshape(-1, self.length)
        batches = map(self._backend.encode_batch_fast, _chunks(texts))
        rows = [row.ids[: self.length] for row in itertools.chain.from_iterable(batches)]  # its truncation would keep END
        encoded = np.array(rows, np.int32).reshape(len(rows), self.length)
        encoded[encoded[:, 0] == PADDING, 0] = UNKNOWN
        return encoded

    def encode_stream(self, texts: Sequence[str | bytes] | Array, padding: int = 0) -> np.ndarray:
        """Concatenate the token ids of texts: int32 (tokens,).

        Those of texts on disk are in a file that is mapped to memory.

        Args:
            texts: to be encoded.
            padding: number of PADDING after all tokens.
        """
        end = np.full(padding, PADDING, np.int32)
        if isinstance(texts, StoredArray):
            return texts.convert(f"stream-{padding}-{self.digest}", self.encode_stream, np.int32, end)
        return np.concatenate([*(np.array(token_ids, np.int32) for token_ids in self._encode_in_pieces(texts)), end])

    def _encode_in_pieces(self, texts: Sequence[str | bytes] | Array) -> Iterator[list[int]]:
        """The token ids of texts one after the other, some at a time."""
        special = self._backend.encode("").ids
        start, end = ([token_id for token_id in special if token_id == each] for each in (START, END))
        for chunk in _chunks(texts):
            pieces = [_pieces(text) for text in chunk]
            batch = list(itertools.chain.from_iterable(pieces))
            encodings = iter(self._backend.encode_batch_fast(batch, add_special_tokens=False))
            for of_text in pieces:
                yield start
                yield from (encoding.ids for encoding in itertools.islice(encodings, len(of_text)))
                yield end

    def encode_prompt(self, text: str) -> list[int]:
        """START and the token ids of one text."""
        return [START, *self.configure()._backend.encode(text).ids]

    def decode(self, token_ids: np.ndarray) -> list[str]:
        """The text of each row of token ids (texts, length), up to END and without special tokens."""
        rows = [row[: row.index(END)] if END in row else row for row in token_ids.tolist()]
        return self._backend.decode_batch(rows)

    def split(self, text: str) -> list[str]:
        """The part of a text that each of its tokens stands for, as it is written there: at most `length` parts."""
        encoding = self._backend.encode(text)
        tokens = zip(encoding.ids, encoding.offsets)
        parts = [DISPLAYED.get(token_id, text[begin:end]) for token_id, (begin, end) in tokens if token_id != PADDING]
        return parts[: self.length]


def normalize(texts: Iterable[str | bytes], kind: Kind, lowercase: bool) -> Iterator[str]:
    """Normalize texts to what decoding restores: lowercased if requested, and words separated by single spaces."""
    lower, split = normalizers.Lowercase().normalize_str, _pre_tokenizer(kind).pre_tokenize_str
    for text in map(_string, texts):
        if lowercase:
            text = lower(text)
        yield " ".join(word for word, _ in split(text)) if kind == "words" else text


def training_texts(texts: Array, kind: Kind) -> Iterator[bytes]:
    """The texts of a training set that a vocabulary is learned from: all of them, or a sample of `MAX_BYTES`.

    The sample for byte pairs has no more than `MAX_UNSPACED_BYTES` of scripts without spaces.

    Args:
        texts: of the training set.
        kind: of the vocabulary.
    """
    measured = lazy.rows(texts.take(spaced_rows(len(texts), MEASURED)))
    lengths, beginnings = zip(*((len(text), text[: 4 * PIECE]) for text in measured))  # a character has 4 bytes at most
    mean = np.mean(lengths)
    limit = MAX_BYTES / mean
    if kind == "bpe" and (share := _unspaced_share(beginnings)):
        limit = min(limit, MAX_UNSPACED_BYTES / (mean * share))
    count = max(int(limit), 1)
    if count >= len(texts):
        return lazy.rows(texts)
    log.info("The vocabulary is learned from %s of the %s training texts.", f"{count:,}", f"{len(texts):,}")
    return lazy.rows(texts.take(spaced_rows(len(texts), count)))


def _unspaced_share(texts: Sequence[bytes]) -> float:
    """The share of the bytes at the beginning of texts that are of scripts without spaces."""
    remove = normalizers.Replace(tokenizers.Regex(UNSPACED), "").normalize_str
    beginnings = [text.decode(errors="ignore")[:PIECE] for text in texts]  # the last character may have been cut
    total, spaced = (sum(len(text.encode()) for text in each) for each in (beginnings, map(remove, beginnings)))
    return 1 - spaced / total


def _trainer(kind: Kind, size: int | None) -> trainers.Trainer:
    if kind in ("words", "characters"):
        return trainers.WordLevelTrainer(special_tokens=SPECIAL, vocab_size=2**31, show_progress=False)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab_size = len(SPECIAL) + len(alphabet) if kind == "bytes" or size is None else size
    return trainers.BpeTrainer(special_tokens=SPECIAL, initial_alphabet=alphabet, vocab_size=vocab_size, show_progress=False)


def _most_frequent(texts: Iterable[str], kind: Kind, size: int) -> models.WordLevel:
    """The model with the most frequent words or characters of normalized texts.

    The library's trainer is not used: of equally frequent tokens it prefers the first in the order of code points, and recorded
    runs have the last.
    """
    counts = Counter(token for text in texts for token in (text.split(" ") if kind == "words" else text) if token)
    ranked = sorted(counts, key=lambda token: (counts[token], token), reverse=True)
    tokens = [*SPECIAL, *ranked[: size - len(SPECIAL)]]
    return models.WordLevel({token: token_id for token_id, token in enumerate(tokens)}, unk_token=SPECIAL[UNKNOWN])


@functools.cache
def _pre_tokenizer(kind: Kind) -> pre_tokenizers.PreTokenizer:
    """Splits a text where no token may cross."""
    if kind == "words":
        at_spaces = pre_tokenizers.Split(tokenizers.Regex(f"[{SPACES}]+"), "removed")
        at_single_characters = pre_tokenizers.Split(tokenizers.Regex(f"{UNSPACED}|{PUNCTUATION}"), "isolated")
        return pre_tokenizers.Sequence([at_spaces, at_single_characters])
    if kind == "characters":
        return pre_tokenizers.Split(tokenizers.Regex(r"[\s\S]"), "isolated")
    return pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=kind == "bpe")


@functools.cache
def _continuation_letters() -> frozenset[str]:
    """The library's letters for the bytes 0x80 to 0xBF: in UTF-8, those within a character."""
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    return frozenset(byte_level.pre_tokenize_str(chr(code))[0][0][-1] for code in range(0x80, 0xC0))


def _chunks(texts: Sequence[str | bytes] | Array) -> Iterator[list[str]]:
    """Texts, so many at a time as are encoded at once."""
    chunk: list[str] = []
    characters = 0
    for text in map(_string, lazy.rows(texts) if isinstance(texts, lazy.LazyArray) else texts):
        chunk.append(text)
        characters += len(text)
        if len(chunk) == CHUNK or characters >= CHUNK_CHARACTERS:
            yield chunk
            chunk, characters = [], 0
    if chunk:
        yield chunk


def _pieces(text: str) -> list[str]:
    """A text in pieces that have the same tokens as the whole."""
    pieces, start = [], 0
    while cut := BOUNDARY.search(text, start + PIECE):
        pieces.append(text[start : cut.start()])
        start = cut.start()
    return [*pieces, text[start:]]


def _string(text: str | bytes) -> str:
    return text.decode() if isinstance(text, bytes) else str(text)
