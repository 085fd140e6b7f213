"""Residual networks: their sizes are the papers', their blocks compute what the page says."""

import keras
import numpy as np
import pytest

from recipes import resnet
from recipes.specs import Classes, Image


def parameters(model):
    return sum(int(np.prod(weight.shape)) for weight in model.trainable_weights)


@pytest.mark.parametrize(("depth", "count", "paper"), [(20, 269_722, 0.27e6), (56, 853_018, 0.85e6), (110, 1_727_962, 1.7e6)])
def test_number_of_parameters_with_the_cifar_stem(depth, count, paper):
    number = parameters(resnet.build(Image(32, 32, 3), Classes(10), depth=depth))
    assert number == count
    assert number == pytest.approx(paper, rel=0.02)


@pytest.mark.parametrize(
    ("depth", "count", "paper"), [(18, 11_689_512, 11.7e6), (34, 21_797_672, 21.8e6), (50, 25_557_032, 25.6e6)]
)
def test_number_of_parameters_with_the_imagenet_stem(depth, count, paper):
    number = parameters(resnet.build(Image(224, 224, 3), Classes(1000), depth=depth, stem="imagenet", width=64))
    assert number == count
    assert number == pytest.approx(paper, rel=0.005)


def test_resnet50_differs_from_keras_by_the_biases_of_its_convolutions_alone():
    ours = resnet.build(Image(224, 224, 3), Classes(1000), depth=50, stem="imagenet", width=64)
    theirs = keras.applications.ResNet50(weights=None)
    biases = sum(layer.filters for layer in theirs.layers if isinstance(layer, keras.layers.Conv2D))
    assert parameters(theirs) - parameters(ours) == biases


def test_depth_counts_the_layers_with_weights():
    for depth, block in ((20, "basic"), (29, "bottleneck")):
        model = resnet.build(Image(16, 16, 1), Classes(4), depth=depth, block=block)
        weighted = [layer for layer in model.layers if isinstance(layer, (keras.layers.Conv2D, keras.layers.Dense))]
        assert len(weighted) == depth


def normalise(x, layer):
    gamma, beta, mean, variance = layer.get_weights()
    return gamma * (x - mean) / np.sqrt(variance + layer.epsilon) + beta


def convolve(x, kernel, stride=1):
    """(H, W, C) with a kernel (3, 3, C, F), as TensorFlow pads."""
    side = -(-x.shape[0] // stride)
    pad = max((side - 1) * stride + 3 - x.shape[0], 0)
    x = np.pad(x, ((pad // 2, pad - pad // 2), (pad // 2, pad - pad // 2), (0, 0)))
    out = np.zeros((side, side, kernel.shape[3]))
    for i in range(side):
        for j in range(side):
            out[i, j] = np.einsum("uvc,uvcf->f", x[i * stride : i * stride + 3, j * stride : j * stride + 3], kernel)
    return out


@pytest.mark.parametrize("preactivation", [False, True])
@pytest.mark.parametrize("residual", [False, True])
def test_block_matches_the_equations(preactivation, residual):
    keras.utils.set_random_seed(0)
    model = resnet.build(Image(8, 8, 2), Classes(3), depth=8, width=3, preactivation=preactivation, residual=residual)
    for weight in model.weights:
        weight.assign(keras.random.uniform(weight.shape, 0.2, 1.0))
    name = "stage2_block1"  # half the extent, twice the channels: the shortcut of option A
    get = model.get_layer
    before = get("stage1_block1_sum" if preactivation else "stage1_block1_activation") if residual else None
    if before is None:
        before = get("stage1_block1_2") if preactivation else get("stage1_block1_activation")
    after = get(f"{name}_sum") if preactivation and residual else get(f"{name}_2" if preactivation else f"{name}_activation")
    image = np.random.default_rng(0).random((1, 8, 8, 2)).astype(np.float32)
    x, y = keras.Model(model.input, [before.output, after.output]).predict(image, verbose=0)
    x = x[0].astype(np.float64)
    kernels = [get(f"{name}_{n}").get_weights()[0] for n in (1, 2)]
    norms = [get(f"{name}_{n}_normalization") for n in (1, 2)]
    relu = lambda z: np.maximum(z, 0)  # noqa: E731
    if preactivation:
        change = convolve(relu(normalise(convolve(relu(normalise(x, norms[0])), kernels[0], 2), norms[1])), kernels[1])
    else:
        change = normalise(convolve(relu(normalise(convolve(x, kernels[0], 2), norms[0])), kernels[1]), norms[1])
    wanted = change + np.pad(x[::2, ::2], ((0, 0), (0, 0), (0, 3))) if residual else change
    wanted = wanted if preactivation else relu(wanted)
    np.testing.assert_allclose(y[0], wanted, rtol=1e-4)


def test_stochastic_depth_drops_whole_blocks_of_single_examples_and_keeps_the_mean():
    keras.utils.set_random_seed(0)
    model = resnet.build(Image(8, 8, 1), Classes(3), depth=8, stochastic_depth=0.5)
    layer = model.get_layer("stage3_block1_stochastic_depth")
    assert layer.rate == 0.5
    assert model.get_layer("stage1_block1_stochastic_depth").rate == pytest.approx(0.5 / 3)
    kept = keras.ops.convert_to_numpy(layer(np.ones((4000, 2, 2, 3), np.float32), training=True)).reshape(4000, -1)
    assert set(np.unique(kept)) == {0.0, 2.0}
    assert (kept == kept[:, :1]).all()  # all of an example or nothing of it
    assert kept.mean() == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize(
    ("arguments", "answer"),
    [
        ({"depth": 21}, r"depth=21 is not 6n \+ 2.*type model.depth=20 or model.depth=26"),
        ({"depth": 26, "block": "bottleneck"}, r"depth=26 is not 9n \+ 2.*type model.depth=20 or model.depth=29"),
        ({"depth": 3}, r"type model.depth=8"),
        ({"depth": 20, "stem": "imagenet"}, "depth is one of 18, 34, 50, 101, 152, not 20"),
    ],
)
def test_invalid_depths_are_rejected(arguments, answer):
    with pytest.raises(ValueError, match=answer):
        resnet.build(Image(8, 8, 1), Classes(3), **arguments)
