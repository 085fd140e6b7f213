"""Augmentation of images, which a recipe of images applies in its model: random flips, shifts, rotations, zooms and crops.

References:
    Szegedy, Liu, Jia, Sermanet, Reed, Anguelov, Erhan, Vanhoucke, Rabinovich: Going deeper with convolutions. CVPR 2015. Random
        resized crops.
"""

import math
from typing import Any

import keras
from keras import KerasTensor, layers, ops


def augment(image: KerasTensor, strength: float = 0.0, *, flip: bool = False, shift: int = 0, crop: float = 0.0) -> KerasTensor:
    """Random augmentation, in training only; what enters from outside the image is black.

    Args:
        image: (batch, H, W, C).
        strength: largest shift and zoom, as a fraction of the extent, and three times the largest rotation, as a fraction of a
            turn. 0 disables all three. They interpolate, and so blur: good for handwriting, not for photographs, which are
            sharp at test time.
        flip: mirror every second image, left to right.
        shift: largest shift by whole pixels, in both directions.
        crop: largest fraction of the area that `RandomResizedCrop` leaves out; 0 disables it.
    """
    if crop:
        image = RandomResizedCrop(crop, name="random_resized_crop")(image)
    if strength or flip or shift:
        image = RandomAffine(strength, flip, shift, name="random_affine")(image)
    return image


@keras.saving.register_keras_serializable("recipes.augmentation")
class RandomAffine(layers.Layer):
    """Flip, shift, rotate and zoom each image (batch, H, W, C) at random, in training only; what enters from outside is black.

    Together they are one affine map: the pixel p of the result comes from m + F (z R (p − m) − s) of the image, where m is its
    middle, F the flip, s the shift, R the rotation and z the zoom. So images are resampled once. Without `strength`, each pixel
    comes from a pixel, and none is interpolated.

    Args:
        strength: largest shift and zoom, as a fraction of the extent, and three times the largest rotation, as a fraction of a
            turn; all are uniform. Pixels are then interpolated linearly.
        flip: mirror every second image, left to right.
        shift: largest shift by whole pixels, in both directions: it is uniform, then rounded.
        seed: of the random numbers; None: it follows from `keras.utils.set_random_seed`.
    """

    def __init__(self, strength: float = 0.0, flip: bool = False, shift: int = 0, seed: int | None = None, **kwargs: Any):
        super().__init__(**kwargs)
        self.strength, self.flip, self.shift, self.seed = strength, flip, shift, seed
        self.seed_generator = keras.random.SeedGenerator(seed)
        # TensorFlow's interpolation cannot be compiled by XLA. Gathering the four neighbors can, but costs three times as much.
        self.supports_jit = not strength or keras.config.backend() != "tensorflow"

    def call(self, image: KerasTensor, training: bool = False) -> KerasTensor:
        if not training:
            return image
        uniform = keras.random.uniform((7, ops.shape(image)[0]), -1, 1, dtype="float32", seed=self.seed_generator)
        side, right, down, *others = ops.unstack(uniform)  # (batch,)
        flip = ops.where(side < 0, -1.0, 1.0) if self.flip else ops.ones_like(side)
        right, down = ops.round(self.shift * right), ops.round(self.shift * down)
        if self.strength:
            return self._interpolate(image, flip, right, down, *others)
        return self._rearrange(image, flip, right, down)

    def _interpolate(
        self, image: KerasTensor, flip: KerasTensor, whole_right: KerasTensor, whole_down: KerasTensor,
        right: KerasTensor, down: KerasTensor, angle: KerasTensor, zoom: KerasTensor,
    ) -> KerasTensor:  # fmt: skip
        _, height, width, _ = image.shape
        right, down = whole_right + self.strength * width * right, whole_down + self.strength * height * down  # s, in pixels
        angle, zoom = 2 * math.pi * self.strength / 3 * angle, 1 + self.strength * zoom
        cos, sin = zoom * ops.cos(angle), zoom * ops.sin(angle)  # z R has the rows (cos, −sin) and (sin, cos)
        m_x, m_y = (width - 1) / 2, (height - 1) / 2
        first_x = m_x - flip * (cos * m_x - sin * m_y + right)  # where the first pixel of the result comes from
        first_y = m_y - (sin * m_x + cos * m_y + down)
        zero = ops.zeros_like(cos)
        transform = ops.stack([flip * cos, -flip * sin, first_x, sin, cos, first_y, zero, zero], axis=1)
        return ops.image.affine_transform(image, transform, interpolation="bilinear", fill_mode="constant", fill_value=0)

    def _rearrange(self, image: KerasTensor, flip: KerasTensor, right: KerasTensor, down: KerasTensor) -> KerasTensor:
        _, height, width, channels = image.shape
        flip, right, down = (ops.cast(each, "int32")[:, None] for each in (flip, right, down))
        rows, columns = ops.arange(height) - down, ops.arange(width) - right  # (batch, H) and (batch, W) of the image
        columns = ops.where(flip < 0, width - 1 - columns, columns)
        # In the image with a margin of one black pixel, and with all images of the batch one below the other.
        rows, columns = ops.clip(rows, -1, height) + 1, ops.clip(columns, -1, width) + 1
        rows += (height + 2) * ops.arange(ops.shape(image)[0])[:, None]
        pixels = ops.reshape(ops.pad(image, ((0, 0), (1, 1), (1, 1), (0, 0))), (-1, channels))
        return ops.take(pixels, (width + 2) * rows[:, :, None] + columns[:, None], axis=0)  # (batch, H, W, C)

    def get_config(self) -> dict[str, Any]:
        options = {"strength": self.strength, "flip": self.flip, "shift": self.shift, "seed": self.seed}
        return {**super().get_config(), **options}


