"""`images`: pictures in folders, one for each class."""

import functools
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import tensorflow_datasets as tfds
from PIL import Image, UnidentifiedImageError

from src import terminal
from src.config.files import PICTURES, files_in
from src.datasets.builders.files.base import Draw, FilesBuilder
from src.errors import UserError

FORMATS = ("JPEG", "PNG")
GRAYSCALE = {"1", "L", "LA", "La", "I", "I;16", "I;16B", "F"}  # Pillow's modes
NO_PICTURES = {"thumbs.db", "desktop.ini"}  # what Windows puts into folders

log = logging.getLogger(__name__)


class Picture(NamedTuple):
    """A file with a picture.

    Attributes:
        split: that it is in.
        label: its class.
        file: its path.
        shape: (height, width, channels), with one channel if it is grayscale and else three.
    """

    split: str
    label: str
    file: Path
    shape: tuple[int, int, int]


class Images(FilesBuilder):
    """JPEG and PNG pictures of any size, stored as they are; the class of a picture is the name of its folder.

    They have one channel if all are grayscale, and three otherwise; opacity is left out.
    """

    DESCRIPTION = "Pictures of the user's own"

    @property
    def draw(self) -> Draw:
        return "stratified"

    def describe_features(self) -> tfds.features.FeaturesDict:
        heights, widths, channels = (set(values) for values in zip(*(picture.shape for picture in self.pictures)))
        height, width = (sizes.pop() if len(sizes) == 1 else None for sizes in (heights, widths))
        classes = [folder.name for folder in self.files["train"]]
        image = tfds.features.Image(shape=(height, width, max(channels)))
        return tfds.features.FeaturesDict({"image": image, "label": tfds.features.ClassLabel(names=classes)})

    def examples(self, split: str) -> Iterator[dict[str, Any]]:
        for picture in self.pictures:
            if picture.split == split:
                yield {"image": picture.file.read_bytes(), "label": picture.label}

    @functools.cached_property
    def pictures(self) -> list[Picture]:
        """The pictures that can be read.

        Raises:
            UserError: a folder has no pictures, or a picture cannot be read, unless those are to be skipped.
        """
        folders = [(split, folder, files_in(folder)) for split, of_split in self.files.items() for folder in of_split]
        files = [(split, folder.name, file) for split, folder, of_folder in folders for file in of_folder]
        pictures: list[Picture] = []
        problems: list[str] = []
        with terminal.phase(f"Checking the pictures of {self.settings.name}"):
            for split, label, file in terminal.track(files, len(files)):
                if file.name.lower() not in NO_PICTURES:
                    try:
                        pictures.append(Picture(split, label, file, _shape_of(file)))
                    except ValueError as error:
                        problems.append(f"{file} ({error})")
        if problems:
            self._report(problems, len(files))
        complete = {(picture.split, picture.label) for picture in pictures}
        for split, folder, _ in folders:
            if (split, folder.name) not in complete:
                raise UserError(f"{folder} has no pictures; put JPEG or PNG files there, or remove the folder.")
        return pictures

    def _report(self, problems: Sequence[str], total: int) -> None:
        """Raise a UserError that counts the pictures that cannot be read; only log it if they are to be skipped."""
        message = f"{len(problems):,} of {total:,} pictures in {self.settings.path} cannot be read, the first is {problems[0]}"
        if not self.settings.skip_broken:
            raise UserError(f"{message}; replace them, or type dataset.skip_broken=true to leave them out.")
        log.warning("%s; they are left out.", message)


def _shape_of(file: Path) -> tuple[int, int, int]:
    """Read a picture, and return its shape.

    Raises:
        ValueError: it cannot be read; the text says why.
    """
    if file.suffix.lower() not in PICTURES:
        raise ValueError(f"its name ends in none of {', '.join(PICTURES)}")
    try:
        with Image.open(file) as picture:
            if picture.format not in FORMATS:
                raise ValueError(f"its format is {picture.format}, not JPEG or PNG")
            picture.load()
            return picture.height, picture.width, 1 if picture.mode in GRAYSCALE else 3
    except UnidentifiedImageError:
        raise ValueError("it is no picture") from None
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(str(error).splitlines()[0][:80]) from None
