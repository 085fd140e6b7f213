"""The equations of recipes/attention.py against NumPy."""

import keras
import numpy as np
import pytest

from recipes import attention
from recipes.attention import SoftAttention
from recipes.specs import START, Classes, SourceTarget, TargetTokenLogits, Tokens

array = keras.ops.convert_to_numpy


@pytest.mark.parametrize("score", ["additive", "multiplicative"])
def test_soft_attention_matches_the_equations(score):
    keras.utils.set_random_seed(0)
    layer = SoftAttention(score, units=4)
    draw = np.random.default_rng(0)
    queries, features = draw.normal(size=(2, 3, 5)).astype(np.float32), draw.normal(size=(2, 6, 7)).astype(np.float32)
    padding_mask = np.array([[1] * 6, [1, 1, 1, 1, 0, 0]], bool)
    context, weights = map(array, layer(queries, features, padding_mask=padding_mask))
    w = layer.W.numpy()
    for n in range(2):
        for t in range(3):
            q = queries[n, t]
            if score == "additive":
                e = [layer.v.numpy() @ np.tanh(q @ w + h @ layer.U.numpy()) for h in features[n]]
            else:
                e = [q @ w @ h for h in features[n]]
            a = np.where(padding_mask[n], np.exp(e), 0)
            a /= a.sum()
            np.testing.assert_allclose(weights[n, t], a, rtol=1e-4, atol=1e-6)
            np.testing.assert_allclose(context[n, t], a @ features[n], rtol=1e-4, atol=1e-5)


def test_padding_changes_nothing():
    keras.utils.set_random_seed(0)
    long = attention.build(Tokens(9, 50), Classes(2), units=5)
    short = attention.build(Tokens(4, 50), Classes(2), units=5)
    short.set_weights(long.get_weights())
    words = np.array([[7, 3, 9, 1]], np.int32)
    np.testing.assert_allclose(array(long(np.pad(words, ((0, 0), (0, 5))))), array(short(words)), atol=1e-6)


@pytest.mark.parametrize("score", ["additive", "multiplicative"])
def test_decoding_step_by_step_agrees_with_teacher_forcing(score):
    keras.utils.set_random_seed(0)
    model = attention.build(SourceTarget(7, 30, 9, 40), TargetTokenLogits(9, 40), score=score, units=6, embedding=5)
    draw = np.random.default_rng(0)
    source, target = draw.integers(4, 30, (3, 7)), draw.integers(4, 40, (3, 9))
    source[0, 5:], target[:, 0] = 0, START
    inputs = {"source": source, "target": target}
    logits, weights = array(model(inputs)), array(model.alignments(inputs))
    np.testing.assert_allclose(weights.sum(axis=-1), 1, rtol=1e-5)
    assert (weights[0, :, 5:] == 0).all()
    cache = model.init_cache(source, 9)
    for index in range(9):
        step, cache = model.decode_step(keras.ops.convert_to_tensor(target[:, index]), index, cache)
        np.testing.assert_allclose(array(step), logits[:, index], atol=1e-5)
