"""The interface of a task."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from matplotlib.figure import Figure

from recipes.specs import Ablatable
from src.datasets import Part, pipeline
from src.serving import Answer
from src.vocabulary import Encoder

Metrics = dict[str, float]


class Task(ABC):
    """How examples are encoded, what is lost by a wrong answer, how answers are judged and shown.

    A task puts its own layers around the recipe's network, so that the model takes what a user has (pixels 0..255, a
    series in its own unit) and nothing has to be known about the training data to use it.

    Attributes:
        inputs, outputs: what the recipe is asked to take and to give (`recipes.specs`).
        train, validation, test: the examples.
        units: {metric: unit} of the metrics that have one.
        encoder: turns what a user has into what the model takes, where TensorFlow cannot.
    """

    inputs: Any
    outputs: Any
    train: Part
    validation: Part
    test: Part
    units: dict[str, str]
    encoder: Encoder | None = None

    def model(self, build: Callable[..., keras.Model], hyperparameters: dict[str, Any]) -> keras.Model:
        """The trainable model: raw inputs to what `loss` compares with the targets."""
        network = build(self.inputs, self.outputs, **hyperparameters)
        return self.around(network)

    @abstractmethod
    def around(self, network: keras.Model) -> keras.Model:
        """The network with the task's encoding before it and its decoding behind it."""

    @abstractmethod
    def loss(self) -> keras.losses.Loss:
        """What training minimises."""

    @abstractmethod
    def training_metrics(self) -> list[keras.metrics.Metric]:
        """What is measured while training, on batches and on the validation part."""

    @abstractmethod
    def metrics(self, part: Part, predictions: np.ndarray) -> Metrics:
        """What is reported: one definition for the model, for the baselines, and for every later evaluation."""

    @abstractmethod
    def baselines(self) -> dict[str, Metrics]:
        """{name: metrics on the test part} of predictors that need no deep learning."""

    def predict(self, model: keras.Model, part: Part, batch_size: int) -> np.ndarray:
        """The model's answers on a part of the data, one for each example, as `metrics` takes them."""
        return model.predict(pipeline.prediction(part, batch_size), verbose=0)[: len(part)]

    def ablations(self, model: keras.Model, batch_size: int) -> dict[str, Metrics]:
        """{name: metrics on the test part} of the model with a learned part replaced by something simple.

        The replacements are those that a `recipes.specs.Ablatable` layer declares.
        """
        found = {}
        for layer in model._flatten_layers():
            for name, replacement in (layer.ablations() if isinstance(layer, Ablatable) else {}).items():
                ablated = _with_layer(model, layer, replacement)
                found[name] = self.metrics(self.test, self.predict(ablated, self.test, batch_size))
        return found

    @abstractmethod
    def served(self, model: keras.Model) -> tuple[Answer, list[Any]]:
        """What others use: a function of raw inputs to named answers, and the models, layers and tables it uses."""

    @abstractmethod
    def figures(self, model: keras.Model, predictions: np.ndarray) -> dict[str, Figure | str]:
        """{file name: figure, or HTML page} of the predictions on the test part, and of what the model looked at."""

    glanced: tuple[str, ...] = ()  # those metrics of a glance that can be monitored: less is better

    def glance(self, model: keras.Model) -> tuple[Metrics, dict[str, Figure | str]]:
        """Something to look at while a model that generates is trained: metrics on the validation part, and figures."""
        return {}, {}

    def costs(self, model: keras.Model) -> Metrics:
        """What using the model costs, where that does not follow from its parameters and multiply–accumulates."""
        return {}

    def artifacts(self) -> dict[str, str]:
        """{file name: text} of what, besides its weights and settings, a model cannot be used without."""
        return {}


def _with_layer(model: keras.Model, layer: keras.Layer, replacement: keras.Layer) -> keras.Model:
    """A copy of a functional model with the same weights and random numbers, and one layer replaced."""

    def copy(each: keras.Layer) -> keras.Layer:
        return replacement if each is layer else each.__class__.from_config(each.get_config())

    other = keras.models.clone_model(model, clone_function=copy, recursive=True)
    for mine, theirs in zip(other.variables, model.variables):
        mine.assign(keras.ops.convert_to_numpy(theirs))
    return other
