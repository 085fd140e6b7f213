"""What networks for images share: random distortion in training, and batch normalisation."""

import keras
from keras import KerasTensor, layers


def batch_normalization(name: str) -> layers.BatchNormalization:
    """Batch normalisation (Ioffe & Szegedy 2015) that suits small data sets and several devices.

    Its statistics are those of the whole batch, not of a replica's share of it, which makes training on several devices
    equal training on one; Keras has this on the TensorFlow backend alone. The moving mean and variance, which are used
    after training, follow within tens of steps: a small data set has few.
    """
    return layers.BatchNormalization(momentum=0.9, synchronized=keras.config.backend() == "tensorflow", name=name)


def augment(image: KerasTensor, strength: float = 0.0, *, flip: bool = False, shift: int = 0) -> KerasTensor:
    """Small random distortions, in training only; what comes in from outside the image is black.

    Args:
        image: (batch, H, W, C).
        strength: shift and zoom by up to this fraction of the extent, rotation by up to a third of this fraction of a
            turn. 0 leaves images as they are. All three interpolate, and so blur: good for writing, not for photographs,
            which are seen sharp afterwards.
        flip: every second one is mirrored, left for right.
        shift: by up to so many whole pixels, in both directions.
    """
    outside = {"fill_mode": "constant", "fill_value": 0.0}
    if flip:
        image = layers.RandomFlip("horizontal", name="random_flip")(image)
    if shift:
        down, across = shift / image.shape[1], shift / image.shape[2]
        image = layers.RandomTranslation(down, across, interpolation="nearest", **outside, name="random_whole_shift")(image)
    if not strength:
        return image
    image = layers.RandomTranslation(strength, strength, **outside, name="random_shift")(image)
    image = layers.RandomRotation(strength / 3, **outside, name="random_rotation")(image)
    return layers.RandomZoom(strength, **outside, name="random_zoom")(image)
