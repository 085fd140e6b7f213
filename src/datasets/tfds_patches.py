"""All patches of TensorFlow Datasets, each with its reason.

Tests hold the reasons against the installed version: tests/src/datasets/test_tfds_patches.py.
"""

import contextlib
import functools
from collections.abc import Iterator

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
