"""From the settings of a data set to its three parts in memory, prepared by TensorFlow Datasets on first use."""

import contextlib
import difflib
import functools
import hashlib
import logging
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import filelock
import numpy as np
import psutil
import tensorflow_datasets as tfds
from keras import tree
from tensorflow_datasets.core.download import downloader
from tensorflow_datasets.core.utils import gcs_utils

from src.config import schema
from src.datasets import builders
from src.errors import UserError

log = logging.getLogger(__name__)


def _builders(module: ModuleType) -> list[type[tfds.core.GeneratorBasedBuilder]]:
    base = tfds.core.GeneratorBasedBuilder
    return [found for found in vars(module).values() if isinstance(found, type) and issubclass(found, base)]


NO_NETWORK = sorted(builder.name for module in builders.MODULES if not hasattr(module, "URL") for builder in _builders(module))
CONNECT_TIMEOUT, READ_TIMEOUT, RETRIES = 4, 60, 1  # seconds, seconds, times: an answer within 15 s where there is no network


Arrays = np.ndarray | dict[str, np.ndarray]  # of equal length; a model with several inputs has names for them


@dataclass(frozen=True)
class Part:
    """Some examples of a data set: a row of `inputs` goes in, the same row of `targets` is to be predicted."""

    inputs: Arrays  # (examples, …)
    targets: np.ndarray  # (examples, …)
    source: np.ndarray | None = None  # what the inputs were encoded from, as a user has it
    reference: np.ndarray | None = None  # what the targets were encoded from

    def __len__(self) -> int:
        return len(self.targets)

    @property
    def array(self) -> np.ndarray:
        """The inputs, where they are those of a model with one input."""
        if isinstance(self.inputs, dict):
            raise TypeError(f"These inputs are several: {', '.join(self.inputs)}.")
        return self.inputs

    @property
    def raw(self) -> np.ndarray:
        """The inputs as a user has them."""
        return self.array if self.source is None else self.source

    @property
    def raw_targets(self) -> np.ndarray:
        """The targets as a user has them."""
        return self.targets if self.reference is None else self.reference

    def first(self, limit: int | None) -> "Part":
        """The first `limit` examples; all of them if that is None."""
        fields = (self.inputs, self.targets, self.source, self.reference)
        return Part(*tree.map_structure(lambda array: array if array is None else array[:limit], fields))

    @functools.cached_property
    def digest(self) -> str:
        """A fingerprint of every value, and of their order: 32 hexadecimal digits."""
        fingerprint = hashlib.blake2b(digest_size=16)
        for array in (self.array, self.targets):
            fingerprint.update(str((array.shape, array.dtype)).encode())
            if array.dtype == object:  # texts
                for text in array:
                    fingerprint.update(len(text).to_bytes(8, "little") + text)
            else:
                fingerprint.update(np.ascontiguousarray(array).data)
        return fingerprint.hexdigest()


@dataclass(frozen=True)
class Data:
    """A data set in memory."""

    name: str
    source: str  # TFDS name, config and version, e.g. mnist:3.0.1
    description: str
    train: Part
    validation: Part
    test: Part
    classes: tuple[str, ...]  # names of the classes; empty where targets are no classes


@functools.lru_cache(maxsize=1)  # the jobs of a sweep mostly share a data set
def load(chosen: schema.Dataset) -> Data:
    """Reads a data set, after preparing it if that was not done before.

    Raises:
        UserError: there is no such builder, split or feature; it cannot be downloaded; or it does not fit into memory.
    """
    builder = _prepared(_builder(chosen), chosen)
    features = builder.info.features
    for key in (chosen.inputs, chosen.targets):
        if key not in features:
            raise UserError(f"{chosen.builder} has no feature '{key}'; it has: {', '.join(features)}.")
    parts = {name: _read(builder, chosen, split) for name, split in chosen.splits.model_dump().items()}
    target = features[chosen.targets]
    return Data(
        name=chosen.name,
        source=f"{builder.info.full_name.replace('/', ':')}",
        description=builder.info.description.strip(),
        classes=tuple(target.names) if isinstance(target, tfds.features.ClassLabel) else (),
        **parts,
    )


def prepare(chosen: schema.Dataset) -> None:
    """Makes it ready to be read, if that was not done before.

    Raises:
        UserError: there is no such builder, or it cannot be downloaded.
    """
    _prepared(_builder(chosen), chosen)


