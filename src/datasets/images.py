"""Images of any size, brought to one size and number of channels, as TensorFlow operations on a single image."""

import functools
from typing import Any, NamedTuple

import tensorflow as tf

from src.config import schema


class ImageTransform(NamedTuple):
    """What is done to each image of a data set.

    Attributes:
        size: (height, width) in pixels; None: it is kept.
        resize: how the size is reached: crop, pad or stretch.
        channels: number of channels; None: it is kept.
    """

    size: tuple[int, int] | None
    resize: str
    channels: int | None

    @classmethod
    def of(cls, settings: schema.Dataset) -> "ImageTransform":
        size = None if settings.image_size is None else (settings.image_size[0], settings.image_size[1])
        return cls(size, settings.resize, settings.channels)

    @property
    def is_identity(self) -> bool:
        """Whether images stay as they are."""
        return self.size is None and self.channels is None

    def shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape (H, W, C) of images that have another one before. None among its numbers: it varies."""
        return *(self.size or shape[:2]), self.channels or shape[2]

    def apply(self, image: tf.Tensor) -> tf.Tensor:
        """Transform an image (H, W, C) of any numeric type, which is kept."""
        if self.channels is not None:
            image = convert_channels(image, self.channels)
        return image if self.size is None else resize(image, self.size, self.resize)


def resize(image: tf.Tensor, size: tuple[int, int], method: str) -> tf.Tensor:
    """Resize an image with antialiasing: to a smaller one by averaging areas, otherwise by bilinear interpolation.

    Averages of areas cost less than half of an antialiased interpolation.

    Args:
        image: (H, W, C) of any numeric type, which is kept; integers are rounded.
        size: (height, width) in pixels.
        method: "stretch" changes the proportions; "crop" keeps them, and leaves out what lies beyond the size, on both sides
            alike; "pad" keeps them, and adds zeros on both sides alike.
    """
    if method == "crop":
        image = _crop_to_proportions(image, size)
    to_size = functools.partial(tf.image.resize_with_pad if method == "pad" else _stretch, image, *size)
    height, width = tf.shape(image)[0], tf.shape(image)[1]
    shrinks = tf.logical_or if method == "pad" else tf.logical_and  # with padding, one side decides the scale of both
    resized = tf.cond(
        shrinks(height >= size[0], width >= size[1]),
        lambda: to_size(method="area"), lambda: to_size(method="bilinear", antialias=True),
    )  # fmt: skip
    resized = tf.ensure_shape(resized, (*size, image.shape[-1]))
    return tf.cast(resized if image.dtype.is_floating else tf.round(resized), image.dtype)


def _stretch(image: tf.Tensor, height: int, width: int, **options: Any) -> tf.Tensor:
    return tf.image.resize(image, (height, width), **options)


def _crop_to_proportions(image: tf.Tensor, size: tuple[int, int]) -> tf.Tensor:
    """The largest part in the middle of an image that has the proportions of a size."""
    height, width = tf.shape(image)[0], tf.shape(image)[1]
    rows = tf.minimum(height, tf.maximum(1, (2 * width * size[0] + size[1]) // (2 * size[1])))  # rounded
    columns = tf.minimum(width, tf.maximum(1, (2 * height * size[1] + size[0]) // (2 * size[0])))
    return tf.image.crop_to_bounding_box(image, (height - rows) // 2, (width - columns) // 2, rows, columns)


def convert_channels(image: tf.Tensor, channels: int) -> tf.Tensor:
    """Convert an image between gray (1), gray with opacity (2), color (3) and color with opacity (4).

    Opacity is left out, or added as fully opaque; gray is Rec. 601's luma of the colors.

    Args:
        image: (H, W, C) of any numeric type, which is kept.
        channels: of the result.
    """
    present = image.shape[-1]
    if present == channels:
        return image
    color = image[..., : present - (present % 2 == 0)]  # without opacity
    with_opacity = channels % 2 == 0
    if channels < 3 and color.shape[-1] == 3:
        color = tf.image.rgb_to_grayscale(color)
    elif channels >= 3 and color.shape[-1] == 1:
        color = tf.image.grayscale_to_rgb(color)
    if not with_opacity:
        return color
    opacity = image[..., -1:] if present % 2 == 0 else tf.ones_like(image[..., :1]) * _white(image.dtype)
    return tf.concat([color, opacity], axis=-1)


def _white(dtype: tf.DType) -> tf.Tensor:
    return tf.ones((), dtype) if dtype.is_floating else tf.constant(dtype.max, dtype)
