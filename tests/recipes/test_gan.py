"""GAN: the losses against the paper's, which network learns from which, and the penalty where the gradient is known."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from recipes import gan
from recipes.specs import GeneratedImages, LabelledImage

array = keras.ops.convert_to_numpy
SHAPE = (4, 8, 1)


def build(classes=3, shape=SHAPE, **hyperparameters):
    keras.utils.set_random_seed(0)
    return gan.build(LabelledImage(*shape, classes), GeneratedImages(*shape), **{"width": 8, "latent": 6, **hyperparameters})


def batch(number=6, shape=SHAPE):
    draw = np.random.default_rng(0)
    return {"image": draw.random((number, *shape)).astype(np.float32), "label": draw.integers(0, 3, number)}


def softplus(x):
    return np.logaddexp(0, x)


@pytest.mark.parametrize("conditional", [False, True])
@pytest.mark.parametrize("loss", ["non_saturating", "hinge"])
def test_the_losses_are_those_of_the_papers(loss, conditional):
    model = build(loss=loss, conditional=conditional)
    examples = {name: keras.ops.convert_to_tensor(values) for name, values in batch().items()}
    terms = array(model(examples, training=False))
    noise = keras.random.normal((6, 6), seed=gan.VALIDATION_SEED)
    with_label = [noise, examples["label"]] if conditional else noise
    fake = model.generator(with_label)

    def discriminate(images):
        return array(model.discriminator([images, examples["label"]] if conditional else images))

    real, generated = discriminate(2 * examples["image"] - 1), discriminate(fake)
    if loss == "hinge":
        wanted = np.maximum(0, 1 - real) + np.maximum(0, 1 + generated), -generated
    else:
        wanted = softplus(-real) + softplus(generated), softplus(-generated)
    np.testing.assert_allclose(terms[:, 0], wanted[0], atol=1e-5)
    np.testing.assert_allclose(terms[:, 1], wanted[1], atol=1e-5)


@pytest.mark.parametrize("spectral_normalization", [False, True])
def test_losses_have_gradients_only_for_their_own_network(spectral_normalization):
    model = build(spectral_normalization=spectral_normalization)
    with tf.GradientTape(persistent=True) as tape:
        discriminating, generating, penalty = tf.unstack(model(batch(), training=True), axis=1)
    of_generator, of_discriminator = model.generator.trainable_variables, model.discriminator.trainable_variables

    def moves(loss, variables):
        gradients = tape.gradient(loss, [variable.value for variable in variables])
        return [gradient is not None and np.abs(gradient.numpy()).max() > 0 for gradient in gradients]

    assert not any(moves(discriminating, of_generator))
    assert not any(moves(penalty, of_generator))
    assert not any(moves(generating, of_discriminator))
    assert all(moves(discriminating, of_discriminator))
    assert all(moves(generating, of_generator))


def test_gradient_penalty_of_a_linear_discriminator():
    """Of a linear discriminator the gradient is its weights, everywhere."""
    model = build(gradient_penalty=2.0)
    weights = np.random.default_rng(0).normal(size=SHAPE).astype(np.float32)
    image = keras.Input(SHAPE)
    linear = keras.Model(image, keras.ops.sum(image * weights, axis=(1, 2, 3)))
    model.discriminator = linear
    many = {"image": np.random.default_rng(1).random((20_000, *SHAPE)).astype(np.float32), "label": np.zeros(20_000, int)}
    penalty = array(model(many, training=True))[:, 2].mean()
    assert penalty == pytest.approx(2.0 / 2 * np.square(weights).sum(), rel=0.05)


def test_gradient_penalty_of_a_network(monkeypatch):
    monkeypatch.setattr(gan, "SIGMA", 2e-3)  # the network has edges, and over longer steps it bends
    model = build(gradient_penalty=1.0)
    for weight in model.discriminator.trainable_variables:
        weight.assign(3 * weight)
    image = tf.constant(2 * batch(1)["image"] - 1)
    with tf.GradientTape() as tape:
        tape.watch(image)
        logit = model.discriminator(image)
    wanted = 0.5 * np.square(tape.gradient(logit, image).numpy()).sum()
    many = {name: np.repeat(values, 20_000, axis=0) for name, values in batch(1).items()}
    assert array(model(many, training=True))[:, 2].mean() == pytest.approx(wanted, rel=0.1)


@pytest.mark.parametrize("precision", ["float32", "mixed_bfloat16"])
def test_spectral_normalization_leaves_every_matrix_the_largest_singular_value_1(precision):
    keras.config.set_dtype_policy(precision)
    try:
        model = build(spectral_normalization=True, conditional=True)
    finally:
        keras.config.set_dtype_policy("float32")
    draw = np.random.default_rng(0)
    matrices = [weight for weight in model.discriminator.trainable_variables if len(weight.shape) > 1]
    assert {matrix.path.split("/")[-2] for matrix in matrices} == {
        "first", "downsampling1_convolution", "downsampling2_convolution", "logit", "class"
    }  # fmt: skip
    for matrix in matrices:
        matrix.assign(draw.normal(size=matrix.shape))
    step = tf.function(lambda: model(batch(), training=True))  # traced: eagerly, fifty calls take ten seconds
    for _ in range(50):  # one step of the power iteration each
        step()
    for matrix in matrices:
        values = array(matrix).astype(np.float64)
        largest = np.linalg.svd(values.reshape(-1, values.shape[-1]), compute_uv=False)[0]
        assert largest == pytest.approx(1.0, rel=0.02), matrix.path
        rounded = array(tf.cast(tf.cast(matrix.value, tf.bfloat16), tf.float64))
        assert (values != rounded).mean() > 0.9, matrix.path  # the weights keep their precision


def test_the_discriminator_can_have_a_learning_rate_of_its_own():
    model = build(discriminator_rate=4.0)
    assert model.learning_rate_factors() == [(model.discriminator, 4.0)]


def test_validation_noise_is_fixed():
    model = build()
    np.testing.assert_array_equal(array(model(batch(), training=False)), array(model(batch(), training=False)))
    assert (array(model(batch(), training=True))[:, 1] != array(model(batch(), training=True))[:, 1]).all()


def test_samples_depend_on_seed_and_label():
    model = build(conditional=True)

    def make(label, seed):
        return array(model.generate(np.full(2, label, np.int32), keras.random.SeedGenerator(seed)))

    np.testing.assert_array_equal(make(1, 0), make(1, 0))
    assert (make(1, 0) != make(1, 1)).any()
    assert (make(1, 0) != make(2, 0)).any()
    assert make(-1, 0).shape == (2, *SHAPE)
    assert make(1, 0).min() >= 0
    assert make(1, 0).max() <= 1


def test_invalid_hyperparameters_are_rejected():
    with pytest.raises(
        ValueError, match="downsamplings=3 needs an image whose height and width are multiples of 8, and it has 4×8"
    ):
        build(downsamplings=3)
    with pytest.raises(ValueError, match="conditional=true needs labels"):
        build(classes=0, conditional=True)
