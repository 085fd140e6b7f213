"""`images`: pictures in folders, one for each class."""

from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds
from PIL import Image, UnidentifiedImageError

from src.datasets.builders.files.folders import FoldersBuilder, LabelledFile

FORMATS = ("JPEG", "PNG")
GRAYSCALE = {"1", "L", "LA", "La", "I", "I;16", "I;16B", "F"}  # Pillow's modes

Shape = tuple[int, int, int]  # (height, width, channels), with one channel if a picture is grayscale and else three


class Images(FoldersBuilder[Shape]):
    """JPEG and PNG pictures of any size, stored as they are; the class of a picture is the name of its folder.

    They have one channel if all are grayscale, and three otherwise; opacity is left out.
    """

    DESCRIPTION = "Pictures of the user's own"

    def describe_features(self) -> tfds.features.FeaturesDict:
        heights, widths, channels = (set(values) for values in zip(*(file.properties for file in self.labelled_files)))
        height, width = (sizes.pop() if len(sizes) == 1 else None for sizes in (heights, widths))
        image = tfds.features.Image(shape=(height, width, max(channels)))
        return tfds.features.FeaturesDict({"image": image, "label": self.class_label})

    def example(self, file: LabelledFile[Shape]) -> dict[str, Any]:
        return {"image": file.path.read_bytes()}

    def check(self, file: Path) -> Shape:
        """Read a picture, and return its shape."""
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
