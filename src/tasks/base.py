"""The interface of a task."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Any, ClassVar

import keras
import numpy as np
from matplotlib.figure import Figure

from recipes.specs import Ablatable
from src import terminal
from src.config.schema import Settings
from src.datasets import Split, pipeline
from src.tasks.baselines.interface import Baselines
from src.tasks.serving import Serving

Metrics = dict[str, float]
Figures = dict[str, Figure | str]  # {file name: figure, or text of an HTML page}


class Task(ABC):
    """What a model learns: encoding of examples, loss, metrics, baselines, figures, and what is served.

    A task puts its own layers around the recipe's network, so that the model takes raw inputs (pixels 0..255, a series in
    its own unit) and can be used without any statistics of the training data.

    A task is complete once it is made: building or training a model does not change it.

    Attributes:
        inputs, outputs: specification of the recipe's inputs and outputs (`recipes.specs`).
        train, validation, test: the encoded splits.
        units: {metric: unit} of the metrics that have one.
        classes: class names; empty if the targets are no classes.
        measurement: what the test metrics were measured with, where their names do not say it; only equals are compared.
        baseline_settings: names of the settings that baselines and their metrics depend on; None: all.
        preview_metrics: names of the metrics of `preview` that can be monitored; lower is better.
    """

    inputs: Any
    outputs: Any
    train: Split
    validation: Split
    test: Split
    units: dict[str, str]
    classes: tuple[str, ...] = ()
    measurement: str = ""
    baseline_settings: tuple[str, ...] | None = None
    preview_metrics: tuple[str, ...] = ()

    def limit_examples(self, limit: int | None) -> None:
        """Keep the first `limit` examples of each split; None keeps all."""
        self.train, self.validation, self.test = (split.take(limit) for split in (self.train, self.validation, self.test))

    def build_model(self, build: Callable[..., keras.Model], hyperparameters: dict[str, Any]) -> keras.Model:
        """Build the trainable model, from raw inputs to the predictions that `loss` compares with the targets."""
        network = build(self.inputs, self.outputs, **hyperparameters)
        return self.wrap(network)

    @abstractmethod
    def wrap(self, network: keras.Model) -> keras.Model:
        """Put the task's preprocessing before a recipe's network, and its postprocessing behind it."""

    def model_inputs(self, model: keras.Model, split: Split, training: bool = False) -> Split:
        """The split with the inputs that `model` takes.

        Args:
            model: as `build_model` returns it, or a distiller of such a model.
            split: examples of this task.
            training: whether the model may see what is known in training only.
        """
        return split

    def finalize(self, model: keras.Model, batch_size: int) -> None:  # noqa: B027
        """Set the weights of a trained model that are chosen on the validation set instead of learned; most tasks have none."""

    @abstractmethod
    def loss(self) -> keras.losses.Loss:
        """The training loss."""

    @abstractmethod
    def training_metrics(self, model: keras.Model) -> list[keras.metrics.Metric]:
        """Keras metrics of a model, computed during training on batches and on the validation split."""

    @abstractmethod
    def metrics(self, split: Split, predictions: np.ndarray) -> Metrics:
        """Reported metrics: one definition for the model, the baselines, and every later evaluation."""

    def example_results(self, split: Split, predictions: np.ndarray) -> dict[str, np.ndarray]:
        """{column: (rows,)}: results for each example, from which `src.uncertainty` computes metrics on resamples of the split.

        Empty if no metric is a function of sums over the examples.
        """
        return {}

    @abstractmethod
    def baselines(self) -> Baselines:
        """The simple methods that a recipe should beat; `src.tasks.baselines.store` computes them."""

    def baseline_dependencies(self) -> tuple[str, ...]:
        """What baselines depend on besides data, settings and code: a tokenizer or a classifier of another run."""
        return ()

    def predict(self, model: keras.Model, split: Split, batch_size: int) -> np.ndarray:
        """Predictions of the model on a split, one for each example, as `metrics` takes them."""
        batches = pipeline.prediction(self.model_inputs(model, split), batch_size)
        count = -(-len(split) // batch_size)
        shown = keras.callbacks.LambdaCallback(on_predict_batch_end=lambda batch, logs: terminal.update(batch + 1, count))
        return model.predict(batches, verbose=0, callbacks=[shown])[: len(split)]

    def ablations(self, model: keras.Model, batch_size: int) -> dict[str, Metrics]:
        """{name: metrics on the test set} of the model with a learned component replaced by a trivial one.

        The replacements are those that a `recipes.specs.Ablatable` layer declares.
        """
        results = {}
        for layer in nested_layers(model):
            for name, replacement in (layer.ablations() if isinstance(layer, Ablatable) else {}).items():
                ablated = _with_layer(model, layer, replacement)
                results[name] = self.metrics(self.test, self.predict(ablated, self.test, batch_size))
        return results

    @abstractmethod
    def serving(self, model: keras.Model) -> Serving:
        """What is served of a trained model."""

    @abstractmethod
    def figures(
        self, model: keras.Model, predictions: np.ndarray, baselines: Mapping[str, np.ndarray] = MappingProxyType({})
    ) -> Figures:
        """Figures of the predictions on the test set, and of attention weights.

        Args:
            model: trained.
            predictions: of the model for the test set.
            baselines: {name: predictions for the test set}.
        """

    def preview(self, model: keras.Model) -> tuple[Metrics, Callable[[], Figures]]:
        """Samples of a generative model during training: their metrics against the validation split, and what draws them."""
        return {}, dict

    def inference_costs(self, model: keras.Model) -> Metrics:
        """Costs of inference beyond parameters and multiply–accumulates."""
        return {}

    def artifacts(self) -> dict[str, str]:
        """{file name: text} of what is needed to use the model, besides its weights and settings."""
        return {}


class Generative(ABC):
    """A task whose trained models generate new examples, as `src.generate` asks them to.

    Attributes:
        ARTIFACT: name of the text file in a run that `from_run` needs besides settings and weights.
    """

    ARTIFACT: ClassVar[str]

    @classmethod
    @abstractmethod
    def from_run(cls, settings: Settings, artifact: str, load_weights: Callable[[keras.Model], None]) -> Any:
        """Restore the generator of a run.

        Args:
            settings: of the run.
            artifact: content of the file `ARTIFACT`.
            load_weights: function that loads the weights of that run into the model.
        """


def _with_layer(model: keras.Model, layer: keras.Layer, replacement: keras.Layer) -> keras.Model:
    """A copy of a functional model with the same weights and random state, and one layer replaced."""

    def copy(each: keras.Layer) -> keras.Layer:
        return replacement if each is layer else each.__class__.from_config(each.get_config())

    uncompiled = keras.Model(model.input, model.output, name=model.name)  # Keras would also copy the optimizer, and cannot
    other = keras.models.clone_model(uncompiled, clone_function=copy, recursive=True)
    for mine, theirs in zip(other.variables, uncompiled.variables):
        mine.assign(keras.ops.convert_to_numpy(theirs))
    return other


def nested_layers(model: keras.Model) -> Iterator[keras.layers.Layer]:
    """The layers of a model and of the models within it."""
    for layer in model.layers:
        yield layer
        if isinstance(layer, keras.Model):
            yield from nested_layers(layer)
