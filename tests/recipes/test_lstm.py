"""The equations of recipes/lstm.py against a computation by hand, and its cell against Keras's layer."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from recipes import lstm
from recipes.specs import Classes, Forecast, Image, Series, Tokens


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


def by_hand(model, series):
    """The page's equations, step by step, for one layer; series (T, F)."""
    kernel, recurrent, bias = (weight.astype(np.float64) for weight in model.get_layer("lstm1").get_weights())
    units = recurrent.shape[0]
    gates = {gate: slice(n * units, (n + 1) * units) for n, gate in enumerate("ifgo")}
    h = c = np.zeros(units)
    for x in series:
        z = {gate: x @ kernel[:, at] + h @ recurrent[:, at] + bias[at] for gate, at in gates.items()}
        c = sigmoid(z["f"]) * c + sigmoid(z["i"]) * np.tanh(z["g"])
        h = sigmoid(z["o"]) * np.tanh(c)
    weights, bias = model.get_layer("logits").get_weights()
    return h @ weights + bias


def test_layers_match_the_equations():
    keras.utils.set_random_seed(1)
    model = lstm.build(Series(6, 2), Classes(3), units=5)
    for weight in model.trainable_weights:
        weight.assign(keras.random.normal(weight.shape))
    series = np.random.default_rng(0).normal(size=(2, 6, 2))
    answer = keras.ops.convert_to_numpy(model(series))
    np.testing.assert_allclose(answer, [by_hand(model, one) for one in series], rtol=1e-4, atol=1e-5)


def test_forget_gate_bias_starts_at_1():
    bias = lstm.build(Series(6, 2), Classes(3), units=5).get_layer("lstm1").get_weights()[2]
    np.testing.assert_array_equal(bias, [0] * 5 + [1] * 5 + [0] * 10)  # i f g o


def outputs_and_gradients(model, examples):
    """A model's outputs, and the gradients of their weighted sum with respect to its weights."""
    with tf.GradientTape() as tape:
        outputs = model(examples, training=True)
        loss = tf.reduce_sum(outputs * np.linspace(-1, 1, outputs.shape[-1], dtype=np.float32))
    return [outputs, *tape.gradient(loss, [weight.value for weight in model.trainable_weights])]


@pytest.mark.parametrize("hyperparameters", [{}, {"layers": 2, "bidirectional": True}], ids=str)
@pytest.mark.parametrize("inputs", [Series(6, 3), Tokens(6, 20)], ids=str)
def test_cell_matches_keras_forward_and_backward(monkeypatch, inputs, hyperparameters):
    keras.utils.set_random_seed(0)
    keras_layer = lstm.build(inputs, Classes(3), units=8, **hyperparameters)
    monkeypatch.setattr(lstm, "USE_KERAS_LAYER", False)
    own_cell = lstm.build(inputs, Classes(3), units=8, **hyperparameters)
    assert any(isinstance(layer, lstm.LSTMCell) for layer in own_cell._flatten_layers())
    own_cell.set_weights(keras_layer.get_weights())
    draw = np.random.default_rng(0)
    if isinstance(inputs, Series):
        examples = draw.normal(size=(4, 6, 3)).astype(np.float32)
    else:
        examples = np.array([[5, 7, 9, 0, 0, 0], [4, 8, 5, 6, 19, 3]], np.int32)  # with padding, which both skip
    for one, other in zip(outputs_and_gradients(keras_layer, examples), outputs_and_gradients(own_cell, examples)):
        one, other = (tf.convert_to_tensor(values).numpy() for values in (one, other))  # those of an embedding are sparse
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)  # sums in another order, in float32


@pytest.mark.parametrize("directions", [1, 2])
def test_number_of_parameters(directions):
    model = lstm.build(Series(6, 2), Forecast(4, 2), units=5, layers=2, bidirectional=directions == 2)
    first, second, head = 4 * 5 * (2 + 5 + 1), 4 * 5 * (5 * directions + 5 + 1), (5 * directions + 1) * 8
    counted = sum(int(np.prod(weight.shape)) for weight in model.trainable_weights)
    assert counted == directions * (first + second) + head


def test_reads_an_image_row_by_row():
    keras.utils.set_random_seed(0)
    images = lstm.build(Image(6, 4, 3), Classes(2), units=5)
    rows = lstm.build(Series(6, 12), Classes(2), units=5)
    rows.set_weights(images.get_weights())
    pixels = np.random.default_rng(0).random((2, 6, 4, 3)).astype(np.float32)
    np.testing.assert_allclose(images(pixels), rows(pixels.reshape(2, 6, 12)), rtol=1e-6)


def test_padding_changes_nothing():
    keras.utils.set_random_seed(0)
    long = lstm.build(Tokens(9, 50), Classes(2), units=5)
    short = lstm.build(Tokens(4, 50), Classes(2), units=5)
    short.set_weights(long.get_weights())
    words = np.array([[7, 3, 9, 1]], np.int32)
    np.testing.assert_allclose(long(np.pad(words, ((0, 0), (0, 5)))), short(words), rtol=1e-6)
