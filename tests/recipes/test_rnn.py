"""The equations of recipes/rnn.py against a computation by hand, and its cell against Keras's layer."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from recipes import rnn
from recipes.specs import Classes, Forecast, Image, Series, Tokens


@pytest.mark.parametrize(("activation", "phi"), [("tanh", np.tanh), ("relu", lambda z: np.maximum(z, 0))])
def test_layers_match_the_equations(activation, phi):
    keras.utils.set_random_seed(1)
    model = rnn.build(Series(6, 2), Classes(3), units=5, activation=activation)
    for weight in model.trainable_weights:
        weight.assign(keras.random.normal(weight.shape, stddev=0.5))
    w, u, b = (weight.astype(np.float64) for weight in model.get_layer("rnn1").get_weights())
    out, bias = model.get_layer("logits").get_weights()
    series = np.random.default_rng(0).normal(size=(2, 6, 2))
    wanted = []
    for one in series:
        h = np.zeros(5)
        for x in one:
            h = phi(x @ w + h @ u + b)
        wanted.append(h @ out + bias)
    np.testing.assert_allclose(keras.ops.convert_to_numpy(model(series)), wanted, rtol=1e-4, atol=1e-5)


def test_recurrent_initializers():
    orthogonal = rnn.build(Series(6, 2), Classes(3), units=7).get_layer("rnn1").get_weights()[1]
    np.testing.assert_allclose(orthogonal @ orthogonal.T, np.eye(7), atol=1e-5)
    identity = rnn.build(Series(6, 2), Classes(3), units=7, initialization="identity").get_layer("rnn1").get_weights()[1]
    np.testing.assert_array_equal(identity, np.eye(7))


def outputs_and_gradients(model, examples):
    """A model's outputs, and the gradients of their weighted sum with respect to its weights."""
    with tf.GradientTape() as tape:
        outputs = model(examples, training=True)
        loss = tf.reduce_sum(outputs * np.linspace(-1, 1, outputs.shape[-1], dtype=np.float32))
    return [outputs, *tape.gradient(loss, [weight.value for weight in model.trainable_weights])]


@pytest.mark.parametrize("hyperparameters", [
    {}, {"activation": "relu", "initialization": "identity"}, {"layers": 2, "bidirectional": True},
], ids=str)  # fmt: skip
@pytest.mark.parametrize("inputs", [Series(6, 3), Tokens(6, 20)], ids=str)
def test_cell_matches_keras_forward_and_backward(monkeypatch, inputs, hyperparameters):
    keras.utils.set_random_seed(0)
    keras_layer = rnn.build(inputs, Classes(3), units=8, **hyperparameters)
    monkeypatch.setattr(rnn, "USE_KERAS_LAYER", False)
    own_cell = rnn.build(inputs, Classes(3), units=8, **hyperparameters)
    assert any(isinstance(layer, rnn.RNNCell) for layer in own_cell._flatten_layers())
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
    model = rnn.build(Series(6, 2), Forecast(4, 2), units=5, layers=2, bidirectional=directions == 2)
    first, second, head = 5 * (2 + 5 + 1), 5 * (5 * directions + 5 + 1), (5 * directions + 1) * 8
    assert sum(int(np.prod(weight.shape)) for weight in model.trainable_weights) == directions * (first + second) + head


def test_reads_an_image_row_by_row():
    keras.utils.set_random_seed(0)
    images = rnn.build(Image(6, 4, 3), Classes(2), units=5)
    rows = rnn.build(Series(6, 12), Classes(2), units=5)
    rows.set_weights(images.get_weights())
    pixels = np.random.default_rng(0).random((2, 6, 4, 3)).astype(np.float32)
    np.testing.assert_allclose(images(pixels), rows(pixels.reshape(2, 6, 12)), rtol=1e-6)


def test_token_inputs():
    assert rnn.build(Tokens(9, 50), Classes(2), units=5).output_shape == (None, 2)
