"""The equations of recipes/hard_attention.py: what a glimpse shows, and what REINFORCE follows."""

import keras
import numpy as np
import pytest
from scipy import stats

from recipes import attention
from recipes.hard_attention import Glimpses, Reinforce, glimpse_sensor, reinforce_loss
from recipes.specs import Classes, Image, Series

array = keras.ops.convert_to_numpy


def test_a_glimpse_at_whole_pixels_is_a_crop_and_black_outside():
    image = np.random.default_rng(0).random((2, 9, 9, 2)).astype(np.float32)
    place = np.array([[0.0, 0.5], [-1.0, 1.0]], np.float32)  # rows 4 and 0, columns 6 and 8
    patch = array(glimpse_sensor(image, place, 3, 1))[:, 0]
    np.testing.assert_allclose(patch[0], image[0, 3:6, 5:8], atol=1e-6)
    padded = np.pad(image[1], ((1, 1), (1, 1), (0, 0)))
    np.testing.assert_allclose(patch[1], padded[0:3, 8:11], atol=1e-6)


def test_a_glimpse_between_pixels_is_interpolated():
    image = np.arange(25, dtype=np.float32).reshape(1, 5, 5, 1)
    patch = array(glimpse_sensor(image, np.array([[0.25, -0.25]], np.float32), 2, 1))[
        0, 0, ..., 0
    ]  # the centre is at row 2.5, column 1.5
    np.testing.assert_allclose(patch, [[11, 12], [16, 17]], atol=1e-5)


def test_coarser_scale_covers_twice_the_extent_and_averages():
    even = np.full((1, 21, 21, 1), 0.7, np.float32)
    fine, coarse = array(glimpse_sensor(even, np.zeros((1, 2), np.float32), 4, 2))[0]
    np.testing.assert_allclose(fine, 0.7, atol=1e-5)
    np.testing.assert_allclose(coarse, 0.7, atol=1e-5)
    dot = np.zeros((1, 21, 21, 1), np.float32)
    dot[0, 10 + 3, 10] = 1  # 3 rows below the centre: outside the 4 rows of the fine patch, inside the 8 of the coarse one
    fine, coarse = array(glimpse_sensor(dot, np.zeros((1, 2), np.float32), 4, 2))[0]
    assert fine.sum() == 0
    assert coarse.sum() > 0


def test_recurrence_matches_the_equations():
    keras.utils.set_random_seed(0)
    layer = Glimpses(3, 4, 1, 6, 0.1)
    image = np.random.default_rng(0).random((1, 8, 8, 1)).astype(np.float32)
    layer(image)
    for weight in layer.trainable_weights:
        weight.assign(keras.random.normal(weight.shape, stddev=0.5))
    h, locations, _, means, expected = map(array, layer(image, training=False))
    (bw, bb), (dw, db), (aw, ab), (cw, cb), (vw, vb), (uw,), (ww,), (ew, eb) = (
        part.get_weights()
        for part in (
            layer.what, layer.where, layer.what_to_glimpse, layer.where_to_glimpse,
            layer.glimpse_to_core, layer.core_to_core, layer.core_to_mean, layer.core_to_baseline,
        )
    )  # fmt: skip
    c = array(layer.c)
    relu = lambda z: np.maximum(z, 0)  # noqa: E731
    state, place = np.zeros(6), np.zeros(2)  # the first glimpse is at the centre
    for t in range(3):
        np.testing.assert_allclose(locations[0, t], place, atol=1e-5)
        seen = array(glimpse_sensor(image, place[None].astype(np.float32), 4, 1)).reshape(-1)
        g = relu(relu(seen @ bw + bb) @ aw + ab + relu(place @ dw + db) @ cw + cb)
        state = relu(state @ uw + g @ vw + vb)
        place, reward = np.tanh(state @ ww / np.sqrt(6) + c[t]), (state @ ew / np.sqrt(6) + eb)[0]
        if t < 2:
            np.testing.assert_allclose(means[0, t + 1], place, rtol=1e-4, atol=1e-5)
            assert expected[0, t + 1] == pytest.approx(reward, rel=1e-4, abs=1e-5)
    np.testing.assert_allclose(h[0], state, rtol=1e-4, atol=1e-5)


def gradient_of_expected_reward(reward, mean, deviation):
    """d/dμ ∫ R(clip(x)) N(x; μ, σ²) dx by quadrature, for a reward of one coordinate."""

    def expected(center):
        x = np.linspace(mean - 9 * deviation, mean + 9 * deviation, 200_001)
        density = np.exp(-((x - center) ** 2) / (2 * deviation**2)) / np.sqrt(2 * np.pi * deviation**2)
        return np.trapezoid(reward(np.clip(x, -1, 1)) * density, x)

    return (expected(mean + 1e-4) - expected(mean - 1e-4)) / 2e-4


@pytest.mark.parametrize("mean", [(0.2, -0.4), (0.9, -0.97)], ids=["inside", "at the border"])
@pytest.mark.parametrize("baseline", [0.0, 0.8])  # it changes the noise and not the mean
def test_reinforce_estimates_the_gradient_of_the_expected_reward(mean, baseline):
    """The mean of the estimated gradients, of locations as the network draws them, is that of a reward known everywhere."""
    tf = pytest.importorskip("tensorflow")
    keras.utils.set_random_seed(0)
    deviation, rewards = 0.15, (lambda row: -np.abs(row - 0.98), lambda column: 1 - (column - 0.1) ** 2)
    layer = Glimpses(2, 1, 1, 2, deviation)
    images = np.zeros((200_000, 2, 2, 1), np.float32)
    layer(images[:1])
    layer.core_to_mean.kernel.assign(np.zeros((2, 2)))  # the means are tanh(c)
    layer.c.assign(np.tile(np.arctanh(mean), (2, 1)))
    layer.core_to_baseline.bias.assign([baseline])
    with tf.GradientTape() as tape:
        _, locations, draws, means, baselines = layer(images, training=True)
        reward = sum(of_one(array(locations)[:, 1, axis]) for axis, of_one in enumerate(rewards))
        loss = reinforce_loss(draws, means, baselines, tf.constant(reward, tf.float32), deviation)
    estimated = -array(tape.gradient(loss, layer.c.value))[0] / (1 - np.square(mean))
    expected = [gradient_of_expected_reward(of_one, center, deviation) for of_one, center in zip(rewards, mean)]
    np.testing.assert_allclose(estimated, expected, atol=0.03)


