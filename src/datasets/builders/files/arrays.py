"""`arrays`: images and labels as NumPy arrays in a file."""

import contextlib
import functools
import zipfile
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from src.config.files import SPLITS, SUPPORTED
from src.datasets.builders.files.base import Draw, FilesBuilder
from src.errors import UserError


class Arrays(FilesBuilder):
    """Arrays `x` and `y`, or `x_train`, `y_train`, … for each split, in a .npz file.

    Images are (examples, height, width) or (examples, height, width, channels), and labels (examples,) or (examples, 1);
    (examples, labels) says 0 or 1 for each label, of which an image has any number.
    """

    DESCRIPTION = "Arrays of the user's own"

    @property
    def draw(self) -> Draw:
        return "random" if self.info.features[self.target].shape else "stratified"

    @property
    def target(self) -> str:
        """The single array of targets.

        Raises:
            UserError: there are several.
        """
        if len(self.targets) > 1:
            raise UserError("dataset=arrays has one array of targets; type one name, as in dataset.targets=y.")
        return self.targets[0]

    @functools.cached_property
    def arrays(self) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """{split: images (examples, height, width, channels) and labels (examples,)}

        Raises:
            UserError: the file has no such arrays, or they are no images and labels.
        """
        (path,) = self.files["train"]
        try:
            with np.load(path, allow_pickle=False) as stored:  # a pickle can hold code, which would be run
                names = {split: self._names(split, stored.files) for split in ("train", "validation", "test")}
                if names["train"] is None:
                    inputs, targets = self.input, self.target
                    raise UserError(
                        f"{path} has no arrays {inputs} and {targets}, or {inputs}_train and {targets}_train; type "
                        f"dataset.inputs=… and dataset.targets=… with names from: {', '.join(stored.files)}."
                    )
                return {split: self._images_and_labels(stored, *pair) for split, pair in names.items() if pair}
        except (OSError, EOFError, zipfile.BadZipFile, ValueError) as error:
            raise UserError(f"{path} is no file of NumPy's savez ({str(error).splitlines()[0][:80]}).") from None

    def _names(self, split: str, available: Sequence[str]) -> tuple[str, str] | None:
        """The names of the arrays of a split, if the file has them."""
        suffixes = [f"_{suffix}" for suffix, of_split in SPLITS.items() if of_split == split]
        for suffix in [*suffixes, *([""] if split == "train" else [])]:
            pair = f"{self.input}{suffix}", f"{self.target}{suffix}"
            if set(pair) <= set(available):
                return pair
        return None

    def _load(self, stored: Any, name: str) -> np.ndarray:
        with contextlib.suppress(ValueError):  # of an array of objects
            return stored[name]
        raise UserError(
            f"{self.settings.path}: the array {name} holds Python objects, which are not loaded, since a file of objects can "
            "hold code; store it with a type of numbers or of texts."
        )

    def _images_and_labels(self, stored: Any, inputs: str, targets: str) -> tuple[np.ndarray, np.ndarray]:
        """The arrays with these names: images with channels, and labels (examples,)."""
        path, images, labels = self.settings.path, self._load(stored, inputs), self._load(stored, targets)
        if len(images) != len(labels):
            raise UserError(f"{path}: {inputs} has {len(images):,} examples, but {targets} has {len(labels):,}; correct one.")
        if images.ndim not in (3, 4) or images.dtype.kind not in "buif":
            raise UserError(
                f"{path}: {inputs} holds {images.dtype} of shape {images.shape}, not images (examples, height, width, "
                f"channels), and vectors of features are not supported; {SUPPORTED}."
            )
        if labels.ndim == 2 and labels.shape[1] == 1:
            labels = labels[:, 0]
        several = labels.ndim == 2 and labels.dtype.kind in "biu" and np.isin(labels, (0, 1)).all()
        if not several and (labels.ndim != 1 or labels.dtype.kind not in "biuUS"):
            raise UserError(
                f"{path}: {targets} holds {labels.dtype} of shape {labels.shape}, but each image has one label, an integer or "
                "a text, or 0 or 1 for each of several labels; regression, detection and segmentation are not supported, "
                f"{SUPPORTED}."
            )
        return images.reshape(*images.shape[:3], -1), labels

    def describe_features(self) -> tfds.features.FeaturesDict:
        images, labels = self.arrays["train"]
        image = tfds.features.Tensor(shape=images.shape[1:], dtype=images.dtype, encoding=tfds.features.Encoding.BYTES)
        label = tfds.features.Tensor(shape=labels.shape[1:], dtype=np.uint8) if labels.ndim == 2 else tfds.features.Text()
        return tfds.features.FeaturesDict({self.input: image, self.target: label})

    def split_names(self) -> Sequence[str]:
        return list(self.arrays)

    def examples(self, split: str) -> Iterator[dict[str, Any]]:
        shape = self.arrays["train"][0].shape[1:]
        images, labels = self.arrays[split]
        if images.shape[1:] != shape:
            raise UserError(
                f"{self.settings.path}: images of the {split} split are {images.shape[1:]}, but those of train {shape}."
            )
        for image, label in zip(images, labels):
            yield {self.input: image, self.target: label.astype(np.uint8) if np.ndim(label) else _name(label)}


def _name(label: bytes | np.generic) -> str:
    return label.decode() if isinstance(label, bytes) else str(label)
