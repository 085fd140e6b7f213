"""Image generation."""

import functools
import json
import logging
import math
import time
from abc import abstractmethod
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import hydra.utils
import keras
import numpy as np
import tensorflow as tf
from keras import KerasTensor, ops
from matplotlib.figure import Figure

from recipes.specs import GeneratedImages, LabelledImage
from src import terminal
from src.config.schema import Settings
from src.config.tasks import GenerationSettings
from src.datasets import Data, Split, conversion, lazy, validation
from src.datasets.conversion import PixelRange
from src.figures import style
from src.tasks.base import Figures, Generative, Metrics, Task
from src.tasks.baselines.interface import Baselines, Prediction, spaced_rows
from src.tasks.generative_metrics import frechet_distance, kernel_distance, nearest, precision_and_recall
from src.tasks.reference_classifier import ReferenceClassifier
from src.tasks.serving import DEFAULT_FUNCTION, STATE, RandomState, Serving, Signature

log = logging.getLogger(__name__)

IMAGES_FILE = "images.json"  # shape and classes of the images
ANY_CLASS = -1  # label that asks for an image of any class
BATCH_SIZE = 250  # of sampling
GRID_SIZE = 10  # rows and columns of the figure of samples
NEIGHBOR_PAIRS = 16  # in the figure of nearest training images
NEIGHBOR_VALUES = 200_000_000  # pixel values of the training images among which the nearest is sought: all of CIFAR-10
SAMPLER_STEPS = (2, 5, 10, 25)  # compared in a figure
CONFIDENT_PROBABILITY = 0.9
COLLAPSE_DIVERSITY = 0.5  # below half the variance of real images, the generator is said to have collapsed


class ImageSampler:
    """A generative model with the class names of its images.

    Args:
        model: a `recipes.specs.ImageGenerator`, its options and their defaults.
        classes: class names; empty if there are none.

    Attributes:
        defaults: {option: default} of sampling.
        conditional: whether the model takes a label.
    """

    def __init__(self, model: keras.Model, classes: tuple[str, ...]):
        self.model, self.classes = model, classes
        self.defaults = dict(model.sampling_defaults)
        self.conditional = model.conditional
        self._compiled: dict[tuple, tuple[keras.random.SeedGenerator, Callable]] = {}

    def sample(self, labels: np.ndarray, seed: int, **options: Any) -> np.ndarray:
        """Sample images uint8 (n, H, W, C), one for each label (n,); equal seeds give equal images.

        Args:
            labels: class indices, or `ANY_CLASS`.
            seed: of the noise.
            options: of the model's sampling, in place of `defaults`.
        """
        options = self.defaults | options
        key = tuple(sorted(options.items()))
        if key not in self._compiled:  # tracing takes longer than sampling
            generator = keras.random.SeedGenerator(seed)
            sample_batch = tf.function(lambda batch: self.sample_batch(batch, generator, **options), autograph=False)
            self._compiled[key] = generator, sample_batch
        generator, compiled = self._compiled[key]
        generator.state.assign(keras.random.SeedGenerator(seed).state)
        count, batch_size = len(labels), min(BATCH_SIZE, len(labels))
        padded = np.concatenate([labels, np.full(-count % batch_size, ANY_CLASS)]).astype(np.int32)
        starts = range(0, len(padded), batch_size)
        batches = [
            compiled(tf.constant(padded[start : start + batch_size])).numpy() for start in terminal.track(starts, len(starts))
        ]
        return np.concatenate(batches)[:count]

    def sample_batch(self, labels: KerasTensor, seed: keras.random.SeedGenerator, **options: Any) -> KerasTensor:
        """Sample one batch, as `sample` does, with tensors."""
        return to_uint8(self.model.generate(labels, seed, **options))


def to_uint8(images: KerasTensor) -> KerasTensor:
    """Round images of 0..1 to bytes of 0..255; values outside are clipped."""
    return ops.cast(ops.round(255.0 * ops.clip(ops.cast(images, "float32"), 0.0, 1.0)), "uint8")


