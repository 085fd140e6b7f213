"""The equations of recipes/rnn.py against a computation by hand."""

import keras
import numpy as np
import pytest

from recipes import rnn
from recipes.kinds import Classes, Forecast, Image, Series, Tokens


@pytest.mark.parametrize(("activation", "phi"), [("tanh", np.tanh), ("relu", lambda z: np.maximum(z, 0))])
def test_computes_what_its_page_says(activation, phi):
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


def test_recurrent_weights_start_as_asked():
    orthogonal = rnn.build(Series(6, 2), Classes(3), units=7).get_layer("rnn1").get_weights()[1]
    np.testing.assert_allclose(orthogonal @ orthogonal.T, np.eye(7), atol=1e-5)
    identity = rnn.build(Series(6, 2), Classes(3), units=7, initialization="identity").get_layer("rnn1").get_weights()[1]
    np.testing.assert_array_equal(identity, np.eye(7))


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


def test_takes_tokens():
    assert rnn.build(Tokens(9, 50), Classes(2), units=5).output_shape == (None, 2)
