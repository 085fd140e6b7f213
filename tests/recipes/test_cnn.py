"""The equations of recipes/cnn.py against a computation by hand."""

import keras
import numpy as np
import pytest

from recipes import cnn
from recipes.specs import Classes, Image, Series, Tokens


def by_hand(model, image, pooling):
    """The page's equations in plain loops, for one block without normalisation; image (H, W, C)."""
    kernel, bias = (w.astype(np.float64) for w in model.get_layer("block1_1_convolution").get_weights())
    size = kernel.shape[0]
    padded = np.pad(image, ((size // 2, size // 2), (size // 2, size // 2), (0, 0)))
    height, width, _ = image.shape
    responses = np.zeros((height, width, kernel.shape[3]))
    for i in range(height):
        for j in range(width):
            patch = padded[i : i + size, j : j + size]
            responses[i, j] = bias + np.einsum("uvc,uvcf->f", patch, kernel)
    responses = np.maximum(responses, 0)
    blocks = responses.reshape(height // 2, 2, width // 2, 2, -1)
    pooled = blocks.max(axis=(1, 3)) if pooling == "max" else blocks.mean(axis=(1, 3))
    features = pooled.mean(axis=(0, 1))
    for name, activation in (("fully_connected", lambda z: np.maximum(z, 0)), ("logits", lambda z: z)):
        weights, bias = model.get_layer(name).get_weights()
        features = activation(features @ weights + bias)
    return features


@pytest.mark.parametrize("pooling", ["max", "average"])
def test_layers_match_the_equations(pooling):
    keras.utils.set_random_seed(1)
    model = cnn.build(Image(6, 4, 2), Classes(3), filters=[5], pooling=pooling, normalization=False, dense_units=7)
    for weight in model.trainable_weights:  # biases start at 0, where a mistake in them would not show
        weight.assign(keras.random.normal(weight.shape))
    images = np.random.default_rng(0).random((2, 6, 4, 2))
    answer = keras.ops.convert_to_numpy(model(images, training=False))
    np.testing.assert_allclose(answer, [by_hand(model, image, pooling) for image in images], rtol=1e-4, atol=1e-5)


def test_kernels_of_several_sizes_are_those_of_kim():
    """A text of 5 tokens and padding: for each size the largest response of each filter to any of its words."""
    keras.utils.set_random_seed(1)
    model = cnn.build(
        Tokens(8, 20), Classes(3), filters=[2], kernel_size=[1, 3, 4], embedding=6, normalization=False, dense_units=None
    )
    for weight in model.trainable_weights:
        weight.assign(keras.random.normal(weight.shape))
    text = np.array([7, 4, 19, 4, 11])
    words = model.get_layer("embedding").get_weights()[0].astype(np.float64)[text]
    features = []
    for number, size in enumerate((1, 3, 4), 1):
        kernel, bias = model.get_layer(f"block1_1_convolution_{number}").get_weights()
        padded = np.pad(words, (((size - 1) // 2, size // 2), (0, 0)))
        responses = [bias + np.einsum("uc,ucf->f", padded[at : at + size], kernel) for at in range(len(text))]
        features += [*np.maximum(responses, 0).max(axis=0)]
    weights, bias = model.get_layer("logits").get_weights()
    answer = keras.ops.convert_to_numpy(model(np.pad(text, (0, 3))[None], training=False))
    np.testing.assert_allclose(answer[0], features @ weights + bias, rtol=1e-4)


def test_normalisation_uses_the_batch_in_training():
    model = cnn.build(Series(4, 1), Classes(2), filters=[3], dropout=0.0)
    layer = model.get_layer("block1_1_normalization")
    batch = np.random.default_rng(0).normal(3.0, 2.0, (5, 4, 3)).astype(np.float32)
    out = keras.ops.convert_to_numpy(layer(batch, training=True))
    wanted = (batch - batch.mean(axis=(0, 1))) / np.sqrt(batch.var(axis=(0, 1)) + layer.epsilon)
    np.testing.assert_allclose(out, wanted, atol=1e-4)


@pytest.mark.parametrize(
    ("inputs", "parameters"), [(Image(8, 8, 1), 110_698), (Tokens(12, 50), 58_314), (Series(20, 3), 49_258)]
)
def test_number_of_parameters(inputs, parameters):
    model = cnn.build(inputs, Classes(10))
    assert sum(int(np.prod(weight.shape)) for weight in model.trainable_weights) == parameters


def test_augmentation_only_in_training():
    image = keras.Input((8, 8, 1))
    model = keras.Model(image, cnn.augment(image, 0.2))
    pixels = np.random.default_rng(0).random((4, 8, 8, 1)).astype(np.float32)
    np.testing.assert_array_equal(keras.ops.convert_to_numpy(model(pixels, training=False)), pixels)
    assert np.abs(keras.ops.convert_to_numpy(model(pixels, training=True)) - pixels).max() > 0.1


def test_flip_mirrors_half_of_the_images_horizontally():
    image = keras.Input((4, 4, 1))
    model = keras.Model(image, cnn.augment(image, 0.0, flip=True))
    pixels = np.random.default_rng(0).random((200, 4, 4, 1)).astype(np.float32)
    flipped = keras.ops.convert_to_numpy(model(pixels, training=True))
    mirrored = [np.array_equal(after, before[:, ::-1]) for before, after in zip(pixels, flipped)]
    same = [np.array_equal(after, before) for before, after in zip(pixels, flipped)]
    assert all(one != other for one, other in zip(mirrored, same))
    assert 60 < sum(mirrored) < 140  # six standard deviations


def test_shift_is_by_whole_pixels_within_the_limit():
    image = keras.Input((6, 6, 1))
    model = keras.Model(image, cnn.augment(image, shift=2))
    pixels = np.random.default_rng(0).random((200, 6, 6, 1)).astype(np.float32)
    np.testing.assert_array_equal(keras.ops.convert_to_numpy(model(pixels, training=False)), pixels)
    shifts = set()
    for before, after in zip(pixels, keras.ops.convert_to_numpy(model(pixels, training=True))):
        padded = np.pad(before, ((2, 2), (2, 2), (0, 0)))
        places = [(y, x) for y in range(5) for x in range(5) if np.array_equal(padded[y : y + 6, x : x + 6], after)]
        assert len(places) == 1
        shifts.update(places)
    assert len(shifts) > 20  # of 25