@keras.saving.register_keras_serializable("recipes.shared_layers")  # its name in stored models
class RandomResizedCrop(layers.Layer):
    """Enlarge a random part of each image (batch, H, W, C) to the whole, in training only (Szegedy et al. 2015).

    The area of the part is a fraction a of the image's, uniform in 1 − `largest` … 1; its place is uniform where it fits. It is
    wider than the image, relative to its height, by a factor r, where log r is uniform as far as |log r| ≤ log 4/3 and the part
    fits in the image (|log r| ≤ −log a). Pixels are interpolated linearly. Keras has no such layer.

    Args:
        largest: largest fraction of the area that is left out, below 1; 0.92 in the paper.
        seed: of the random numbers; None: it follows from `keras.utils.set_random_seed`.
    """

    def __init__(self, largest: float, seed: int | None = None, **kwargs: Any):
        super().__init__(**kwargs)
        self.largest, self.seed = largest, seed
        self.seed_generator = keras.random.SeedGenerator(seed)
        self.supports_jit = keras.config.backend() != "tensorflow"  # its projection of images cannot be compiled by XLA

    def call(self, image: KerasTensor, training: bool = False) -> KerasTensor:
        if not training:
            return image
        count, height, width, _ = ops.shape(image)

        def uniform() -> KerasTensor:
            return keras.random.uniform((count,), dtype="float32", seed=self.seed_generator)

        area = 1 - self.largest * uniform()
        log_ratio = ops.minimum(math.log(4 / 3), -ops.log(area)) * (2 * uniform() - 1)
        across, down = (ops.sqrt(area * ops.exp(sign * log_ratio)) for sign in (1, -1))  # fractions of width and height
        left, top = width * (1 - across) * uniform(), height * (1 - down) * uniform()  # pixels
        # The pixel x of the result, whose middle is x + ½, is at left + across · (x + ½) of the image.
        zero = ops.zeros_like(area)
        shift_across, shift_down = left + across / 2 - 0.5, top + down / 2 - 0.5
        rows = [across, zero, shift_across, zero, down, shift_down, zero, zero]
        return ops.image.affine_transform(image, ops.stack(rows, axis=1), interpolation="bilinear", fill_mode="nearest")

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "largest": self.largest, "seed": self.seed}
