"""The data of an experiment, and what a peer needs to know of it: this imports TensorFlow and Keras in functions alone."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from src.config.schema import Dataset, Settings
from src.errors import UserError

if TYPE_CHECKING:
    from src.datasets import Data
    from src.tasks.base import Task

EXAMPLES = 8192  # that peers are given, and that random data has
EVALUATED = 128  # examples of the other splits of random data
IMAGES = {"mnist": (28, 28, 1), "cifar10": (32, 32, 3)}  # height, width, channels
WORDS = {"imdb_reviews": 230, "sst2": 10, "multi30k": 12}  # mean number in a text
DIFFERENT_WORDS = 50_000
CHARACTERS = {"tiny_shakespeare": 1_000_000}  # of the only text
LETTERS = np.frombuffer(b"\n !$&',-.3:;?ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz", "S1")  # Tiny Shakespeare's 65


@dataclass(frozen=True)
class Problem:
    """An experiment as a peer sees it, whose process has neither TensorFlow nor Keras.

    Attributes:
        inputs, outputs: specification of the network (`recipes.specs`).
        examples: inputs (examples, …), one array or several by name, and targets (examples, …).
        source: of the examples.
    """

    inputs: Any
    outputs: Any
    examples: tuple[Mapping[str, np.ndarray] | np.ndarray, np.ndarray]
    source: str


def create_task(settings: Settings, examples: int = EXAMPLES) -> tuple["Task", str]:
    """The task of an experiment on prepared data, or else on random data, and what it is.

    Args:
        settings: of the experiment.
        examples: of random data.

    Raises:
        UserError: the data is not prepared, and its shapes are not known here.
    """
    import tensorflow_datasets as tfds

    from src import datasets
    from src.tasks import factory

    dataset = settings.dataset
    if tfds.builder(dataset.builder, config=dataset.config, data_dir=dataset.data_dir).is_prepared():
        data = datasets.load(dataset)
        source = data.source
    else:
        data = random_data(dataset, examples)
        source = f"random data of the shapes of {dataset.name}"
    return factory.create(settings.task, data, dataset.limit), source


def problem_of(task: "Task", inputs: Any, source: str, seed: int = 0) -> Problem:
    """What peers need to know of a task.

    Args:
        task: of the experiment.
        inputs: of the training set, as the model takes them.
        source: of the data.
        seed: of the choice of examples.
    """
    from keras import tree

    rows = np.random.default_rng(seed).permutation(len(task.train))[:EXAMPLES]
    return Problem(
        task.inputs, task.outputs, tree.map_structure(lambda array: array[rows], (inputs, task.train.targets)), source
    )


def random_data(dataset: Dataset, examples: int) -> "Data":
    """Random data of the shapes of a data set.

    Raises:
        UserError: its shapes are not known here.
    """
    from src.datasets import Data, Split

    draw = np.random.default_rng(0)
    classes = ("0", "1")

    def texts(count: int) -> np.ndarray:
        return _objects(_texts(draw, count, WORDS[dataset.name]))

    def split(count: int) -> Split:
        if dataset.name in IMAGES:
            return Split(draw.integers(0, 256, (count, *IMAGES[dataset.name]), np.uint8), draw.integers(0, 10, count))
        if dataset.name in CHARACTERS:
            length = CHARACTERS[dataset.name] * count // EXAMPLES
            text = _objects([draw.choice(LETTERS, length).tobytes()])
            return Split(text, text)
        if dataset.name not in WORDS:
            raise UserError(f"dataset={dataset.name} is not prepared; type python -m src.run experiment=… once")
        return Split(texts(count), texts(count) if dataset.targets == "en" else draw.integers(0, 2, count))

    if dataset.name in IMAGES:
        classes = tuple("0123456789")
    elif dataset.name in CHARACTERS or dataset.targets == "en":
        classes = ()
    splits = {"train": split(examples), "validation": split(EVALUATED), "test": split(EVALUATED)}
    return Data(dataset.name, "random", "", **splits, classes=classes)


def _objects(texts: list[bytes]) -> np.ndarray:
    array = np.empty(len(texts), dtype=object)
    array[:] = texts
    return array


def _texts(draw: np.random.Generator, count: int, mean: int) -> list[bytes]:
    """Texts of numbers for words, the n-th of which is as frequent as 1/n (Zipf's law)."""
    frequencies = 1 / np.arange(1, DIFFERENT_WORDS + 1)
    lengths = draw.integers(1, 2 * mean, count)
    words = draw.choice(DIFFERENT_WORDS, lengths.sum(), p=frequencies / frequencies.sum())
    return [b" ".join(b"%d" % word for word in text) for text in np.split(words, np.cumsum(lengths)[:-1])]


def batches(problem: Problem, size: int, seed: int) -> Iterator[np.ndarray]:
    """Endless batches of row numbers of its examples, each epoch in another order."""
    draw, count = np.random.default_rng(seed), len(problem.examples[1])
    while True:
        order = draw.permutation(max(count, size)) % count
        yield from order[: len(order) // size * size].reshape(-1, size)
