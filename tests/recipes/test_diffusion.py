"""Diffusion: the process against simulation and against the posterior, the sampler with a network that is right."""

import keras
import numpy as np
import pytest

from recipes import diffusion, shared_layers
from recipes.specs import GeneratedImages, LabelledImage

array = keras.ops.convert_to_numpy
SHAPE = (4, 6, 1)
SMALL = {"width": 8, "levels": 2, "timesteps": 50}


def build(classes=3, shape=SHAPE, **hyperparameters):
    keras.utils.set_random_seed(0)
    return diffusion.build(LabelledImage(*shape, classes), GeneratedImages(*shape), **{**SMALL, **hyperparameters})


def batch(number=6, shape=SHAPE):
    draw = np.random.default_rng(0)
    return {"image": draw.random((number, *shape)).astype(np.float32), "label": draw.integers(0, 3, number)}


def test_the_linear_schedule_is_that_of_the_paper():
    bars = np.array(diffusion.alphas_cumprod("linear", 1000))
    betas = 1 - bars / np.concatenate([[1.0], bars[:-1]])
    np.testing.assert_allclose(betas, np.linspace(1e-4, 0.02, 1000), rtol=1e-6)


def test_the_cosine_schedule_is_that_of_the_paper():
    bars, time = np.array(diffusion.alphas_cumprod("cosine", 1000)), np.arange(1, 1001) / 1000
    wanted = np.cos((time + 0.008) / 1.008 * np.pi / 2) ** 2 / np.cos(0.008 / 1.008 * np.pi / 2) ** 2
    np.testing.assert_allclose(bars[:990], wanted[:990], rtol=1e-6)  # at the end the paper clips β at 0.999
    assert 0 < bars[-1] < 1e-4


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
@pytest.mark.parametrize("time", [1, 20, 50])
def test_the_forward_marginal_is_where_small_steps_lead(schedule, time):
    """Noise added step by step, x_t = √α_t x_{t−1} + √β_t ε, has the mean and the variance that one step to t has."""
    bars = diffusion.alphas_cumprod(schedule, 50)
    draw, x0 = np.random.default_rng(0), np.array([-1.0, -0.2, 0.7])
    x = np.tile(x0, (200_000, 1))
    for n in range(time):
        alpha = bars[n] / (bars[n - 1] if n else 1.0)
        x = np.sqrt(alpha) * x + np.sqrt(1 - alpha) * draw.normal(size=x.shape)
    at_once = array(diffusion.q_sample(np.tile(x0, (200_000, 1)), draw.normal(size=x.shape), bars[time - 1]))
    for marginal in (x, at_once):
        np.testing.assert_allclose(marginal.mean(axis=0), np.sqrt(bars[time - 1]) * x0, atol=0.01)
        np.testing.assert_allclose(marginal.var(axis=0), 1 - bars[time - 1], rtol=0.02)


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
@pytest.mark.parametrize("time", [2, 17, 50])
def test_with_eta_1_the_step_is_the_posterior_of_ddpm(schedule, time):
    """Mean and variance of q(x_{t−1} | x_t, x_0), equations 6 and 7 of Ho et al. 2020."""
    bars = diffusion.alphas_cumprod(schedule, 50)
    bar, before = bars[time - 1], bars[time - 2]
    alpha, beta = bar / before, 1 - bar / before
    draw = np.random.default_rng(0)
    image, noise, drawn = draw.uniform(-1, 1, 5), draw.normal(size=5), draw.normal(size=5)
    x = np.sqrt(bar) * image + np.sqrt(1 - bar) * noise
    mean = np.sqrt(before) * beta / (1 - bar) * image + np.sqrt(alpha) * (1 - before) / (1 - bar) * x
    deviation = np.sqrt(beta * (1 - before) / (1 - bar))
    stepped = array(diffusion.ddim_step(image, noise, bar, before, 1.0, drawn))
    np.testing.assert_allclose(stepped, mean + deviation * drawn, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("prediction", ["noise", "velocity"])
def test_the_noise_implies_the_image(prediction):
    draw = np.random.default_rng(0)
    image, noise = draw.uniform(-1, 1, (5, 4)).astype(np.float32), draw.normal(size=(5, 4)).astype(np.float32)
    bar = np.float32(0.3)
    x = array(diffusion.q_sample(image, noise, bar))
    right = noise if prediction == "noise" else array(diffusion.velocity(image, noise, bar))
    x0, predicted_noise = diffusion.predict_x0_and_noise(x, right, bar, prediction)
    np.testing.assert_allclose(array(x0), image, atol=1e-5)
    np.testing.assert_allclose(array(predicted_noise), noise, atol=1e-5)


@pytest.mark.parametrize("prediction", ["noise", "velocity"])
@pytest.mark.parametrize(("steps", "eta"), [(50, 1.0), (50, 0.0), (7, 0.0), (7, 0.5), (1, 0.0)])
def test_a_perfect_predictor_leads_back_to_the_image(prediction, steps, eta):
    """If all data are one image, the best prediction is known, and every sampler has to end in it."""
    model = build(prediction=prediction)
    image = np.random.default_rng(1).uniform(-0.9, 0.9, SHAPE).astype(np.float32)

    def perfect(x, index, label, training=False):
        bar = keras.ops.take(keras.ops.convert_to_tensor(model.alphas_cumprod, "float32"), index)[:, None, None, None]
        noise = (x - keras.ops.sqrt(bar) * image) / keras.ops.sqrt(1 - bar)
        return noise if prediction == "noise" else diffusion.velocity(image, noise, bar)

    model._predict = perfect
    made = array(model.generate(np.zeros(3, np.int32), keras.random.SeedGenerator(0), steps=steps, eta=eta))
    np.testing.assert_allclose(2 * made - 1, np.tile(image, (3, 1, 1, 1)), atol=2e-3)


PATHS = [(200, 0.0), (500, 1.0), *(pytest.param(1000, eta, marks=pytest.mark.slow) for eta in (0.0, 1.0))]


@pytest.mark.parametrize(("steps", "eta"), PATHS)
def test_samplers_reach_a_gaussian_with_its_optimal_predictor(steps, eta):
    """Of pixels N(m, s²), E[ε | x_t] is linear in x_t; what is drawn has that mean and deviation, along every path."""
    model = build(timesteps=1000, prediction="noise", shape=(4, 4, 1))
    mean, deviation = 0.2, 0.15

    def best(x, index, label, training=False):
        bar = keras.ops.take(keras.ops.convert_to_tensor(model.alphas_cumprod, "float32"), index)[:, None, None, None]
        return keras.ops.sqrt(1 - bar) * (x - keras.ops.sqrt(bar) * mean) / (bar * deviation**2 + 1 - bar)

    model._predict = best
    labels = np.zeros(2000, np.int32)
    made = 2 * array(model.generate(labels, keras.random.SeedGenerator(0), steps=steps, eta=eta)) - 1
    assert made.mean() == pytest.approx(mean, abs=0.01)
    assert made.std() == pytest.approx(deviation, rel=0.05)


def test_the_loss_is_the_mean_square_of_what_is_predicted_wrongly():
    model = build(conditional=False)
    model._predict = lambda x, index, label, training=False: keras.ops.zeros_like(x)
    many = {"image": np.full((2000, *SHAPE), 0.5, np.float32), "label": np.zeros(2000, np.int32)}  # −1..1: 0
    bars = np.array(model.alphas_cumprod)
    assert array(model(many, training=True)).mean() == pytest.approx(bars.mean(), rel=0.05)  # v = √ᾱ ε, and E ε² = 1
    noise = build(conditional=False, prediction="noise")
    noise._predict = model._predict
    assert array(noise(many, training=True)).mean() == pytest.approx(1.0, rel=0.02)


def test_validation_noise_is_fixed():
    model = build()
    np.testing.assert_array_equal(array(model(batch(), training=False)), array(model(batch(), training=False)))
    assert (array(model(batch(), training=True)) != array(model(batch(), training=True))).all()


def test_default_guidance_of_samples():
    def made(model, **options):
        other.set_weights(some)
        return array(model.generate(np.array([0, 1, 2]), keras.random.SeedGenerator(0), steps=3, **options))

    some = [np.random.default_rng(0).normal(0, 0.1, weight.shape) for weight in build().get_weights()]
    other = build(guidance=2.5)
    guided = made(other)
    np.testing.assert_array_equal(guided, made(other, guidance=2.5))
    assert np.abs(guided - made(other, guidance=1.0)).max() > 1e-3
    with pytest.raises(ValueError, match=r"type model\.guidance=1"):
        build(label_dropout=0.0, guidance=1.5)
    build(label_dropout=0.0)
    build(label_dropout=0.0, guidance=1.5, conditional=False)


def test_guidance_moves_away_from_the_unconditional_prediction():
    model = build()
    for weight in model.weights:
        if "class" in weight.path:
            weight.assign(5 * np.random.default_rng(0).normal(size=weight.shape))
    x = keras.ops.convert_to_tensor(np.random.default_rng(0).normal(size=(3, *SHAPE)), "float32")
    index, label, none = (keras.ops.convert_to_tensor(values, "int32") for values in ([7] * 3, [0, 1, 2], [-1] * 3))
    conditional, unconditional = (array(model._predict(x, index, which)) for which in (label, none))
    assert np.abs(conditional - unconditional).max() > 1e-4
    for guidance in (0.0, 1.0, 3.0):
        guided = array(model._classifier_free_guidance(x, index, label, guidance))
        np.testing.assert_allclose(guided, unconditional + guidance * (conditional - unconditional), atol=1e-5)


def test_label_dropout_rate():
    model = build(label_dropout=0.3)
    seen = []
    model._predict = lambda x, index, label, training=False: (seen.append(array(label)), keras.ops.zeros_like(x))[1]
    model({"image": np.zeros((5000, *SHAPE), np.float32), "label": np.ones(5000, np.int32)}, training=True)
    assert set(seen[0]) == {-1, 1}
    assert np.mean(seen[0] == -1) == pytest.approx(0.3, abs=0.03)
    model(batch(), training=False)
    assert (seen[1] == batch()["label"]).all()


def test_samples_depend_on_seed_and_label():
    model = build()
    for weight in model.weights:
        weight.assign(np.random.default_rng(0).normal(size=weight.shape) * 0.3)

    def make(label, seed):
        return array(model.generate(np.full(2, label, np.int32), keras.random.SeedGenerator(seed), steps=2))

    made = make(1, 0)
    np.testing.assert_array_equal(made, make(1, 0))
    assert (made != make(1, 1)).any()
    assert (made != make(2, 0)).any()
    assert made.min() >= 0
    assert made.max() <= 1


def test_images_of_any_size_are_generated():
    model = build(shape=(5, 7, 3), levels=3)
    made = model.generate(np.zeros(2, np.int32), keras.random.SeedGenerator(0), steps=2)
    assert tuple(made.shape) == (2, 5, 7, 3)


def test_invalid_hyperparameters_are_rejected():
    with pytest.raises(ValueError, match="conditional=true needs labels"):
        build(classes=0)
    with pytest.raises(ValueError, match="5 heads cannot share 16 channels"):
        build(heads=5)
    model = build()
    for options, message in (({"steps": 51}, "steps=51 must be 1 to 50"), ({"eta": 1.5}, "eta=1.5 must be 0 to 1")):
        with pytest.raises(ValueError, match=message):
            model.generate(np.zeros(1, np.int32), keras.random.SeedGenerator(0), **options)


def test_group_normalization_is_that_of_keras():
    draw, shape = np.random.default_rng(0), (3, 5, 4, 12)
    mine, theirs = shared_layers.GroupNormalization(3), keras.layers.GroupNormalization(3)
    for layer in (mine, theirs):
        layer.build(shape)
        layer.set_weights([np.linspace(0.5, 2, 12), np.linspace(-1, 1, 12)])
    x = (draw.normal(size=shape) * np.arange(1, 13) + 7).astype(np.float32)
    np.testing.assert_allclose(array(mine(x)), array(theirs(x)), atol=1e-5)
