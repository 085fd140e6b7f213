"""`corpus`: text files for language modeling."""

import functools
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import tensorflow_datasets as tfds

from src.datasets.builders.files.base import FilesBuilder
from src.datasets.builders.files.encodings import encoding_error, python_encoding
from src.errors import UserError

SPLITS = ("train", "validation", "test")
DRAWN = 0.1  # of the characters of the training set, for each split that no file is named after
FEWEST = 1000  # characters from which splits are cut
LONGEST = 2**20  # characters of an example: a longer text is several
SEED = 0  # of the order of the files, which is the same in every run


class Corpus(FilesBuilder):
    """The texts of files.

    A split that no file is named after is cut from the training set: its files are put one after the other, in random order,
    and cut at 80 and 90 % of their characters, at the end of a line.
    """

    DESCRIPTION = "Text files of the user's own"

    @property
    def draw(self) -> None:
        return None  # the pieces of a text follow each other

    def describe_features(self) -> tfds.features.FeaturesDict:
        return tfds.features.FeaturesDict({self.input: tfds.features.Text()})

    def split_names(self) -> Sequence[str]:
        return SPLITS

    def examples(self, split: str) -> Iterator[dict[str, str]]:
        texts = self._cut(split) if split in self._shares else map(self._read, self.files[split])
        for text in texts:
            for piece in _pieces(text):
                yield {self.input: piece}

    @functools.cached_property
    def _shares(self) -> dict[str, tuple[float, float]]:
        """{split: where it begins and ends in the files of the training set, from 0 to 1}, of splits that are cut from it."""
        drawn = [split for split in SPLITS if split not in self.files]
        bounds = [0.0, *(1 - DRAWN * left for left in range(len(drawn), -1, -1))]
        return {split: (bounds[index], bounds[index + 1]) for index, split in enumerate(["train", *drawn])}

    @functools.cached_property
    def _lengths(self) -> list[tuple[Path, int]]:
        """The files of the training set in random order, with their numbers of characters."""
        order = np.random.default_rng(SEED).permutation(len(self.files["train"]))
        files = [self.files["train"][index] for index in order]
        lengths = [(file, len(self._read(file))) for file in files]
        total = sum(length for _, length in lengths)
        if len(self._shares) > 1 and total < FEWEST:
            raise UserError(
                f"{self.settings.path} holds {total} characters, too few to cut validation and test sets from; add text until "
                f"there are at least {FEWEST:,}."
            )
        return lengths

    def _cut(self, split: str) -> Iterator[str]:
        """The texts of a split that is cut from the training set, or is what is left of it."""
        total = sum(length for _, length in self._lengths)
        start, stop = (round(share * total) for share in self._shares[split])
        position = 0  # of the file
        for file, length in self._lengths:
            if start < position + length and position < stop:
                text = self._read(file)
                yield text[_line_end(text, start - position) : _line_end(text, stop - position)]
            position += length

    def _read(self, file: Path) -> str:
        """The text of a file.

        Raises:
            UserError: it has another encoding, or is empty.
        """
        try:
            text = file.read_text(encoding=python_encoding(self.settings.encoding))
        except UnicodeError:
            raise encoding_error(file, self.settings.encoding) from None
        if not text.strip():
            raise UserError(f"{file} holds only spaces; write a text there, or leave the file out.")
        return text


def _line_end(text: str, position: int) -> int:
    """The end of the last line before a position, or the position itself in a single long line."""
    if position <= 0 or position >= len(text):
        return max(position, 0)
    return text.rfind("\n", 0, position) + 1 or position


def _pieces(text: str) -> Iterator[str]:
    """A text in pieces of at most `LONGEST` characters, which end at the end of a line if possible; none if it is empty."""
    start = 0
    while start < len(text):
        stop = start + _line_end(text[start : start + LONGEST + 1], LONGEST)
        if text[start:stop].strip():
            yield text[start:stop]
        start = stop
