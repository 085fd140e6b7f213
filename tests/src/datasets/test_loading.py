"""Loading of data sets through TensorFlow Datasets."""

import os
import signal
import subprocess
import sys

import numpy as np
import pytest

from src import datasets
from src.datasets import loading, preparation
from src.errors import UserError
from tests.commands import environment


def test_splits_are_disjoint_and_complete(load):
    data = load("digits")
    assert (len(data.train), len(data.validation), len(data.test)) == (1258, 180, 359)
    assert data.classes == tuple("0123456789")
    assert data.source == "digits:1.0.0"
    assert (data.train.inputs.dtype, data.train.inputs.shape[1:]) == (np.uint8, (8, 8, 1))


def test_digest_depends_on_the_data(load, settings):
    digits = load("digits")
    reloaded = datasets.load.__wrapped__(settings("dataset=digits").dataset)
    other = datasets.load(settings("dataset=digits", 'dataset.splits.train="train[:69%]"').dataset)
    assert digits.train.digest == reloaded.train.digest
    assert digits.train.digest != other.train.digest
    swapped = digits.test.inputs.copy()
    swapped[[0, 1]] = swapped[[1, 0]]
    assert datasets.Split(swapped, digits.test.targets).digest != digits.test.digest


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("dataset.builder=digitz", "no builder 'digitz'; did you mean digits?"),
        ("dataset.config=large", "dataset.config=large: "),
        ("dataset.inputs=picture", "digits has no feature 'picture'; it has: image, label."),
        ("dataset.splits.test=exam", "digits has no 'exam'"),
        ('dataset.splits.test="train[:half]"', "digits has no 'train\\[:half\\]'"),
        ('dataset.splits.test="train[:0]"', "The slice 'train\\[:0\\]' of digits is empty"),
    ],
)
def test_errors_are_reported_in_one_sentence(settings, override, message):
    with pytest.raises(UserError, match=message):
        datasets.load(settings("dataset=digits", override).dataset)


def test_missing_network_is_reported_soon_with_offline_data_sets(command):
    # The proxy is a port of this machine on which nothing listens: no connection is made, whatever the network.
    proxies = dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"), "http://127.0.0.1:9")
    done = command("dataset=fashion_mnist", **proxies, NO_PROXY="", no_proxy="", timeout=60)
    assert done.returncode == 2
    assert "dataset=fashion_mnist could not be prepared: its archive cannot be downloaded" in done.stderr
    assert "need no network: co2, dates, digits, docstrings, dtmf, sunspots" in done.stderr
    assert "Traceback" not in done.stderr


PREPARE = """
from src import terminal
terminal.load_tensorflow()
import sys, time
from src import datasets
from src.config import schema
from src.datasets.builders import digits
make = digits.Digits._generate_examples
def slowly(self):
    for index, example in enumerate(make(self)):
        if index == 100:
            print("half way", file=sys.__stdout__, flush=True)
            time.sleep(60)
        yield example
if sys.argv[2] == "slowly":
    digits.Digits._generate_examples = slowly
split = schema.Splits(train="train[:70%]", validation="train[70%:80%]", test="train[80%:]")
settings = schema.Dataset(name="digits", builder="digits", config=None, splits=split, inputs="image", targets="label",
                          epochs=1, limit=None, data_dir=sys.argv[1])
print(len(datasets.load(settings).train), flush=True)
"""


def test_killed_preparation_is_repeated(tmp_path):
    def start(speed):
        program = [sys.executable, "-c", PREPARE, str(tmp_path), speed]
        return subprocess.Popen(program, cwd=tmp_path, env=environment(), stdout=subprocess.PIPE, text=True)

    first = start("slowly")
    assert first.stdout.readline() == "half way\n"
    os.kill(first.pid, signal.SIGKILL)
    first.wait()
    second = start("at once")
    assert second.communicate(timeout=120)[0] == "1258\n"


def test_data_prepared_by_another_process_is_read(settings, tmp_path, monkeypatch):
    run_settings = settings("dataset=digits").dataset.model_copy(update={"data_dir": str(tmp_path)})
    early, make_builder = preparation._builder(run_settings), preparation._builder  # made before the data is prepared
    datasets.prepare(run_settings)
    builders = iter([early])
    monkeypatch.setattr(preparation, "_builder", lambda settings: next(builders, None) or make_builder(settings))
    loading.load.cache_clear()
    assert len(datasets.load(run_settings).train) == 1258


def test_real_mnist_is_read_through_the_catalogue(settings, catalogue_data):
    data = datasets.load(settings("dataset=mnist").dataset.model_copy(update={"data_dir": catalogue_data}))
    assert (len(data.train), len(data.validation), len(data.test)) == (54_000, 6_000, 10_000)
    assert np.bincount(data.test.targets).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]  # as published