def _builder(chosen: schema.Dataset) -> tfds.core.DatasetBuilder:
    # Without this TFDS asks Google's storage about every data set, and waits where there is no network.
    gcs_utils._is_gcs_disabled = True
    try:
        return tfds.builder(chosen.builder, config=chosen.config, data_dir=chosen.data_dir)
    except tfds.core.DatasetNotFoundError:
        near = difflib.get_close_matches(chosen.builder, tfds.list_builders(), n=2)
        hint = f"did you mean {' or '.join(near)}? " if near else ""
        raise UserError(
            f"TensorFlow Datasets has no builder '{chosen.builder}'; {hint}"
            "See https://www.tensorflow.org/datasets/catalog/overview."
        ) from None
    except ValueError as error:  # an unknown config
        raise UserError(f"dataset.config={chosen.config}: {str(error).splitlines()[0]}") from None


def _prepared(builder: tfds.core.DatasetBuilder, chosen: schema.Dataset) -> tfds.core.DatasetBuilder:
    """Prepares the data, once: TFDS writes to a folder of another name and renames it when all is there.

    Returns:
        A builder that knows the splits: where another process has prepared them since this one was made, a new one.
    """
    if builder.data_path.exists():
        return builder if builder.info.splits else _builder(chosen)
    own = builder.name in NO_NETWORK
    root = Path(os.fspath(builder.data_dir_root)) if hasattr(builder, "data_dir_root") else Path(builder._data_dir_root)
    root.mkdir(parents=True, exist_ok=True)
    with filelock.FileLock(root / f".{builder.name}.lock"):  # two first runs at once prepare it once
        if builder.data_path.exists():
            return _builder(chosen)
        log.info("Preparing %s in %s (first use only).", builder.info.full_name, root)
        progress = not own and sys.stderr.isatty()
        (tfds.enable_progress_bar if progress else tfds.disable_progress_bar)()
        try:
            with _impatient_downloads(), open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
                builder.download_and_prepare()
        except Exception as error:
            if own:
                raise
            raise UserError(
                f"dataset={chosen.name} could not be prepared: {_reason(error)}; "
                f"data sets that need no network: {', '.join(NO_NETWORK)}."
            ) from error
    return builder


@contextlib.contextmanager
def _impatient_downloads() -> Iterator[None]:
    """Makes TFDS give up soon: by itself it tries ten times, for over 200 s, and waits for a connection without a limit."""
    patient = downloader._open_url, downloader.MAX_RETRIES
    downloader._open_url = functools.partial(patient[0], timeout=(CONNECT_TIMEOUT, READ_TIMEOUT))
    downloader.MAX_RETRIES = RETRIES
    try:
        yield
    finally:
        downloader._open_url, downloader.MAX_RETRIES = patient


def _reason(error: Exception) -> str:
    text = str(error)
    if "Max retries exceeded" in text or "Connection" in type(error).__name__ or "Timeout" in type(error).__name__:
        return "its archive cannot be downloaded (no connection)"
    return " ".join(text.split())[:300] or type(error).__name__


def _read(builder: tfds.core.DatasetBuilder, chosen: schema.Dataset, split: str) -> Part:
    decoding = tfds.decode.PartialDecoding(dict.fromkeys({chosen.inputs, chosen.targets}, True))
    try:
        count = builder.info.splits[split].num_examples
    except (KeyError, ValueError) as error:
        known = ", ".join(builder.info.splits)
        raise UserError(f"dataset.splits: '{split}' cannot be had from {chosen.builder} ({error}); it has: {known}.") from None
    if count == 0:
        raise UserError(f"The slice '{split}' of {chosen.builder} is empty; type a larger one.")
    feature = builder.info.features[chosen.inputs]
    if None in feature.shape:
        raise UserError(
            f"dataset={chosen.name}: '{chosen.inputs}' has no fixed shape ({feature.shape}), which is not supported."
        )
    if feature.np_dtype is np.object_ or feature.np_dtype is np.str_:  # texts: about what they take on disk
        needed = count * builder.info.dataset_size // sum(part.num_examples for part in builder.info.splits.values())
    else:
        needed = count * int(np.prod(feature.shape, dtype=np.int64)) * np.dtype(feature.np_dtype).itemsize
    if needed > psutil.virtual_memory().available / 2:  # once as it is read, once as it is used
        raise UserError(
            f"dataset={chosen.name} needs {needed / 2**30:.1f} GiB for '{split}' in memory; type a smaller slice, "
            f"""like 'dataset.splits.train="train[:10%]"'."""
        )
    batch = builder.as_dataset(
        split=split,
        batch_size=-1,
        decoders=decoding,
        read_config=tfds.ReadConfig(interleave_cycle_length=1),  # in the order of the files
    )
    arrays = tfds.as_numpy(batch)
    return Part(inputs=arrays[chosen.inputs], targets=arrays[chosen.targets])
