"""Lightweight networks: their sizes are the papers', their parts compute what the page says."""

import keras
import numpy as np
import pytest

from recipes import lightweight
from recipes.specs import Classes, Image


def parameters(model):
    return sum(int(np.prod(weight.shape)) for weight in model.trainable_weights)


def full_size(variant, width=1.0):
    return lightweight.build(Image(224, 224, 3), Classes(1000), variant=variant, width=width, blocks=None, last=None)


@pytest.mark.parametrize(
    ("variant", "count", "paper"),
    [
        ("mobilenet_v1", 4_231_976, 4.2e6),
        ("mobilenet_v2", 3_504_872, 3.5e6),
        ("mobilenet_v3_small", 2_542_856, 2.5e6),
        ("shufflenet_v2", 2_278_604, 2.3e6),
    ],
)
def test_number_of_parameters(variant, count, paper):
    number = parameters(full_size(variant))
    assert number == count
    assert number == pytest.approx(paper, rel=0.02)


@pytest.mark.parametrize(
    ("variant", "theirs"),
    [("mobilenet_v1", "MobileNet"), ("mobilenet_v2", "MobileNetV2"), ("mobilenet_v3_small", "MobileNetV3Small")],
)
def test_number_of_parameters_is_that_of_keras(variant, theirs):
    assert parameters(full_size(variant)) == parameters(getattr(keras.applications, theirs)(weights=None))


def test_narrow_mobilenets_are_those_of_keras():
    ours = lightweight.build(Image(224, 224, 3), Classes(1000), variant="mobilenet_v2", width=0.35, blocks=None, last=None)
    assert parameters(ours) == parameters(keras.applications.MobileNetV2(alpha=0.35, weights=None))


@pytest.mark.parametrize("extent", [8, 28, 32, 224])
@pytest.mark.parametrize("variant", ["mobilenet_v1", "mobilenet_v2", "mobilenet_v3_small", "shufflenet_v2"])
def test_small_images_are_downsampled_less_often(variant, extent):
    model = lightweight.build(Image(extent, extent, 1), Classes(3), variant=variant, width=0.25, blocks=None, last=16)
    before = model.get_layer("global_pooling").input.shape[1]
    assert before == {8: 4, 28: 7, 32: 4, 224: 7}[extent]


def test_a_separable_convolution_is_a_convolution_of_low_rank():
    """A depthwise and a pointwise kernel together are one K × K kernel."""
    draw = np.random.default_rng(0)
    image = draw.normal(size=(1, 6, 6, 3)).astype(np.float32)
    depthwise, pointwise = keras.layers.DepthwiseConv2D(3, padding="same"), keras.layers.Conv2D(5, 1)
    answer = pointwise(depthwise(image))
    full = keras.layers.Conv2D(5, 3, padding="same")
    full.build(image.shape)
    kernel = np.einsum("uvcm,xycf->uvcf", depthwise.get_weights()[0], pointwise.get_weights()[0])
    full.set_weights([kernel, np.zeros(5)])
    np.testing.assert_allclose(answer, full(image), atol=1e-5)


def test_the_halves_of_a_shufflenet_block_are_interleaved():
    model = lightweight.build(Image(8, 8, 1), Classes(3), variant="shufflenet_v2", width=0.25)
    name = "block2"
    both = keras.Model(
        model.input, [model.get_layer(f"{name}_concatenated").output, model.get_layer(f"{name}_shuffled").output]
    )
    joined, shuffled = both.predict(np.random.default_rng(0).random((1, 8, 8, 1)), verbose=0)
    half = joined.shape[-1] // 2
    np.testing.assert_array_equal(shuffled[..., 0::2], joined[..., :half])
    np.testing.assert_array_equal(shuffled[..., 1::2], joined[..., half:])


def test_number_of_blocks_can_be_reduced():
    few = lightweight.build(Image(28, 28, 1), Classes(10), variant="mobilenet_v1", width=0.25, blocks=3)
    assert sum(isinstance(layer, keras.layers.DepthwiseConv2D) for layer in few.layers) == 3