class GenerativeTask(Task, Generative):
    """What all ways of generating images share.

    Predictions are images uint8 (samples, H, W, C); their number does not depend on the split that they are compared with. The
    `raw` inputs of a split are labels, which a served model takes, and its `raw_targets` the images.

    Args:
        settings: of the task.
        data: images (H, W, C), which are converted to uint8, with class labels or without.
        reference_classifier: in its features generated images are compared with real ones; None: only for models that are
            neither evaluated nor previewed.
    """

    ARTIFACT = IMAGES_FILE
    units: dict[str, str] = {}
    baseline_settings = ("samples",)
    preview_metrics = ("frechet_distance", "kernel_distance")

    def __init__(
        self,
        settings: GenerationSettings,
        data: Data,
        reference_classifier: ReferenceClassifier | None = None,
    ):
        validation.check_images(data, settings.name)
        if data.classes or conversion.are_labels(data.train.targets):
            data = conversion.to_class_indices(data)
        data = conversion.to_8_bits(data)
        self.settings, self.classes = settings, data.classes
        self.shape = data.train.raw_inputs.shape[1:]
        self.train, self.validation, self.test = map(self.encode_split, (data.train, data.validation, data.test))
        self._reference_classifier = reference_classifier
        self._sampler: ImageSampler | None = None
        self._last_diversity = 0.0  # at the last preview
        self._seconds_per_sample = math.nan
        self._real_features: dict[int, tuple[np.ndarray, np.ndarray]] = {}  # by id of the split

    @property
    def reference_classifier(self) -> ReferenceClassifier:
        """The classifier in whose features images are compared.

        Raises:
            ValueError: the task was made without one.
        """
        if self._reference_classifier is None:
            raise ValueError("Generated images cannot be measured without a reference classifier.")
        return self._reference_classifier

    @abstractmethod
    def encode_split(self, split: Split) -> Split:
        """Encode a split of images and labels as inputs and targets of the model."""

    @abstractmethod
    def sampler(self, model: keras.Model) -> ImageSampler:
        """The sampler of a model."""

    def wrap(self, network: keras.Model) -> keras.Model:
        return network

    def _labels(self, split: Split) -> np.ndarray:
        return split.targets.astype(np.int32) if self.classes else np.full(len(split), ANY_CLASS, np.int32)

    def _cached_sampler(self, model: keras.Model) -> ImageSampler:
        """The sampler of a model; it is kept with its compiled functions until another model is asked for."""
        if self._sampler is None or self._sampler.model is not model:
            self._sampler = self.sampler(model)
        return self._sampler

    def _sample(self, model: keras.Model, number: int, seed: int = 0, **options: Any) -> np.ndarray:
        """Sample `number` images; a conditional model gets labels sampled from the training set."""
        sampler = self._cached_sampler(model)
        labels = np.random.default_rng(seed).choice(self.train.raw, number)
        start = time.perf_counter()
        images = sampler.sample(labels if sampler.conditional else np.full(number, ANY_CLASS), seed, **options)
        if not options:
            self._seconds_per_sample = (time.perf_counter() - start) / number
        return images

    def predict(self, model: keras.Model, split: Split, batch_size: int) -> np.ndarray:
        return self._sample(model, self.settings.samples)

    # --- metrics

    def metrics(self, split: Split, predictions: np.ndarray) -> Metrics:
        """Metrics of generated images against the images of a split, by the features and classes of the reference classifier.

        frechet_distance, kernel_distance: between the features; 0 for equal distributions.
        precision, recall: fraction of generated images within the real ones, and of real images within the generated ones.
        diversity: variance of the features, relative to that of real images; near 0 after a mode collapse.
        confident_fraction: fraction of images that the classifier assigns to a class with a probability of 0.9 or more.
        classes: number of classes that it assigns.
        class_distance: total variation distance of the frequencies of the classes, 0 to 1.
        training_distance: median distance to the nearest training image, relative to that of real images; near 0 for copies.
            Of a large training set, evenly spaced images are compared.
        """
        real_features, real_probabilities = self._features(split)
        features, probabilities = self.reference_classifier.features_and_probabilities(predictions)
        equally_many = real_features[: len(predictions)]
        precision, recall = precision_and_recall(equally_many, features)
        count = probabilities.shape[1]
        frequencies = [np.bincount(p.argmax(axis=1), minlength=count) / len(p) for p in (real_probabilities, probabilities)]
        distances = [
            np.median(nearest(images, self._neighbors)[1]) for images in (predictions, split.raw_targets[: len(equally_many)])
        ]
        return {
            "frechet_distance": frechet_distance(real_features, features),
            "kernel_distance": kernel_distance(equally_many, features),
            "precision": precision,
            "recall": recall,
            "diversity": float(features.var(axis=0).sum() / real_features.var(axis=0).sum()),
            "confident_fraction": float(np.mean(probabilities.max(axis=1) >= CONFIDENT_PROBABILITY)),
            "classes": float(np.count_nonzero(frequencies[1])),
            "class_distance": float(np.abs(frequencies[0] - frequencies[1]).sum() / 2),
            "training_distance": float(distances[0] / max(distances[1], 1e-9)),
        }

    @functools.cached_property
    def _neighbors(self) -> np.ndarray:
        """The training images among which the nearest is sought, uint8 (images, H, W, C): all, or evenly spaced ones."""
        images = self.train.raw_targets
        rows = spaced_rows(len(images), NEIGHBOR_VALUES // math.prod(self.shape))
        return np.asarray(images) if len(rows) == len(images) else images[rows]

    def _features(self, split: Split) -> tuple[np.ndarray, np.ndarray]:
        """Features and class probabilities of the images of a split, computed once."""
        if id(split) not in self._real_features:
            self._real_features[id(split)] = self.reference_classifier.features_and_probabilities(split.raw_targets)
        return self._real_features[id(split)]

    def baselines(self) -> Baselines:
        """Training images, the best that a generator could do, and uniform noise, the worst; as many as are generated."""
        shape = (min(self.settings.samples, len(self.train)), *self.shape)
        return {
            "training_images": lambda: Prediction(self._random_training_images(shape[0])),
            "noise": lambda: Prediction(np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)),
        }

    def baseline_dependencies(self) -> tuple[str, ...]:
        return (self.reference_classifier.run_id,)

    def inference_costs(self, model: keras.Model) -> Metrics:
        return {"milliseconds_per_sample": 1e3 * self._seconds_per_sample}

    def preview(self, model: keras.Model) -> tuple[Metrics, Callable[[], Figures]]:
        samples = self._sample(model, max(self.settings.samples // 4, GRID_SIZE))
        metrics = self.metrics(self.validation, samples)
        diversity = metrics["diversity"]
        if diversity < COLLAPSE_DIVERSITY and diversity <= 1.1 * self._last_diversity:  # no warning while it rises
            log.warning(
                "Mode collapse: the variance of the generated images is %.2f of that of real ones, in %d of %d classes.",
                diversity, metrics["classes"], len(self.classes),
            )  # fmt: skip
        self._last_diversity = diversity
        return metrics, lambda: {"samples.png": self._sample_grid(samples)}

    # --- figures

    def figures(
        self, model: keras.Model, predictions: np.ndarray, baselines: Mapping[str, np.ndarray] = MappingProxyType({})
    ) -> Figures:
        figures: Figures = {
            "samples.png": self._sample_grid(predictions),
            "nearest_training_images.png": self._nearest_training_images(predictions),
        }
        if "steps" in self._cached_sampler(model).defaults:
            figures["quality_against_steps.png"] = self._quality_against_steps(model)
        return figures

    def _sample_grid(self, images: np.ndarray) -> Figure:
        shown = images[: GRID_SIZE * GRID_SIZE]
        rows = -(-len(shown) // GRID_SIZE)
        title = f"{len(shown)} uncurated samples"
        figure, (axes,) = style.create(title, size=(style.WIDTH, 0.8 + style.WIDTH * rows / GRID_SIZE))
        style.show_image(axes, image_grid(shown, GRID_SIZE) / 255)
        axes.axis("off")
        return figure

    def _nearest_training_images(self, images: np.ndarray) -> Figure:
        """Pairs of a sample and the nearest training image: where they are equal, the model has memorized it."""
        images = images[:NEIGHBOR_PAIRS]
        indices, distances = nearest(images, self._neighbors)
        title = (
            "Left: uncurated sample; right: nearest training image\n(and their distance, the root mean square of pixels 0…1)"
        )
        figure, tiles = style.create_tiles(title, len(images), proportion=2)
        for axes, image, index, distance in zip(tiles, images, indices, distances):
            style.show_image(axes, image_grid(np.stack([image, self._neighbors[index]]), 2) / 255)
            axes.set_title(f"{distance:.3f}")
        return figure

    def _quality_against_steps(self, model: keras.Model) -> Figure:
        """Fréchet distance against the number of sampling steps, with fewer samples than in the metrics."""
        number = max(self.settings.samples // 4, GRID_SIZE)
        step_counts = [steps for steps in SAMPLER_STEPS if steps <= model.timesteps]
        distances = [self._distance(self._sample(model, number, steps=steps)) for steps in step_counts]
        figure, (axes,) = style.create(f"Quality against the number of sampling steps, {number} samples each")
        axes.plot(step_counts, distances, "o-", color=style.MODEL, label="model")
        best = self._distance(self._random_training_images(number))
        axes.axhline(best, color=style.BASELINE, linestyle="--", label=f"{number} training images: {best:.3g}")
        for steps, distance in zip(step_counts, distances):
            axes.annotate(f"{distance:.3g}", (steps, distance), (4, 6), textcoords="offset points")
        axes.set(
            xlabel="sampling steps (log scale)",
            ylabel="Fréchet distance to the test set (log scale;\nfeatures of the reference classifier)",
        )  # fmt: skip
        style.log_scale(axes, "x", step_counts)
        style.log_scale(axes, "y", [best, *distances])
        axes.set_xticks(step_counts, [str(steps) for steps in step_counts])
        axes.margins(0.08)
        axes.grid()
        axes.legend()
        return figure

    def _distance(self, images: np.ndarray) -> float:
        """The Fréchet distance of images to the test set."""
        features, _ = self.reference_classifier.features_and_probabilities(images)
        return frechet_distance(self._features(self.test)[0], features)

    def _random_training_images(self, number: int) -> np.ndarray:
        rows = np.random.default_rng(0).choice(len(self.train), min(number, len(self.train)), replace=False)
        return self.train.raw_targets[np.sort(rows)]

    def serving(self, model: keras.Model) -> Serving:
        """Names of classes to `image` uint8 (batch, H, W, C); options of sampling that are no tensors have their defaults."""
        sampler, random_state = self.sampler(model), RandomState()

        def sample(inputs: tf.Tensor, state: tf.Tensor, **options: tf.Tensor) -> dict:
            random_state.set(state)
            image = sampler.sample_batch(inputs, random_state.seed, **sampler.defaults | options)
            return {"image": image, "state": random_state.get()}

        params, signature = self.serving_options()
        return Serving(
            "ImageGenerator",
            {DEFAULT_FUNCTION: (sample, {"inputs": tf.TensorSpec((None,), tf.int32), "state": STATE, **signature})},
            [model, random_state], example=[self.classes[0] if sampler.conditional else ""],
            outputs={"image": ("uint8", self.shape)}, settings={"classes": list(self.classes) if sampler.conditional else []},
            params={"seed": 0, "number": 1, **params},
        )  # fmt: skip

    def serving_options(self) -> tuple[dict[str, Any], Signature]:
        """{option: default} and {option: type} of sampling that a user of the served model may set."""
        return {}, {}

    def artifacts(self) -> dict[str, str]:
        return {IMAGES_FILE: json.dumps({"shape": list(self.shape), "classes": list(self.classes)})}


class ImageGeneration(GenerativeTask):
    """Generation of whole images, by a model with a loss and a sampler of its own."""

    def __init__(self, settings: GenerationSettings, data: Data, reference_classifier: ReferenceClassifier | None = None):
        super().__init__(settings, data, reference_classifier)
        self.inputs, self.outputs = specs(self.shape, self.classes)

    def encode_split(self, split: Split) -> Split:
        labels = self._labels(split)
        pixels = lazy.encode(PixelRange.of(split.single).normalize, split.single)
        return Split({"image": pixels, "label": labels}, labels, source=labels, reference=split.single)

    def sampler(self, model: keras.Model) -> ImageSampler:
        return ImageSampler(model, self.classes)

    def loss(self) -> keras.losses.Loss:
        return SumOfLossTerms()

    def training_metrics(self, model: keras.Model) -> list[keras.metrics.Metric]:
        names = model.loss_names
        return [LossTerm(name, index) for index, name in enumerate(names)] if len(names) > 1 else []

    @classmethod
    def from_run(cls, settings: Settings, images: str, load_weights: Callable[[keras.Model], None]) -> ImageSampler:
        """Restore the sampler of a run.

        Args:
            settings: of the run.
            images: content of its `IMAGES_FILE`.
            load_weights: function that loads the weights of that run into the model.
        """
        metadata = json.loads(images)
        shape, classes = tuple(metadata["shape"]), tuple(metadata["classes"])
        build = hydra.utils.get_method(settings.model.target)
        model = build(*specs(shape, classes), **settings.model.hyperparameters)
        model({"image": np.zeros((1, *shape), np.float32), "label": np.zeros(1, np.int32)})  # creates the weights
        load_weights(model)
        return ImageSampler(model, classes)


def specs(shape: tuple[int, ...], classes: tuple[str, ...]) -> tuple[LabelledImage, GeneratedImages]:
    """Specification of a recipe's inputs and outputs, for images of a shape (H, W, C)."""
    height, width, channels = shape
    return LabelledImage(height, width, channels, len(classes)), GeneratedImages(height, width, channels)


class SumOfLossTerms(keras.losses.Loss):
    """The loss of a model whose outputs are the terms of its loss (batch, terms): their sum, whatever the targets."""

    def call(self, y_true: KerasTensor, y_pred: KerasTensor) -> KerasTensor:
        return ops.sum(ops.reshape(y_pred, (ops.shape(y_true)[0], -1)), axis=-1)  # Keras squeezes an axis of length 1


class LossTerm(keras.metrics.Mean):
    """The mean of one of the terms of a loss.

    Args:
        name: of the term.
        index: of its column among the model's outputs.
    """

    def __init__(self, name: str, index: int):
        super().__init__(name=name)
        self.index = index

    def update_state(self, y_true: KerasTensor, y_pred: KerasTensor, sample_weight: KerasTensor | None = None) -> Any:
        return super().update_state(y_pred[:, self.index], sample_weight)


def image_grid(images: np.ndarray, columns: int) -> np.ndarray:
    """Arrange images (n, H, W, C) in a grid with grey lines: (rows · (H + 1) − 1, columns · (W + 1) − 1, C)."""
    rows = -(-len(images) // columns)
    height, width, channels = images.shape[1:]
    grid = np.full((rows * (height + 1), columns * (width + 1), channels), 96, np.uint8)
    for index, image in enumerate(images):
        top, left = index // columns * (height + 1), index % columns * (width + 1)
        grid[top : top + height, left : left + width] = image
    return grid[:-1, :-1]
