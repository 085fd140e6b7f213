"""Image generation: sampling, and metrics of the samples."""

import json
import logging

import keras
import numpy as np
import pytest

from recipes.specs import ImageGenerator, StepwiseDecoder
from src import datasets
from src.config.tasks import GenerationSettings, PixelGenerationSettings
from src.errors import UserError
from src.tasks import factory
from src.tasks.baselines import store
from src.tasks.image_generation import ANY_CLASS, ImageSampler, LossTerm, SumOfLossTerms, image_grid, to_uint8
from src.tasks.pixel_generation import FIRST_LEVEL, PixelSampler, PixelTokenizer


class FakeReferenceClassifier:
    """Its features are pixels; its class is the value of the first pixel."""

    def features_and_probabilities(self, images):
        probabilities = np.full((len(images), 10), 0.02)
        probabilities[np.arange(len(images)), images[:, 0, 0, 0] % 10] = 0.82
        return images.reshape(len(images), -1) / 255.0, probabilities


def images_of(labels, draw, spread=40):
    """Images whose first pixel is their class."""
    images = draw.integers(100 - spread, 100 + spread, (len(labels), 4, 4, 1)).astype(np.uint8)
    images[:, 0, 0, 0] = labels
    return images


@pytest.fixture
def data():
    draw = np.random.default_rng(0)
    splits = {}
    for name, number in (("train", 300), ("validation", 60), ("test", 100)):
        labels = draw.integers(0, 10, number)
        splits[name] = datasets.Split(images_of(labels, draw), labels)
    return datasets.Data(name="some", source="some:1.0.0", description="", classes=tuple("abcdefghij"), **splits)


@pytest.fixture
def task(data):
    return factory.create(
        GenerationSettings(name="image_generation", reference_classifier="cnn", samples=80),
        data,
        reference_classifier=FakeReferenceClassifier(),
    )


def test_images_are_scaled_and_labels_are_inputs(task, data):
    assert task.train.inputs["image"].dtype == np.float32
    np.testing.assert_allclose(task.train.inputs["image"] * 255, data.train.inputs, atol=1e-4)
    np.testing.assert_array_equal(task.train.inputs["label"], data.train.targets)
    np.testing.assert_array_equal(task.test.raw, data.test.targets)


def test_metrics_rank_real_images_above_noise(task):
    floor, ceiling = store.compute(task).metrics.values()
    assert floor["frechet_distance"] < 0.1 * ceiling["frechet_distance"]
    assert floor["kernel_distance"] < 0.1 * ceiling["kernel_distance"]
    assert floor["precision"] > 0.8 > ceiling["precision"]
    assert floor["recall"] > 0.8
    assert floor["training_distance"] == pytest.approx(0, abs=0.01)  # they are training images
    assert ceiling["training_distance"] > 2
    assert floor["diversity"] == pytest.approx(1, abs=0.2)


def test_classes_of_the_images_are_counted(task):
    draw = np.random.default_rng(1)
    result = task.metrics(task.test, images_of(np.repeat([3, 4], 40), draw))
    assert result["classes"] == 2
    shares = np.bincount(task.test.source, minlength=10) / 100
    assert result["class_distance"] == pytest.approx(1 - np.minimum(shares, [0, 0, 0, 0.5, 0.5, 0, 0, 0, 0, 0]).sum())
    assert result["confident_fraction"] == 0  # 0.82 is less than 0.9


class Generator(ImageGenerator):
    """A model whose images have the classes of the labels, as the reference classifier sees them."""

    loss_names, sampling_defaults = ("loss",), {}

    def __init__(self, conditional=True, levels=41):
        self.conditional, self.levels = conditional, levels

    def generate(self, labels, seed):
        shape = (keras.ops.shape(labels)[0], 4, 4, 1)
        image = 60.0 + keras.ops.floor(keras.random.uniform(shape, seed=seed) * self.levels)
        first = keras.ops.reshape(keras.ops.arange(16), (1, 4, 4, 1)) == 0
        return keras.ops.where(first, keras.ops.cast(labels, "float32")[:, None, None, None], image) / 255.0


def test_mode_collapse_is_logged(task, caplog):
    def warnings():  # TensorFlow logs warnings too
        return [record.message for record in caplog.records if record.name == "src.tasks.image_generation"]

    with caplog.at_level(logging.WARNING):
        task.preview(Generator(levels=81))
        assert not warnings()
        task.preview(Generator(levels=1))
    (message,) = warnings()
    assert "Mode collapse: the variance of the generated images is 0.0" in message


def test_labels_are_sampled_with_their_frequencies_in_training(task):
    images = task.predict(Generator(), task.test, 7)
    assert images.shape == (80, 4, 4, 1)
    assert images.dtype == np.uint8
    labels = np.random.default_rng(0).choice(task.train.source, 80)
    np.testing.assert_array_equal(images[:, 0, 0, 0], labels)
    unconditional = task.predict(Generator(conditional=False), task.test, 7)
    np.testing.assert_array_equal(unconditional[:, 0, 0, 0], 0)  # any, -1, cut off at 0


