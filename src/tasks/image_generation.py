"""Image generation: more images like these."""

import json
import logging
import math
import time
from abc import abstractmethod
from collections.abc import Callable
from typing import Any

import hydra.utils
import keras
import numpy as np
import tensorflow as tf
from keras import KerasTensor, ops
from matplotlib.figure import Figure

from recipes.specs import GeneratedImages, LabelledImage
from src import settings
from src.datasets import Data, Part
from src.errors import UserError
from src.serving import Answer
from src.tasks.judge import Judge, frechet_distance, kernel_distance, nearest, precision_and_recall
from src.tasks.task import Metrics, Task

log = logging.getLogger(__name__)

IMAGES_FILE = "images.json"  # what is known of the images besides how they look
ANY = -1  # label of an image that may be of any class
BATCH = 250  # images made at once
SHOWN = 10  # rows and columns of the figure of samples
NEIGHBOURS_SHOWN = 16
STEPS = (2, 5, 10, 25)  # of a sampler, compared in a figure
CONFIDENT = 0.9  # probability of the class that the judge takes an image for
ALIKE = 0.5  # generated images that vary less than half as much as real ones are taken for a collapse


class Painter:
    """A generator with what is known of its images.

    Args:
        model: a `recipes.specs.ImageGenerator`.
        classes: their names; empty if there are none.
    """

    def __init__(self, model: keras.Model, classes: tuple[str, ...]):
        self.model, self.classes = model, classes
        self.how = dict(model.sampling_defaults)
        self.conditional = model.conditional
        self._compiled: dict[tuple, tuple[keras.random.SeedGenerator, Callable]] = {}

    def paint(self, labels: np.ndarray, seed: int, **how: Any) -> np.ndarray:
        """Images uint8 (n, H, W, C), one for each label (n,); the same seed makes the same ones.

        Args:
            labels: class numbers; `ANY` is any.
            seed: of the noise.
            how: options of the model's own.
        """
        how = self.how | how
        key = tuple(sorted(how.items()))
        if key not in self._compiled:  # tracing takes longer than painting
            generator = keras.random.SeedGenerator(seed)
            self._compiled[key] = generator, tf.function(lambda some: self.images(some, generator, **how), autograph=False)
        generator, compiled = self._compiled[key]
        generator.state.assign(keras.random.SeedGenerator(seed).state)
        number, batch = len(labels), min(BATCH, len(labels))
        filled = np.concatenate([labels, np.full(-number % batch, ANY)]).astype(np.int32)
        batches = [compiled(tf.constant(filled[at : at + batch])).numpy() for at in range(0, len(filled), batch)]
        return np.concatenate(batches)[:number]

    def images(self, labels: KerasTensor, seed: keras.random.SeedGenerator, **how: Any) -> KerasTensor:
        """As `paint`, of one batch, as tensors."""
        return to_bytes(self.model.generate(labels, seed, **how))


def to_bytes(image: KerasTensor) -> KerasTensor:
    """0..1 to 0..255."""
    return ops.cast(ops.round(255.0 * ops.clip(ops.cast(image, "float32"), 0.0, 1.0)), "uint8")


