"""The project's own data sets hold what the packages they are made from hold."""

import math

import numpy as np
import pytest
import sklearn
import statsmodels
import statsmodels.api as sm
import tensorflow_datasets as tfds
from sklearn.datasets import load_digits


@pytest.fixture
def examples(load):
    def read(name):
        load(name)  # prepares it
        return list(tfds.as_numpy(tfds.load(name, split="train")))

    return read


def test_digits_holds_every_image_of_scikit_learn(examples):
    made = sorted((example["image"].tobytes(), int(example["label"])) for example in examples("digits"))
    raw = load_digits()
    wanted = [(np.rint(i * 255 / 16).astype(np.uint8).tobytes(), int(label)) for i, label in zip(raw.images, raw.target)]
    assert made == sorted(wanted)
    assert tfds.builder("digits").info.metadata["scikit-learn"] == sklearn.__version__


def test_series_hold_every_value_in_order(examples):
    co2 = sm.datasets.co2.load_pandas().data["co2"]
    np.testing.assert_array_equal([example["value"] for example in examples("co2")], co2.to_numpy(np.float32))
    assert [example["time"].decode() for example in examples("co2")] == [f"{day:%Y-%m-%d}" for day in co2.index]
    assert sum(math.isnan(value) for value in co2) == 59  # gaps stay gaps
    sunspots = sm.datasets.sunspots.load_pandas().data["SUNACTIVITY"]
    np.testing.assert_array_equal([example["value"] for example in examples("sunspots")], sunspots.to_numpy(np.float32))
    assert tfds.builder("co2").info.metadata["statsmodels"] == statsmodels.__version__
