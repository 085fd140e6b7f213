"""The reasons for patches of TensorFlow Datasets: where one of these tests fails, the patch may be removed."""

import dataclasses
import importlib.metadata

import numpy as np
import pytest
import requests
import tensorflow_datasets as tfds
from packaging.requirements import Requirement
from tensorflow_datasets.core.download import downloader
from tensorflow_datasets.core.utils import gcs_utils

from src.datasets import tfds_patches


def timeout_and_retries(monkeypatch):
    """Those of a download, which is started and fails."""
    used = []

    def get(session, url, **options):
        used.append((options.get("timeout"), session.get_adapter(url).max_retries.total))
        raise requests.ConnectionError

    with monkeypatch.context() as patch:
        patch.setattr(requests.Session, "get", get)
        download = downloader._open_url("https://example.org/archive.zip")
        with pytest.raises(requests.ConnectionError):
            download.__enter__()
    return used.pop()


def test_downloads_fail_late_without_the_patch(monkeypatch):
    assert timeout_and_retries(monkeypatch) == (None, 10)
    with tfds_patches.fail_fast_downloads():
        assert timeout_and_retries(monkeypatch) == ((4, 60), 1)
    assert timeout_and_retries(monkeypatch) == (None, 10)


def test_no_option_of_downloads_is_a_timeout_or_a_number_of_retries():
    options = [field.name for field in dataclasses.fields(tfds.download.DownloadConfig)]
    assert not [name for name in options if "timeout" in name or "retr" in name]


def test_no_data_set_is_looked_up_in_googles_storage():
    """That is the default; it would make a start without a network wait."""
    assert not gcs_utils.is_dataset_on_gcs("mnist/3.0.1")
    assert not gcs_utils.gcs_dataset_info_files("mnist/3.0.1")


@pytest.mark.parametrize(("encoding", "kept"), [("none", False), ("bytes", True)])
def test_double_precision_is_lost_unless_stored_as_bytes(encoding, kept):
    features = tfds.features.FeaturesDict({"x": tfds.features.Tensor(shape=(), dtype=np.float64, encoding=encoding)})
    stored = features.serialize_example({"x": 0.1})
    assert (float(features.deserialize_example(stored)["x"]) == 0.1) == kept


def test_a_package_that_it_imports_is_not_declared():
    """The reason for a line of requirements.txt."""
    declared = map(Requirement, importlib.metadata.requires("tensorflow-datasets"))
    needed = [one for one in declared if one.name == "importlib_resources" and (one.marker is None or one.marker.evaluate())]
    assert not needed


def test_float64_is_stored_in_half_its_precision_without_the_patch():
    encoding = tfds.features.Tensor(shape=(), dtype=np.float64).get_serialized_info()
    assert encoding.np_dtype == np.float64
    example = tfds.features.FeaturesDict({"value": tfds.features.Scalar(np.float64)})
    stored = example.serialize_example({"value": 1e9 + 0.1})
    assert example.deserialize_example_np(stored)["value"] != 1e9 + 0.1