class Generation(Task):
    """Images to more of them: what is the same for every way of making them.

    Predictions are images uint8 (samples, H, W, C); how many does not depend on the part that they are compared with. Of a
    part, `raw` is the labels, which is what others ask with, and `raw_targets` the images.

    Attributes:
        judge: the classifier that tells how good images are; set before anything is measured.
    """

    KEPT = IMAGES_FILE  # what, besides settings and weights, `restored` needs
    units: dict[str, str] = {}
    judge: Judge

    def __init__(self, chosen: settings.ImageGeneration | settings.PixelGeneration, data: Data):
        self.chosen, self.classes = chosen, data.classes
        if data.train.raw.ndim != 4 or data.train.raw.dtype != np.uint8:
            raise UserError(f"dataset={data.name}: {chosen.name} needs images, but the inputs are not images.")
        self.shape = data.train.raw.shape[1:]
        self.train, self.validation, self.test = (self.part(p) for p in (data.train, data.validation, data.test))
        self._painter: Painter | None = None
        self._diversity = 0.0  # when it was looked at last
        self._seconds = math.nan  # that a sample took when some were made last
        self._seen: dict[int, tuple[np.ndarray, np.ndarray]] = {}

    @abstractmethod
    def part(self, raw: Part) -> Part:
        """Images with their labels, as they are learned from."""

    @abstractmethod
    def painter(self, model: keras.Model) -> Painter:
        """What makes images of a model."""

    def around(self, network: keras.Model) -> keras.Model:
        return network

    def _labels(self, part: Part) -> np.ndarray:
        return part.targets.astype(np.int32) if self.classes else np.full(len(part), ANY, np.int32)

    def _painter_of(self, model: keras.Model) -> Painter:
        """The same one as long as it is the same model, since it remembers what it has compiled."""
        if self._painter is None or self._painter.model is not model:
            self._painter = self.painter(model)
        return self._painter

    def _paint(self, model: keras.Model, number: int, seed: int = 0, **how: Any) -> np.ndarray:
        """So many images; of a model that is told the class, with as many of each as training has."""
        painter = self._painter_of(model)
        drawn = np.random.default_rng(seed).choice(self.train.raw, number)
        began = time.perf_counter()
        images = painter.paint(drawn if painter.conditional else np.full(number, ANY), seed, **how)
        if not how:
            self._seconds = (time.perf_counter() - began) / number
        return images

    def predict(self, model: keras.Model, part: Part, batch_size: int) -> np.ndarray:
        return self._paint(model, self.chosen.samples)

    # --- how good they are

    def metrics(self, part: Part, predictions: np.ndarray) -> Metrics:
        """Distances to a part's images, in the features of the judge, and what the judge takes the images for.

        fid, kid: 0 for images of the same distribution.
        precision, recall: share of the generated among the real, and of the real among the generated.
        diversity: variance of the generated images over that of the real ones; near 0 after a collapse.
        confident: share of which the judge's probability is 0.9 or more.
        classes: that it finds among them.
        class_distance: total variation distance of the shares of the classes, 0 to 1.
        training_distance: median distance to the nearest training image, over that of a part's images: near 0 for copies.
        """
        real, made = self._look(part), self.judge.look(predictions)
        fewer = real[0][: len(predictions)]
        precision, recall = precision_and_recall(fewer, made[0])
        count = made[1].shape[1]
        shares = [np.bincount(p.argmax(axis=1), minlength=count) / len(p) for p in (real[1], made[1])]
        both = (predictions, part.raw_targets[: len(fewer)])
        distances = [np.median(nearest(images, self.train.raw_targets)[1]) for images in both]
        return {
            "fid": frechet_distance(real[0], made[0]),
            "kid": kernel_distance(fewer, made[0]),
            "precision": precision,
            "recall": recall,
            "diversity": float(made[0].var(axis=0).sum() / real[0].var(axis=0).sum()),
            "confident": float(np.mean(made[1].max(axis=1) >= CONFIDENT)),
            "classes": float(np.count_nonzero(shares[1])),
            "class_distance": float(np.abs(shares[0] - shares[1]).sum() / 2),
            "training_distance": float(distances[0] / max(distances[1], 1e-9)),
        }

    def _look(self, part: Part) -> tuple[np.ndarray, np.ndarray]:
        if id(part) not in self._seen:
            self._seen[id(part)] = self.judge.look(part.raw_targets)
        return self._seen[id(part)]

    def baselines(self) -> dict[str, Metrics]:
        """The best that can be hoped for, other real images (as many, from the training part), and the worst, noise."""
        draw = np.random.default_rng(0)
        number = min(self.chosen.samples, len(self.train))
        some = self.train.raw_targets[np.sort(draw.choice(len(self.train), number, replace=False))]
        noise = draw.integers(0, 256, (number, *self.shape), dtype=np.uint8)
        return {"training_images": self.metrics(self.test, some), "noise": self.metrics(self.test, noise)}

    def costs(self, model: keras.Model) -> Metrics:
        return {"milliseconds_per_sample": 1e3 * self._seconds}

    glanced = ("fid", "kid")

    def glance(self, model: keras.Model) -> tuple[Metrics, dict[str, Figure | str]]:
        some = self._paint(model, max(self.chosen.samples // 4, SHOWN))
        found = self.metrics(self.validation, some)
        if found["diversity"] < ALIKE and found["diversity"] <= 1.1 * self._diversity:  # while it rises, it is on its way
            log.warning(
                "The generator has collapsed: its images vary %.2f times as much as real ones, with %d of %d classes.",
                found["diversity"], found["classes"], len(self.classes),
            )  # fmt: skip
        self._diversity = found["diversity"]
        return found, {"samples.png": self._grid(some)}

    # --- what is shown

    def figures(self, model: keras.Model, predictions: np.ndarray) -> dict[str, Figure | str]:
        found: dict[str, Figure | str] = {
            "samples.png": self._grid(predictions),
            "nearest_training_images.png": self._nearest(predictions),
        }
        if "steps" in self._painter_of(model).how:
            found["quality_against_steps.png"] = self._quality(model)
        return found

    def _grid(self, images: np.ndarray) -> Figure:
        figure = Figure(figsize=(8, 8.4), layout="constrained")
        figure.suptitle("Generated, not selected")
        axes = figure.subplots()
        axes.imshow(grid(images[: SHOWN * SHOWN], SHOWN).squeeze(), cmap="gray", vmin=0, vmax=255)
        axes.axis("off")
        return figure

    def _nearest(self, images: np.ndarray) -> Figure:
        """Samples, and beside each the training image that is most alike: they should differ."""
        images = images[:NEIGHBOURS_SHOWN]
        numbers, distances = nearest(images, self.train.raw_targets)
        figure = Figure(figsize=(8, 5), layout="constrained")
        figure.suptitle("Left: generated. Right: the nearest training image, and its distance")
        for axes in figure.subplots(4, 4).flat:
            axes.axis("off")
        for axes, image, number, distance in zip(figure.axes, images, numbers, distances):
            pair = grid(np.stack([image, self.train.raw_targets[number]]), 2)
            axes.imshow(pair.squeeze(), cmap="gray", vmin=0, vmax=255)
            axes.set_title(f"{distance:.3f}", fontsize=9)
        return figure

    def _quality(self, model: keras.Model) -> Figure:
        """FID against the number of the sampler's steps, at a smaller sample."""
        number = max(self.chosen.samples // 4, SHOWN)
        known = [steps for steps in STEPS if steps <= model.timesteps]
        made = [self.judge.look(self._paint(model, number, steps=steps))[0] for steps in known]
        distances = [frechet_distance(self._look(self.test)[0], features) for features in made]
        figure = Figure(figsize=(7, 4.5), layout="constrained")
        axes = figure.subplots()
        axes.plot(known, distances, "o-")
        for steps, distance in zip(known, distances):
            axes.annotate(f"{distance:.1f}", (steps, distance), (4, 6), textcoords="offset points")
        axes.set(xscale="log", yscale="log", xlabel="steps", ylabel="FID", title=f"Quality against steps, {number} samples")
        axes.set_xticks(known, [str(steps) for steps in known])
        axes.minorticks_off()
        return figure

    def served(self, model: keras.Model) -> tuple[Answer, list[Any]]:
        """Class numbers (batch,), of which -1 is any, to `image` uint8 (batch, H, W, C), other ones each time."""
        painter, draws = self.painter(model), keras.layers.Layer(name="draws")
        draws.seed = keras.random.SeedGenerator(0)  # a layer keeps its state among its variables

        def answer(labels: KerasTensor) -> dict:
            return {"image": painter.images(labels, draws.seed)}

        return answer, [model, draws]

    def artifacts(self) -> dict[str, str]:
        return {IMAGES_FILE: json.dumps({"shape": list(self.shape), "classes": list(self.classes)})}


class ImageGeneration(Generation):
    """Made as a whole, by a model that brings its own loss and its own way of making them."""

    def __init__(self, chosen: settings.ImageGeneration, data: Data):
        super().__init__(chosen, data)
        self.inputs, self.outputs = kinds(self.shape, self.classes)
        self.terms: tuple[str, ...] = ()

    def part(self, raw: Part) -> Part:
        labels = self._labels(raw)
        pixels = raw.array.astype(np.float32) / 255
        return Part({"image": pixels, "label": labels}, labels, source=labels, reference=raw.array)

    def around(self, network: keras.Model) -> keras.Model:
        self.terms = network.loss_names
        return network

    def painter(self, model: keras.Model) -> Painter:
        return Painter(model, self.classes)

    def loss(self) -> keras.losses.Loss:
        return SumOfTerms()

    def training_metrics(self) -> list[keras.metrics.Metric]:
        return [Term(name, number) for number, name in enumerate(self.terms)] if len(self.terms) > 1 else []

    @classmethod
    def restored(cls, chosen: settings.Settings, images: str, weights: str) -> Painter:
        """What makes images, from what a run kept: its settings, `IMAGES_FILE`, the path of its weights."""
        known = json.loads(images)
        shape, classes = tuple(known["shape"]), tuple(known["classes"])
        recipe = hydra.utils.get_method(chosen.model.target)
        model = recipe(*kinds(shape, classes), **chosen.model.hyperparameters)
        model({"image": np.zeros((1, *shape), np.float32), "label": np.zeros(1, np.int32)})
        model.load_weights(weights)
        return Painter(model, classes)


def kinds(shape: tuple[int, ...], classes: tuple[str, ...]) -> tuple[LabelledImage, GeneratedImages]:
    """What a recipe is asked to take and to give, of images of a shape (H, W, C)."""
    height, width, channels = shape
    return LabelledImage(height, width, channels, len(classes)), GeneratedImages(height, width, channels)


class SumOfTerms(keras.losses.Loss):
    """The loss of a model that answers with the terms of its loss (batch, terms), whatever the targets."""

    def call(self, y_true: KerasTensor, y_pred: KerasTensor) -> KerasTensor:
        return ops.sum(ops.reshape(y_pred, (ops.shape(y_true)[0], -1)), axis=-1)  # Keras may have taken an axis of 1 away


class Term(keras.metrics.Mean):
    """The mean of one of these terms.

    Args:
        name: of the term.
        number: its place.
    """

    def __init__(self, name: str, number: int):
        super().__init__(name=name)
        self.number = number

    def update_state(self, y_true: KerasTensor, y_pred: KerasTensor, sample_weight: KerasTensor | None = None) -> Any:
        return super().update_state(y_pred[:, self.number], sample_weight)


def grid(images: np.ndarray, columns: int) -> np.ndarray:
    """Images (n, H, W, C) side by side, with lines of grey between them: (rows · (H + 1) − 1, columns · (W + 1) − 1, C)."""
    rows = -(-len(images) // columns)
    height, width, channels = images.shape[1:]
    page = np.full((rows * (height + 1), columns * (width + 1), channels), 96, np.uint8)
    for n, image in enumerate(images):
        top, left = n // columns * (height + 1), n % columns * (width + 1)
        page[top : top + height, left : left + width] = image
    return page[:-1, :-1]
