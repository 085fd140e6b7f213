"""Fixtures of the tests of data sets."""

import pytest
import tensorflow_datasets as tfds

from src import datasets
from src.tasks import factory

MODELS = {"pairs": "transformer", "corpus": "gpt", "texts": "lstm", "series": "lstm"}  # of other kinds of files: cnn


@pytest.fixture
def make(settings, tmp_path):
    """make(line, features, train=…): the settings of a data set that was prepared in a folder of its own.

    Splits are {feature: values}. What builders do unless told otherwise, to shuffle examples, is off where `ordered` is true.
    """

    def prepared(line, features, *overrides, ordered=True, **splits):
        examples = {
            name: list(enumerate(dict(zip(columns, values)) for values in zip(*columns.values())))
            for name, columns in splits.items()
        }
        tfds.dataset_builders.store_as_tfds_dataset(
            "made", version="1.0.0", features=tfds.features.FeaturesDict(features), split_datasets=examples, data_dir=tmp_path,
            disable_shuffling=ordered,
        )  # fmt: skip
        composed = settings(*line, "dataset.name=made", "dataset.builder=made", *overrides)
        dataset = composed.dataset.model_copy(update={"data_dir": str(tmp_path)})
        return composed.model_copy(update={"dataset": dataset})

    yield prepared
    datasets.load.cache_clear()


@pytest.fixture
def read(settings, tmp_path):
    """read("texts", path, …): the data set of a path, prepared in a folder of its own."""

    def load(kind, path, *overrides, task=False):
        composed = settings(f"model={MODELS.get(kind, 'cnn')}", f"dataset={kind}", f"dataset.path={path}", *overrides)
        dataset = composed.dataset.model_copy(update={"data_dir": str(tmp_path / "prepared")})
        data = datasets.load(dataset)
        return factory.create(composed.task, data) if task else data

    yield load
    datasets.load.cache_clear()
