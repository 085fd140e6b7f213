"""Random resized crops: areas, proportions and places against their definition, and pixels against SciPy's interpolation."""

import keras
import numpy as np
import pytest
import scipy.ndimage
import scipy.stats

from recipes import cnn, lightweight, resnet, transformer
from recipes.augmentation import RandomResizedCrop
from recipes.specs import Classes, Image

HEIGHT, WIDTH = 40, 60
EXAMPLES = 4000
LARGEST = 0.9
RATIO = np.log(4 / 3)


def cropped(images, largest=LARGEST, seed=0):
    return keras.ops.convert_to_numpy(RandomResizedCrop(largest, seed=seed)(images, training=True))


@pytest.fixture(scope="module")
def boxes():
    """The parts that were cropped, in fractions of the image: top, left, height and width of EXAMPLES parts.

    They are read from images whose pixels say where they are: in its middle, a crop is linear in the place.
    """
    y, x = (np.arange(size) + 0.5 for size in (HEIGHT, WIDTH))
    places = np.stack(np.meshgrid(y / HEIGHT, x / WIDTH, indexing="ij"), axis=-1).astype(np.float32)
    result = cropped(np.broadcast_to(places, (EXAMPLES, HEIGHT, WIDTH, 2)))
    (y0, x0), (y1, x1) = (result[:, HEIGHT // 4, WIDTH // 4].T, result[:, -1 - HEIGHT // 4, -1 - WIDTH // 4].T)
    height, width = (y1 - y0) * HEIGHT / (HEIGHT - 1 - 2 * (HEIGHT // 4)), (x1 - x0) * WIDTH / (WIDTH - 1 - 2 * (WIDTH // 4))
    top, left = y0 - height * y[HEIGHT // 4] / HEIGHT, x0 - width * x[WIDTH // 4] / WIDTH
    return top, left, height, width


def test_the_area_is_uniform(boxes):
    _, _, height, width = boxes
    assert scipy.stats.kstest(height * width, scipy.stats.uniform(1 - LARGEST, LARGEST).cdf).pvalue > 0.01


def test_the_logarithm_of_the_ratio_is_uniform_as_far_as_the_part_fits(boxes):
    _, _, height, width = boxes
    limit = np.minimum(RATIO, -np.log(np.minimum(height * width, 1)))
    wide = limit > 0.01  # otherwise rounding hides it
    relative = np.log(width / height)[wide] / limit[wide]
    assert scipy.stats.kstest(relative, scipy.stats.uniform(-1, 2).cdf).pvalue > 0.01
    assert abs(scipy.stats.spearmanr(relative, (height * width)[wide]).statistic) < 0.05


@pytest.mark.parametrize("side", [0, 1])
def test_the_place_is_uniform_where_the_part_fits(boxes, side):
    start, extent = boxes[side], boxes[2 + side]
    assert (start > -1e-5).all()
    assert (start + extent < 1 + 1e-5).all()
    room = 1 - extent > 0.01
    assert scipy.stats.kstest((start / (1 - extent))[room], scipy.stats.uniform.cdf).pvalue > 0.01


def test_pixels_are_interpolated_linearly_from_their_place(boxes):
    images = np.random.default_rng(0).random((EXAMPLES, HEIGHT, WIDTH, 1), np.float32)
    result = cropped(images)
    for n in range(5):
        top, left, height, width = (values[n] for values in boxes)
        rows = HEIGHT * (top + height * (np.arange(HEIGHT) + 0.5) / HEIGHT) - 0.5
        columns = WIDTH * (left + width * (np.arange(WIDTH) + 0.5) / WIDTH) - 0.5
        places = np.meshgrid(rows, columns, indexing="ij")
        expected = scipy.ndimage.map_coordinates(images[n, ..., 0], places, order=1, mode="nearest")
        np.testing.assert_allclose(result[n, ..., 0], expected, atol=1e-3)


def test_images_have_parts_of_their_own_and_a_seed_gives_the_same_again():
    image = np.random.default_rng(0).random((1, 8, 8, 3), np.float32)
    images = np.broadcast_to(image, (50, 8, 8, 3))
    first, again, other = (cropped(images, seed=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).max() > 0.1
    assert len(np.unique(first.reshape(50, -1), axis=0)) == 50


def test_images_stay_as_they_are_outside_of_training_and_with_nothing_to_leave_out():
    images = np.random.default_rng(0).random((4, 8, 8, 3), np.float32)
    np.testing.assert_array_equal(RandomResizedCrop(0.9)(images), images)
    np.testing.assert_allclose(cropped(images, largest=0.0), images, atol=1e-6)
    layer = RandomResizedCrop(0.5, seed=3)
    assert RandomResizedCrop.from_config(layer.get_config()).get_config() == layer.get_config()


def test_stored_models_find_the_layer_in_the_module_where_it_was():
    assert keras.saving.get_registered_object("recipes.shared_layers>RandomResizedCrop") is RandomResizedCrop


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_in_16_bits_the_places_are_the_same(policy):
    images = np.random.default_rng(0).random((8, 100, 100, 1), np.float32)
    layer = RandomResizedCrop(LARGEST, seed=0, dtype=policy)
    result = keras.ops.convert_to_numpy(keras.ops.cast(layer(images, training=True), "float32"))
    np.testing.assert_allclose(result, cropped(images), atol=0.03)


@pytest.mark.parametrize("recipe", [cnn, lightweight, resnet, transformer], ids=lambda recipe: recipe.__name__)
def test_recipes_of_images_crop_on_request(recipe):
    options = {"depth": 8} if recipe is resnet else {}
    crops = {
        crop: [layer.largest for layer in recipe.build(Image(16, 16, 1), Classes(2), crop=crop, **options).layers
               if isinstance(layer, RandomResizedCrop)]
        for crop in (0.0, 0.5)
    }  # fmt: skip
    assert crops == {0.0: [], 0.5: [0.5]}
