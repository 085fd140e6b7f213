"""Random flips, shifts, rotations and zooms of images: their maps against Keras's layers, their pixels against SciPy."""

import keras
import numpy as np
import pytest
import scipy.ndimage
import scipy.stats
import tensorflow as tf
from keras import layers

from recipes import cnn, lightweight, resnet, transformer
from recipes.augmentation import RandomAffine, RandomResizedCrop
from recipes.specs import Classes, Image

HEIGHT, WIDTH = 40, 60
EXAMPLES = 3000
STRENGTH = 0.2
ALL = {"strength": STRENGTH, "flip": True, "shift": 2}
BLACK = {"fill_mode": "constant", "fill_value": 0.0}


def augmented(images, seed=0, **options):
    return keras.ops.convert_to_numpy(RandomAffine(**options, seed=seed)(np.asarray(images, np.float32), training=True))


def augmented_by_keras(images):
    """All, in the layers that Keras has, one after another."""
    keras.utils.set_random_seed(0)
    for layer in (
        layers.RandomFlip("horizontal"), layers.RandomTranslation(2 / HEIGHT, 2 / WIDTH, interpolation="nearest", **BLACK),
        layers.RandomTranslation(STRENGTH, STRENGTH, **BLACK), layers.RandomRotation(STRENGTH / 3, **BLACK),
        layers.RandomZoom(STRENGTH, **BLACK),
    ):  # fmt: skip
        images = layer(images, training=True)
    return keras.ops.convert_to_numpy(images)


def random_images(count):
    return np.random.default_rng(0).random((count, HEIGHT, WIDTH, 1), np.float32)


def maps(augment):
    """Apply a function to EXAMPLES images, and read off which affine map it gave each of them.

    The pixels of the images are their own places. Those near the middle of the result come from inside.

    Returns:
        Matrices (EXAMPLES, 2, 3) from pixels (x, y, 1) of the result to places x, y in the image, all from the middle.
    """
    y, x = np.mgrid[:HEIGHT, :WIDTH] - np.array([HEIGHT - 1, WIDTH - 1])[:, None, None] / 2
    places = np.stack([x, y], axis=-1).astype(np.float32)
    inside = np.hypot(x, y) < 6
    result = augment(np.broadcast_to(places, (EXAMPLES, *places.shape)))[:, inside].astype(np.float64)  # (n, pixels, 2)
    pixels = np.stack([x[inside], y[inside], np.ones(inside.sum())], axis=-1)
    matrices = (np.linalg.pinv(pixels) @ result).transpose(0, 2, 1)
    np.testing.assert_allclose(pixels @ matrices.transpose(0, 2, 1), result, atol=1e-3)
    return matrices


@pytest.fixture(scope="module")
def interpolated():
    return maps(lambda images: augmented(images, strength=STRENGTH))


def test_maps_are_distributed_as_those_of_keras_layers_in_a_row():
    both = [maps(augment).reshape(EXAMPLES, 6) for augment in (lambda images: augmented(images, **ALL), augmented_by_keras)]
    for entry in range(6):
        assert scipy.stats.ks_2samp(*(entries[:, entry] for entries in both)).pvalue > 0.001
        for other in range(entry + 1):  # products show how entries depend on each other
            products = (entries[:, entry] * entries[:, other] for entries in both)
            assert scipy.stats.ks_2samp(*products).pvalue > 0.001


def test_zoom_rotation_and_shift_are_uniform_and_independent(interpolated):
    zoom = np.sqrt(np.linalg.det(interpolated[:, :, :2]))
    turns = np.arctan2(interpolated[:, 1, 0], interpolated[:, 0, 0]) / (2 * np.pi)
    drawn = np.array([zoom - 1, turns, interpolated[:, 0, 2] / WIDTH, interpolated[:, 1, 2] / HEIGHT])
    for values, limit in zip(drawn, (STRENGTH, STRENGTH / 3, STRENGTH, STRENGTH)):
        assert scipy.stats.kstest(values, scipy.stats.uniform(-limit, 2 * limit).cdf).pvalue > 0.01
    drawn = np.concatenate([drawn, np.abs(drawn), drawn[2:3] * drawn[3:4]])  # which depend on each other if the order is wrong
    correlations = scipy.stats.spearmanr(drawn, axis=1).statistic - np.eye(len(drawn))
    assert np.abs(correlations).max() < 4 / np.sqrt(EXAMPLES)
    cos, sin = zoom * np.cos(2 * np.pi * turns), zoom * np.sin(2 * np.pi * turns)
    expected = np.stack([np.stack([cos, -sin], axis=1), np.stack([sin, cos], axis=1)], axis=1)
    np.testing.assert_allclose(interpolated[:, :, :2], expected, atol=1e-4)


