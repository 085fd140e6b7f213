"""All patches of TensorFlow Datasets, each with its reason.

Tests hold the reasons against the installed version: tests/src/datasets/test_tfds_patches.py.
"""

import contextlib
import functools
from collections.abc import Iterator

import numpy as np
import tensorflow_datasets as tfds
from tensorflow_datasets.core.download import downloader

CONNECT_TIMEOUT, READ_TIMEOUT, MAX_RETRIES = 4, 60, 1  # seconds, seconds, times: without a network, an error within 15 s


@contextlib.contextmanager
def fail_fast_downloads() -> Iterator[None]:
    """Make downloads fail soon: by default there are ten retries over 200 s, without a timeout, and no option changes that."""
    defaults = downloader._open_url, downloader.MAX_RETRIES
    downloader._open_url = functools.partial(defaults[0], timeout=(CONNECT_TIMEOUT, READ_TIMEOUT))
    downloader.MAX_RETRIES = MAX_RETRIES
    try:
        yield
    finally:
        downloader._open_url, downloader.MAX_RETRIES = defaults


def keep_double_precision(builder: tfds.core.DatasetBuilder) -> None:
    """Let a builder store float64 as bytes, since TFDS stores it as float32 by default; what is prepared is read as it was.

    An encoding is an option of a feature when its builder is written; that of a builder of the catalogue cannot be set.
    """
    features = builder.info.features
    if not isinstance(features, tfds.features.FeaturesDict):
        return
    prepared = builder.data_path.exists()
    stored = tfds.features.FeatureConnector.from_config(builder.data_path) if prepared else features
    for name, feature in features.items():
        if type(feature) in (tfds.features.Tensor, tfds.features.Scalar) and feature.np_dtype == np.float64:
            in_bytes = tfds.features.Tensor(shape=feature.shape, dtype=np.float64, encoding=tfds.features.Encoding.BYTES)
            features._feature_dict[name] = stored[name] if prepared else in_bytes
