"""Multiply–accumulate operations, counted by hand for each kind of layer."""

import keras
import numpy as np
import pytest
from keras import layers

from recipes import lightweight, resnet
from recipes.specs import Classes, Image
from src.training import cost

attention_input = keras.Input((5, 8))
CASES = {
    "dense": (keras.Sequential([keras.Input((5, 8)), layers.Dense(3)]), 5 * 8 * 3),
    "convolution": (keras.Sequential([keras.Input((8, 6, 2)), layers.Conv2D(4, 3, padding="same")]), 8 * 6 * 4 * 3 * 3 * 2),
    "strides": (keras.Sequential([keras.Input((8, 8, 2)), layers.Conv2D(4, 2, strides=2)]), 4 * 4 * 4 * 2 * 2 * 2),
    "groups": (keras.Sequential([keras.Input((8, 8, 4)), layers.Conv2D(8, 3, groups=2, padding="same")]), 64 * 8 * 9 * 2),
    "depthwise": (keras.Sequential([keras.Input((8, 8, 3)), layers.DepthwiseConv2D(3, padding="same")]), 64 * 3 * 9),
    "transposed": (keras.Sequential([keras.Input((4, 4, 3)), layers.Conv2DTranspose(2, 3, 2, padding="same")]), 16 * 9 * 2 * 3),
    "sequence": (keras.Sequential([keras.Input((7, 3)), layers.Conv1D(4, 3, padding="same")]), 7 * 4 * 3 * 3),
    "lstm": (keras.Sequential([keras.Input((7, 3)), layers.LSTM(5)]), 7 * 4 * 5 * (3 + 5)),
    "gru": (keras.Sequential([keras.Input((7, 3)), layers.GRU(5)]), 7 * 3 * 5 * (3 + 5)),
    "bidirectional": (keras.Sequential([keras.Input((7, 3)), layers.Bidirectional(layers.LSTM(5))]), 2 * 7 * 4 * 5 * (3 + 5)),
    "attention": (  # queries, keys and values; scores; weighted sum; output
        keras.Model(attention_input, layers.MultiHeadAttention(2, 4)(attention_input, attention_input)),
        3 * 5 * 8 * 8 + 2 * 5 * 5 * 4 + 2 * 5 * 5 * 4 + 5 * 8 * 8,
    ),
}


def example(model):
    return np.zeros((1, *model.input_shape[1:]), np.float32)


@pytest.mark.parametrize("name", CASES)
def test_macs(name):
    model, by_hand = CASES[name]
    assert cost.count_macs(model, example(model)) == by_hand


def test_counting_macs_does_not_change_the_model():
    model, _ = CASES["lstm"]
    cost.count_macs(model, example(model))
    assert model.layers[0].unroll is False


def test_only_trainable_parameters_are_counted():
    model = keras.Sequential([keras.Input((3,)), layers.Dense(4), layers.BatchNormalization()])
    assert cost.count_parameters(model) == 3 * 4 + 4 + 4 + 4  # not the moving mean and variance


@pytest.mark.parametrize(
    ("network", "extent", "paper"),
    [
        (lambda: resnet.build(Image(32, 32, 3), Classes(10), depth=20), 32, 40.6e6),
        (lambda: resnet.build(Image(224, 224, 3), Classes(1000), depth=18, stem="imagenet", width=64), 224, 1.8e9),
        (lambda: resnet.build(Image(224, 224, 3), Classes(1000), depth=34, stem="imagenet", width=64), 224, 3.6e9),
        (lambda: resnet.build(Image(224, 224, 3), Classes(1000), depth=50, stem="imagenet", width=64), 224, 3.8e9),
        (lambda: build_lightweight("mobilenet_v1"), 224, 569e6),
        (lambda: build_lightweight("mobilenet_v2"), 224, 300e6),
        (lambda: build_lightweight("mobilenet_v3_small"), 224, 56e6),
        (lambda: build_lightweight("shufflenet_v2"), 224, 146e6),
    ],
)
def test_macs_match_the_papers(network, extent, paper):
    """ResNet-20: counted by hand, its paper gives none."""
    assert cost.count_macs(network(), np.zeros((1, extent, extent, 3), np.float32)) == pytest.approx(paper, rel=0.02)


def build_lightweight(variant):
    return lightweight.build(Image(224, 224, 3), Classes(1000), variant=variant, width=1.0, blocks=None, last=None)