def test_pixels_are_interpolated_linearly_and_black_outside(interpolated):
    images = random_images(EXAMPLES)
    result = augmented(images, strength=STRENGTH)
    middle = np.array([HEIGHT - 1, WIDTH - 1]) / 2
    for image, actual, matrix in zip(images[:5], result, interpolated):
        rows_first = matrix[::-1, [1, 0]]  # SciPy counts y first, and from the corner
        offset = middle - rows_first @ middle + matrix[::-1, 2]
        expected = scipy.ndimage.affine_transform(image[..., 0], rows_first, offset, order=1, mode="grid-constant")
        np.testing.assert_allclose(actual[..., 0], expected, atol=1e-3)
        assert (expected == 0).any()


@pytest.mark.parametrize("xla", [False, True])
def test_flips_and_whole_shifts_leave_pixels_as_they_are(xla):
    """A shift that is uniform in −2 … 2 is rounded to each of −2 and 2 half as often as to each of −1, 0 and 1."""
    images, counts = random_images(EXAMPLES), np.zeros((2, 5, 5))
    layer = RandomAffine(flip=True, shift=2, seed=0)
    assert layer.supports_jit
    results = tf.function(lambda images: layer(images, training=True), jit_compile=xla)(images).numpy()
    for image, result in zip(images, results):
        padded = [np.pad(image[:, ::side], ((2, 2), (2, 2), (0, 0))) for side in (1, -1)]
        (case,) = [(flip, y, x) for flip, y, x in np.ndindex(counts.shape) if padded[flip][y + 9, x + 9] == result[9, 9]]
        flip, y, x = case
        np.testing.assert_array_equal(result, padded[flip][y : y + HEIGHT, x : x + WIDTH])
        counts[case] += 1
    share = np.array([1, 2, 2, 2, 1]) / 8
    expected = EXAMPLES / 2 * share[:, None] * share
    assert scipy.stats.chisquare(counts.ravel(), np.broadcast_to(expected, counts.shape).ravel()).pvalue > 0.01


def test_images_have_numbers_of_their_own_and_a_seed_gives_the_same_again():
    images = np.broadcast_to(np.random.default_rng(0).random((1, 8, 8, 3), np.float32), (50, 8, 8, 3))
    first, again, other = (augmented(images, seed, **ALL) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).max() > 0.1
    assert len(np.unique(first.reshape(50, -1), axis=0)) == 50


def test_images_stay_as_they_are_outside_of_training_and_with_all_disabled():
    images = np.random.default_rng(0).random((4, 8, 7, 3), np.float32)
    np.testing.assert_array_equal(RandomAffine(**ALL)(images), images)
    np.testing.assert_array_equal(augmented(images), images)
    layer = RandomAffine(**ALL, seed=3)
    assert layer.get_config() == {**layer.get_config(), **ALL, "seed": 3}
    assert RandomAffine.from_config(layer.get_config()).get_config() == layer.get_config()


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
@pytest.mark.parametrize("strength", [0.0, STRENGTH])
def test_in_16_bits_the_places_are_the_same(policy, strength):
    images = np.random.default_rng(0).random((8, 100, 100, 1), np.float32)
    options = {**ALL, "strength": strength, "seed": 0}
    result = RandomAffine(**options, dtype=policy)(images, training=True)
    assert keras.backend.standardize_dtype(result.dtype) == policy.removeprefix("mixed_")
    np.testing.assert_allclose(keras.ops.cast(result, "float32"), augmented(images, **options), atol=0.03)


@pytest.mark.parametrize("recipe", [cnn, lightweight, resnet, transformer], ids=lambda recipe: recipe.__name__)
def test_recipes_augment_on_request_in_one_layer_besides_crops(recipe):
    options = {"depth": 8} if recipe is resnet else {}
    for augmentation, flip, shift, crop in ((0.1, True, 2, 0.5), (0.0, False, 1, 0.0), (0.0, False, 0, 0.0)):
        requested = {"augmentation": augmentation, "flip": flip, "shift": shift, "crop": crop}
        model = recipe.build(Image(16, 16, 1), Classes(2), **requested, **options)
        crops = [layer.largest for layer in model.layers if isinstance(layer, RandomResizedCrop)]
        affine = [(each.strength, each.flip, each.shift) for each in model.layers if isinstance(each, RandomAffine)]
        assert crops == ([crop] if crop else [])
        assert affine == ([(augmentation, flip, shift)] if augmentation or flip or shift else [])