def test_equal_seeds_give_equal_images_in_any_number_of_batches():
    sampler, labels = ImageSampler(Generator(), ()), np.arange(300) % 10
    first = sampler.sample(labels, 3)
    np.testing.assert_array_equal(first, sampler.sample(labels, 3))
    np.testing.assert_array_equal(first, ImageSampler(Generator(), ()).sample(labels, 3))
    np.testing.assert_array_equal(first[:, 0, 0, 0], labels)
    assert (first != sampler.sample(labels, 4)).any()


def test_loss_terms_are_logged_and_add_up_to_the_loss():
    terms, weights = np.array([[1.0, 2.0], [3.0, 5.0], [9.0, 9.0]], np.float32), np.array([1.0, 1.0, 0.0], np.float32)
    loss = SumOfLossTerms(reduction="none")
    np.testing.assert_allclose(loss(np.zeros(3), terms), [3, 8, 18])
    np.testing.assert_allclose(loss(np.zeros(3), terms[:, :1]), [1, 3, 9])
    metric = LossTerm("second", 1)
    metric.update_state(np.zeros(3), terms, weights)
    assert float(metric.result()) == pytest.approx(3.5)


def test_images_are_rounded_to_uint8():
    np.testing.assert_array_equal(to_uint8(np.array([-0.1, 0.0, 0.5, 1.0, 1.1], np.float32)), [0, 0, 128, 255, 255])


def test_image_grid_has_lines_between_images():
    page = image_grid(np.arange(1, 4, dtype=np.uint8)[:, None, None, None] * np.ones((1, 2, 2, 1), np.uint8), 2)
    np.testing.assert_array_equal(
        page[..., 0], [[1, 1, 96, 2, 2], [1, 1, 96, 2, 2], [96] * 5, [3, 3, 96, 96, 96], [3, 3, 96, 96, 96]]
    )


def test_pixel_tokens_are_decoded_to_the_same_images():
    draw = np.random.default_rng(0)
    images, labels = draw.integers(0, 256, (5, 3, 4, 2), dtype=np.uint8), np.array([0, 1, 2, 0, 1])
    for levels, error in ((256, 0), (17, 8), (2, 128)):
        tokenizer = PixelTokenizer((3, 4, 2), ("a", "b", "c"), levels)
        tokens = tokenizer.encode(images, labels)
        assert tokens.shape == (5, 25)
        assert (tokens[:, 0] - labels == FIRST_LEVEL + levels).all()
        assert tokens[:, 1:].min() >= FIRST_LEVEL
        assert tokens.max() < tokenizer.specs()[0].vocabulary
        assert np.abs(np.asarray(tokenizer.decode(tokens)).astype(int) - images).max() <= error


def test_first_pixel_token_is_the_class(data):
    run_settings = PixelGenerationSettings(name="pixel_generation", reference_classifier="cnn", samples=80, levels=16)
    task = factory.create(run_settings, data, reference_classifier=FakeReferenceClassifier())
    assert task.train.inputs.shape == task.train.targets.shape == (300, 16)
    np.testing.assert_array_equal(task.train.inputs[:, 1:], task.train.targets[:, :-1])
    np.testing.assert_array_equal(task.train.inputs[:, 0] - task.train.source, FIRST_LEVEL + 16)
    assert json.loads(task.artifacts()["images.json"]) == {"shape": [4, 4, 1], "classes": list("abcdefghij"), "levels": 16}


def test_only_pixel_levels_are_sampled():
    class Biased(StepwiseDecoder):
        """Its most probable tokens are padding, END and classes, and then level 2."""

        def init_cache(self, batch, length):
            return keras.ops.zeros((batch,))

        def decode_step(self, token, index, cache):
            seen.append(token)
            logits = np.array([9, 9, 9, 9, 0, 0, 8, 0, 9, 9, 9], np.float32)
            return keras.ops.tile(logits[None], (keras.ops.shape(token)[0], 1)), cache

    seen = []
    sampler = PixelSampler(Biased(), PixelTokenizer((2, 2, 1), ("a", "b", "c"), 4))
    images = np.asarray(sampler.sample_batch(np.array([ANY_CLASS] * 50), keras.random.SeedGenerator(0), temperature=0))
    np.testing.assert_array_equal(images, 170)  # level 2 of 0 … 3
    assert set(np.asarray(seen[0])) == {8, 9, 10}


def test_only_images_are_accepted(data):
    texts = datasets.Split(np.array([b"a", b"b"], object), np.array([0, 1]))
    other = datasets.Data(
        name="texts", source="", description="", train=texts, validation=texts, test=texts, classes=("a", "b")
    )
    with pytest.raises(UserError, match="dataset=texts: image_generation needs images"):
        factory.create(GenerationSettings(name="image_generation", reference_classifier="cnn", samples=80), other)
