"""`images`: pictures in folders, one for each class."""

import contextlib
import io
import struct
from pathlib import Path
from typing import Any, NamedTuple

import tensorflow_datasets as tfds
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from src.datasets.builders.files.folders import FoldersBuilder, LabelledFile

FORMATS = ("JPEG", "PNG")
GRAYSCALE = {"1", "L", "LA", "La", "I", "I;16", "I;16B", "F"}  # Pillow's modes
UPRIGHT, TURNED, LAST = 1, 5, 8  # EXIF's orientations: as stored, the first with height and width exchanged, the last
SAVING = {"JPEG": {"quality": 95, "subsampling": 0}, "PNG": {}}  # of pictures that are stored anew


class Picture(NamedTuple):
    """What a file says of its picture.

    Attributes:
        height, width: in pixels, when it is upright.
        channels: one if it is grayscale, and else three.
        is_upright: whether it is stored upright.
    """

    height: int
    width: int
    channels: int
    is_upright: bool


class Images(FoldersBuilder[Picture]):
    """JPEG and PNG pictures of any size; the class of a picture is the name of its folder.

    They have one channel if all are grayscale, and three otherwise; opacity is left out. They are stored as the files are, but
    those are turned upright whose EXIF data says that the camera was not, which TensorFlow would not heed.
    """

    VERSION = tfds.core.Version("1.1.0")
    RELEASE_NOTES = {"1.1.0": "Pictures are upright."}
    DESCRIPTION = "Pictures of the user's own"

    def describe_features(self) -> tfds.features.FeaturesDict:
        heights, widths, channels, _ = (set(values) for values in zip(*(file.properties for file in self.labelled_files)))
        height, width = (sizes.pop() if len(sizes) == 1 else None for sizes in (heights, widths))
        image = tfds.features.Image(shape=(height, width, max(channels)))
        return tfds.features.FeaturesDict({"image": image, "label": self.class_label})

    def example(self, file: LabelledFile[Picture]) -> dict[str, Any]:
        return {"image": file.path.read_bytes() if file.properties.is_upright else _turned_upright(file.path)}

    def check(self, file: Path) -> Picture:
        try:
            with Image.open(file) as picture:
                if picture.format not in FORMATS:
                    raise ValueError(f"its format is {picture.format}, not JPEG or PNG")
                picture.load()
                orientation = _orientation(picture)
                size = (picture.width, picture.height) if orientation >= TURNED else (picture.height, picture.width)
                return Picture(*size, 1 if picture.mode in GRAYSCALE else 3, orientation == UPRIGHT)
        except UnidentifiedImageError:
            raise ValueError("it is no picture") from None
        except (OSError, SyntaxError, Image.DecompressionBombError) as error:
            raise ValueError(str(error).splitlines()[0][:80]) from None


def _orientation(picture: Image.Image) -> int:
    """EXIF's orientation of a picture, 1 to 8; 1, upright, if there is none that can be read."""
    with contextlib.suppress(OSError, SyntaxError, ValueError, struct.error):  # the pixels can be read without it
        orientation: int = picture.getexif().get(ExifTags.Base.Orientation, UPRIGHT)
        if orientation in range(UPRIGHT, LAST + 1):
            return orientation
    return UPRIGHT


def _turned_upright(file: Path) -> bytes:
    """The content of a picture's file, in the same format, but with the pixels as EXIF's orientation says."""
    content = io.BytesIO()
    with Image.open(file) as picture:
        ImageOps.exif_transpose(picture).save(content, picture.format, **SAVING[str(picture.format)])
    return content.getvalue()
