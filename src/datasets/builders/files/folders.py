"""What `images` and `audio` share: files in folders, one for each class."""

import functools
import logging
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

import tensorflow_datasets as tfds

from src import terminal
from src.config.files import CONTENTS, EXTENSIONS, files_in
from src.datasets.builders.files.base import Draw, FilesBuilder
from src.errors import UserError

SYSTEM_FILES = {"thumbs.db", "desktop.ini"}  # what Windows puts into folders

log = logging.getLogger(__name__)

Properties = TypeVar("Properties")


class LabelledFile(NamedTuple, Generic[Properties]):
    """A file in the folder of a class.

    Attributes:
        split: that it is in.
        label: its class.
        path: where it is.
        properties: what `check` says of it.
    """

    split: str
    label: str
    path: Path
    properties: Properties


class FoldersBuilder(FilesBuilder, Generic[Properties]):
    """Base class of the builders whose examples are files, each of the class that its folder is named after.

    All files are read before the first example is made, so that an error counts all that cannot be read.
    """

    @property
    def draw(self) -> Draw:
        return "stratified"

    @abstractmethod
    def check(self, file: Path) -> Properties:
        """Read a file whose name ends as it should, and return what is needed of it before all are read again.

        Raises:
            ValueError: it cannot be read; the text says why.
        """

    @abstractmethod
    def example(self, file: LabelledFile[Properties]) -> dict[str, Any]:
        """The example of a file, without its label."""

    def examples(self, split: str) -> Iterator[dict[str, Any]]:
        for file in self.labelled_files:
            if file.split == split:
                yield self.example(file) | {"label": file.label}

    @functools.cached_property
    def class_label(self) -> tfds.features.ClassLabel:
        """The feature of the label."""
        return tfds.features.ClassLabel(names=[folder.name for folder in self.files["train"]])

    @functools.cached_property
    def labelled_files(self) -> list[LabelledFile[Properties]]:
        """The files that can be read.

        Raises:
            UserError: a folder has no files, or a file cannot be read, unless those are to be skipped.
        """
        contents = CONTENTS[self.settings.builder]
        folders = [(split, folder, files_in(folder)) for split, of_split in self.files.items() for folder in of_split]
        paths = [(split, folder.name, path) for split, folder, of_folder in folders for path in of_folder]
        paths = [each for each in paths if each[2].name.lower() not in SYSTEM_FILES]
        readable: list[LabelledFile[Properties]] = []
        problems: list[str] = []
        with terminal.phase(f"Checking the {contents} of {self.settings.name}"):
            for split, label, path in terminal.track(paths, len(paths)):
                try:
                    readable.append(LabelledFile(split, label, path, self._check(path)))
                except ValueError as error:
                    problems.append(f"{path} ({error})")
        if problems:
            self._report(problems, len(paths))
        complete = {(file.split, file.label) for file in readable}
        for split, folder, _ in folders:
            if (split, folder.name) not in complete:
                endings = ", ".join(EXTENSIONS[self.settings.builder])
                raise UserError(f"{folder} has no {contents}; put files there ({endings}), or remove the folder.")
        return readable

    def _check(self, path: Path) -> Properties:
        endings = EXTENSIONS[self.settings.builder]
        if path.suffix.lower() not in endings:
            raise ValueError(f"its name ends in none of {', '.join(endings)}")
        return self.check(path)

    def _report(self, problems: Sequence[str], total: int) -> None:
        """Raise a UserError that counts the files that cannot be read; only log it if they are to be skipped."""
        contents = f"{total:,} {CONTENTS[self.settings.builder]} in {self.settings.path}"
        message = f"{len(problems):,} of {contents} cannot be read, the first is {problems[0]}"
        if not self.settings.skip_broken:
            raise UserError(f"{message}; replace them, or type dataset.skip_broken=true to leave them out.")
        log.warning("%s; they are left out.", message)
