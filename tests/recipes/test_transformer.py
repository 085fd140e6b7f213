"""The equations of recipes/transformer.py against NumPy, and cached against uncached decoding."""

import math

import keras
import numpy as np
import pytest

from recipes import transformer
from recipes.specs import START, Classes, Image, Series, SourceTarget, TargetTokenLogits, Tokens
from recipes.transformer import Block, MultiHeadAttention, Positions

array = keras.ops.convert_to_numpy


def softmax(z):
    e = np.exp(z - z.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def randomise(layer):
    for weight in layer.weights:
        weight.assign(keras.random.normal(weight.shape, stddev=0.5))


def turned(x, positions):
    """Each pair (k, k + d/2) of (T, d) as a complex number, multiplied by exp(i t ω_k)."""
    half = x.shape[1] // 2
    omega = 10_000.0 ** (-2 * np.arange(half) / x.shape[1])
    z = (x[:, :half] + 1j * x[:, half:]) * np.exp(1j * positions[:, None] * omega)
    return np.concatenate([z.real, z.imag], axis=1)


def attention_by_hand(layer, x, y, allowed, rotary=False):
    """M(X, Y), head by head; x (T, d), y (S, d), allowed (T, S)."""
    (wq, bq), (wk, bk), (wv, bv), (wo, bo) = (
        [w.astype(np.float64) for w in part.get_weights()]
        for part in (layer.query, layer.key, layer.value, layer.output_projection)
    )
    size = layer.dimension // layer.heads
    heads, weights = [], []
    for h in range(layer.heads):
        at = slice(h * size, (h + 1) * size)
        q, k, v = x @ wq[:, at] + bq[at], y @ wk[:, at] + bk[at], y @ wv[:, at] + bv[at]
        if rotary:
            q, k = turned(q, np.arange(len(q))), turned(k, np.arange(len(k)))
        a = softmax(np.where(allowed, q @ k.T / math.sqrt(size), -np.inf))
        heads.append(a @ v)
        weights.append(a)
    return np.concatenate(heads, axis=1) @ wo + bo, np.stack(weights)


@pytest.mark.parametrize("rotary", [False, True])
@pytest.mark.parametrize("causal", [False, True])
def test_attention_matches_the_equations(rotary, causal):
    keras.utils.set_random_seed(0)
    layer = MultiHeadAttention(8, 2, rotary=rotary)
    x = np.random.default_rng(0).normal(size=(2, 5, 8)).astype(np.float32)
    padding_mask = np.array([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]], bool)
    layer(x)
    randomise(layer)
    answer, weights = layer(x, padding_mask=padding_mask, causal=causal)
    for n in range(2):
        allowed = np.broadcast_to(padding_mask[n], (5, 5)) & (np.tri(5, dtype=bool) if causal else True)
        wanted, wanted_weights = attention_by_hand(layer, x[n].astype(np.float64), x[n].astype(np.float64), allowed, rotary)
        np.testing.assert_allclose(array(answer)[n], wanted, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(array(weights)[n], wanted_weights, rtol=1e-4, atol=1e-6)


def normalised(x, layer):
    gamma, beta = layer.get_weights()
    return gamma * (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + layer.epsilon) + beta


@pytest.mark.parametrize("decoder", [False, True])
def test_block_matches_the_equations(decoder):
    keras.utils.set_random_seed(0)
    block = Block(8, 2, 12, dropout=0.3, decoder=decoder)
    draw = np.random.default_rng(0)
    x, memory = draw.normal(size=(1, 4, 8)).astype(np.float32), draw.normal(size=(1, 6, 8)).astype(np.float32)
    more = {"memory": memory, "padding_mask": np.ones((1, 6), bool)} if decoder else {"padding_mask": np.ones((1, 4), bool)}
    block(x, **more)
    randomise(block)
    output, _ = block(x, **more, training=False)
    z = x[0].astype(np.float64)
    norms = [lambda v, n=n: normalised(v, n) for n in block.norms]
    own = np.tri(4, dtype=bool) if decoder else np.ones((4, 4), bool)
    z = z + attention_by_hand(block.attention, norms[0](z), norms[0](z), own)[0]
    if decoder:
        z = z + attention_by_hand(block.memory_attention, norms[1](z), memory[0], np.ones((4, 6), bool))[0]
    (w1, b1), (w2, b2) = block.inner.get_weights(), block.outer.get_weights()
    z = z + np.maximum(norms[-1](z) @ w1 + b1, 0) @ w2 + b2
    np.testing.assert_allclose(array(output)[0], z, rtol=1e-4, atol=1e-4)


def test_sinusoids_by_hand():
    positions = array(Positions("sinusoidal", 0)(np.zeros((1, 7, 6), np.float32)))[0]
    for t in range(7):
        for k in range(3):
            angle = t * 10_000 ** (-2 * k / 6)
            assert positions[t, k] == pytest.approx(math.sin(angle), abs=1e-5)
            assert positions[t, k + 3] == pytest.approx(math.cos(angle), abs=1e-5)


def test_rotary_scores_depend_on_the_distance_alone():
    draw = np.random.default_rng(0)
    q, k = draw.normal(size=(2, 1, 1, 1, 8)).astype(np.float32)
    score = lambda m, n: float(np.sum(array(transformer.apply_rotary(q, m)) * array(transformer.apply_rotary(k, n))))  # noqa: E731
    assert score(3, 1) == pytest.approx(score(12, 10), rel=1e-4)
    assert score(3, 1) != pytest.approx(score(3, 2), rel=1e-2)


def test_sequences_longer_than_the_learned_positions_are_rejected():
    positions = Positions("learned", 4)
    positions(np.zeros((1, 4, 6), np.float32))
    with pytest.raises(ValueError, match="A sequence of 5 steps is longer than the 4 positions that were learned"):
        positions(np.zeros((1, 5, 6), np.float32))


@pytest.mark.parametrize("kind", ["sinusoidal", "learned", "rotary"])
def test_order_matters_and_padding_does_not(kind):
    keras.utils.set_random_seed(0)
    long = transformer.build(Tokens(9, 50), Classes(2), positions=kind)
    words = np.array([[7, 3, 9, 1]], np.int32)
    padded = np.pad(words, ((0, 0), (0, 5)))
    assert np.abs(array(long(padded)) - array(long(padded[:, [2, 1, 0, 3, *range(4, 9)]]))).max() > 1e-3
    if kind != "learned":  # its table has as many rows as the sequence
        short = transformer.build(Tokens(4, 50), Classes(2), positions=kind)
        short.set_weights(long.get_weights())
        np.testing.assert_allclose(array(long(padded)), array(short(words)), atol=1e-5)


def test_patches_are_cut_row_by_row_and_filled_up_with_black():
    from recipes.shared_layers import input_layer, to_sequence

    image = Image(5, 4, 2)
    source = input_layer(image)
    pixels = np.random.default_rng(0).random((1, 5, 4, 2)).astype(np.float32)
    patches = keras.Model(source, to_sequence(source, image, 8, patch=2)).predict(pixels, verbose=0)[0]
    filled = np.pad(pixels[0], ((0, 1), (0, 0), (0, 0)))
    wanted = [filled[i : i + 2, j : j + 2].reshape(-1) for i in (0, 2, 4) for j in (0, 2)]
    np.testing.assert_array_equal(patches, wanted)


@pytest.mark.parametrize("kind", ["sinusoidal", "learned", "rotary"])
def test_cached_and_uncached_decoding_agree_and_no_position_sees_a_later_one(kind):
    keras.utils.set_random_seed(0)
    model = transformer.build(SourceTarget(7, 30, 9, 40), TargetTokenLogits(9, 40), positions=kind)
    draw = np.random.default_rng(0)
    source, target = draw.integers(4, 30, (3, 7)), draw.integers(4, 40, (3, 9))
    source[0, 5:], target[:, 0] = 0, START
    logits = array(model({"source": source, "target": target}))
    cache = model.init_cache(source, 9)
    for index in range(9):
        step, cache = model.decode_step(keras.ops.convert_to_tensor(target[:, index]), index, cache)
        np.testing.assert_allclose(array(step), logits[:, index], atol=1e-4)
    changed = target.copy()
    changed[:, 6] = 5
    np.testing.assert_allclose(array(model({"source": source, "target": changed}))[:, :6], logits[:, :6], atol=1e-5)
    assert np.abs(array(model({"source": source, "target": changed}))[:, 6:] - logits[:, 6:]).max() > 1e-3


def test_padding_of_the_source_changes_nothing():
    keras.utils.set_random_seed(0)
    model = transformer.build(SourceTarget(7, 30, 9, 40), TargetTokenLogits(9, 40))
    source, target = np.array([[5, 6, 7]]), np.array([[START, 8, 9]])
    padded = np.pad(source, ((0, 0), (0, 4)))
    short, long = (model({"source": one, "target": target}) for one in (source, padded))
    np.testing.assert_allclose(array(short), array(long), atol=1e-5)


def test_alignments_are_weights_over_the_source():
    model = transformer.build(SourceTarget(7, 30, 9, 40), TargetTokenLogits(9, 40))
    source = np.array([[5, 6, 7, 0, 0, 0, 0]])
    weights = array(model.alignments({"source": source, "target": np.array([[START, 8, 9]])}))
    assert weights.shape == (1, 3, 7)
    np.testing.assert_allclose(weights.sum(axis=-1), 1, rtol=1e-5)
    assert (weights[:, :, 3:] == 0).all()


def test_number_of_heads_must_divide_the_dimension():
    with pytest.raises(ValueError, match="3 heads cannot share dimension=64 in even parts; it must be a multiple of 6"):
        transformer.build(Series(5, 1), Classes(2), heads=3)


def test_number_of_parameters():
    model = transformer.build(Series(20, 3), Classes(4), dimension=16, heads=2, blocks=2, feedforward=24)
    block = 4 * (16 * 16 + 16) + 16 * 24 + 24 + 24 * 16 + 16 + 2 * 32
    assert sum(int(np.prod(w.shape)) for w in model.trainable_weights) == 3 * 16 + 16 + 2 * block + 32 + 16 * 4 + 4