@pytest.mark.parametrize("precision", ["mixed_bfloat16", "mixed_float16"])
def test_in_16_bits_locations_logits_and_their_loss_stay_in_32(precision):
    keras.utils.set_random_seed(0)
    keras.config.set_dtype_policy(precision)
    try:
        model = attention.build(Image(8, 8, 1), Classes(4), kind="hard", glimpse_size=4, units=4)
    finally:
        keras.config.set_dtype_policy("float32")
    examples = {"image": np.random.default_rng(0).random((50, 8, 8, 1)).astype(np.float32), "label": np.arange(50) % 4}
    glimpses, reinforce = (next(each for each in model.layers if isinstance(each, kind)) for kind in (Glimpses, Reinforce))
    assert glimpses.compute_dtype == precision.removeprefix("mixed_")
    outputs = keras.Model(model.input, [model.output, *glimpses.output[1:]])(examples, training=True)
    assert {keras.backend.standardize_dtype(output.dtype) for output in outputs} == {"float32"}
    logits, _, draws, means, baselines = map(array, outputs)
    reward = logits.argmax(axis=1) == examples["label"]
    density = stats.norm.logpdf(draws[:, 1:], means[:, 1:], 0.15).sum(axis=2)
    advantage = reward[:, None] - baselines[:, 1:]
    expected = (np.square(advantage) - density * advantage).sum(axis=1).mean()
    assert float(reinforce.losses[0]) == pytest.approx(expected, rel=1e-5)


def test_baseline_learns_the_mean_reward_without_gradients_to_the_core():
    tf = pytest.importorskip("tensorflow")
    expected = tf.Variable([[0.0, 0.5], [0.0, 0.5]])
    still = np.zeros((2, 2, 2), np.float32)
    with tf.GradientTape() as tape:
        loss = reinforce_loss(still, still, expected, tf.constant([1.0, 0.0]), 0.2)
    np.testing.assert_allclose(tape.gradient(loss, expected)[:, 1], [2 * (0.5 - 1) / 2, 2 * 0.5 / 2])


def test_neither_proposals_nor_baseline_send_a_gradient_into_the_core():
    tf = pytest.importorskip("tensorflow")
    keras.utils.set_random_seed(0)
    layer = Glimpses(3, 4, 1, 6, 0.2, name="glimpses")
    image = np.random.default_rng(0).random((5, 8, 8, 1)).astype(np.float32)
    with tf.GradientTape() as tape:
        _, _, draws, means, expected = layer(image, training=True)
        loss = reinforce_loss(draws, means, expected, tf.ones(5), 0.2)
    gradients = dict(
        zip((w.path.split("/")[-2] for w in layer.trainable_weights), tape.gradient(loss, layer.trainable_weights))
    )
    assert {name for name, gradient in gradients.items() if gradient is not None} == {
        "core_to_mean",
        "glimpses",
        "core_to_baseline",
    }


def test_the_loss_of_locations_is_added_in_training_alone():
    layer = Reinforce(0.2)
    parts = (np.zeros((2, 3, 2), np.float32), np.zeros((2, 3, 2), np.float32), np.zeros((2, 3), np.float32))
    layer(np.eye(2, dtype=np.float32), *parts, np.array([0, 1]), training=False)
    assert layer.losses == []
    layer(np.eye(2, dtype=np.float32), *parts, np.array([0, 1]), training=True)
    assert len(layer.losses) == 1


def test_prediction_does_not_depend_on_the_label():
    keras.utils.set_random_seed(0)
    model = attention.build(Image(8, 8, 1), Classes(4), kind="hard", glimpse_size=4)
    image = np.random.default_rng(0).random((3, 8, 8, 1)).astype(np.float32)
    one, other = (array(model({"image": image, "label": np.full(3, label)}, training=False)) for label in (-1, 2))
    np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("policy", ["random", "center"])
def test_location_policy_can_be_replaced_after_training(policy):
    layer = Glimpses(4, 4, 1, 6, 0.1)
    image = np.random.default_rng(0).random((50, 8, 8, 1)).astype(np.float32)
    layer(image)
    ablated = layer.ablations()[policy]
    ablated(image)
    ablated.set_weights(layer.get_weights())
    locations = array(ablated(image, training=False)[1])
    if policy == "center":
        assert (locations == 0).all()
    else:
        assert locations[:, 1:].std() == pytest.approx(3**-0.5, rel=0.1)  # evenly over −1..1


def test_invalid_glimpses_are_rejected():
    with pytest.raises(
        ValueError, match=r"a glimpse of 9 × 9 pixels is larger than an image of 8 × 8; type model.glimpse_size=4"
    ):
        attention.build(Image(8, 8, 1), Classes(4), kind="hard", glimpse_size=9)
    with pytest.raises(ValueError, match="kind=hard takes images"):
        attention.build(Series(8, 1), Classes(4), kind="hard")
