"""Loading of data sets: three splits in memory, prepared by TensorFlow Datasets on first use."""

import contextlib
import difflib
import functools
import hashlib
import logging
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import filelock
import numpy as np
import psutil
import tensorflow_datasets as tfds
from keras import tree

from src.config import schema
from src.datasets import builders, tfds_patches
from src.errors import UserError

log = logging.getLogger(__name__)


def _builders(module: ModuleType) -> list[type[tfds.core.GeneratorBasedBuilder]]:
    """The TFDS builders of a module."""
    base = tfds.core.GeneratorBasedBuilder
    return [value for value in vars(module).values() if isinstance(value, type) and issubclass(value, base)]


OFFLINE = sorted(builder.name for module in builders.MODULES if not hasattr(module, "URL") for builder in _builders(module))

Arrays = np.ndarray | dict[str, np.ndarray]  # of equal length; several inputs have names


@dataclass(frozen=True)
class Split:
    """Examples of a data set: the same rows of `inputs` and `targets`.

    Attributes:
        inputs: (examples, …), one array or several by name.
        targets: (examples, …).
        source: raw inputs that `inputs` were encoded from; None: they are raw.
        reference: raw targets that `targets` were encoded from; None: they are raw.
    """

    inputs: Arrays
    targets: np.ndarray
    source: np.ndarray | None = None
    reference: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.targets)

    @property
    def array(self) -> np.ndarray:
        """The inputs, if they are a single array."""
        if isinstance(self.inputs, dict):
            raise TypeError(f"These inputs are several: {', '.join(self.inputs)}.")
        return self.inputs

    @property
    def raw(self) -> np.ndarray:
        """The inputs before encoding."""
        return self.array if self.source is None else self.source

    @property
    def raw_targets(self) -> np.ndarray:
        """The targets before encoding."""
        return self.targets if self.reference is None else self.reference

    def take(self, limit: int | None) -> "Split":
        """The first `limit` examples; None: all."""
        fields = (self.inputs, self.targets, self.source, self.reference)
        return Split(*tree.map_structure(lambda array: array if array is None else array[:limit], fields))

    @functools.cached_property
    def digest(self) -> str:
        """A hash of all values in order: 32 hexadecimal digits."""
        digest = hashlib.blake2b(digest_size=16)
        for array in (self.array, self.targets):
            digest.update(str((array.shape, array.dtype)).encode())
            if array.dtype == object:  # texts
                for text in array:
                    digest.update(len(text).to_bytes(8, "little") + text)
            else:
                digest.update(np.ascontiguousarray(array).data)
        return digest.hexdigest()


@dataclass(frozen=True)
class Data:
    """A data set in memory.

    Attributes:
        name: of the data set in conf/dataset.
        source: TFDS name, config and version, e.g. mnist:3.0.1.
        description: of the builder.
        train, validation, test: the splits, raw.
        classes: class names; empty if targets are no classes.
    """

    name: str
    source: str
    description: str
    train: Split
    validation: Split
    test: Split
    classes: tuple[str, ...]


@functools.lru_cache(maxsize=1)  # the jobs of a sweep mostly share a data set
def load(settings: schema.Dataset) -> Data:
    """Load a data set into memory; prepare it first if necessary.

    Raises:
        UserError: there is no such builder, split or feature; the download failed; or memory does not suffice.
    """
    builder = _prepared(_builder(settings), settings)
    features = builder.info.features
    for key in (settings.inputs, settings.targets):
        if key not in features:
            raise UserError(f"{settings.builder} has no feature '{key}'; it has: {', '.join(features)}.")
    splits = {name: _read(builder, settings, expression) for name, expression in settings.splits.model_dump().items()}
    target = features[settings.targets]
    return Data(
        name=settings.name,
        source=f"{builder.info.full_name.replace('/', ':')}",
        description=builder.info.description.strip(),
        classes=tuple(target.names) if isinstance(target, tfds.features.ClassLabel) else (),
        **splits,
    )


def prepare(settings: schema.Dataset) -> None:
    """Prepare a data set, if that has not been done yet.

    Raises:
        UserError: there is no such builder, or the download failed.
    """
    _prepared(_builder(settings), settings)


def _builder(settings: schema.Dataset) -> tfds.core.DatasetBuilder:
    try:
        return tfds.builder(settings.builder, config=settings.config, data_dir=settings.data_dir)
    except tfds.core.DatasetNotFoundError:
        matches = difflib.get_close_matches(settings.builder, tfds.list_builders(), n=2)
        hint = f"did you mean {' or '.join(matches)}? " if matches else ""
        raise UserError(
            f"TensorFlow Datasets has no builder '{settings.builder}'; {hint}"
            "See https://www.tensorflow.org/datasets/catalog/overview."
        ) from None
    except ValueError as error:  # an unknown config
        raise UserError(f"dataset.config={settings.config}: {str(error).splitlines()[0]}") from None


def _prepared(builder: tfds.core.DatasetBuilder, settings: schema.Dataset) -> tfds.core.DatasetBuilder:
    """Prepare the data once; TFDS writes to a temporary folder and renames it when it is complete.

    Returns:
        A builder that has the splits: a new one if another process has prepared them since this one was made.
    """
    if builder.data_path.exists():
        return builder if builder.info.splits else _builder(settings)
    offline = builder.name in OFFLINE
    root = Path(os.fspath(builder.data_dir_root))
    root.mkdir(parents=True, exist_ok=True)
    with filelock.FileLock(root / f".{builder.name}.lock"):  # parallel first runs prepare it once
        if builder.data_path.exists():
            return _builder(settings)
        log.info("Preparing %s in %s (first use only).", builder.info.full_name, root)
        progress = not offline and sys.stderr.isatty()
        (tfds.enable_progress_bar if progress else tfds.disable_progress_bar)()
        try:
            with tfds_patches.fail_fast_downloads(), open(os.devnull, "w") as devnull, contextlib.redirect_stdout(devnull):
                builder.download_and_prepare()
        except Exception as error:
            if offline:
                raise
            raise UserError(
                f"dataset={settings.name} could not be prepared: {_reason(error)}; "
                f"data sets that need no network: {', '.join(OFFLINE)}."
            ) from error
    return builder


def _reason(error: Exception) -> str:
    """What a user should know of an error of TFDS."""
    text = str(error)
    if "Max retries exceeded" in text or "Connection" in type(error).__name__ or "Timeout" in type(error).__name__:
        return "its archive cannot be downloaded (no connection)"
    return " ".join(text.split())[:300] or type(error).__name__


def _read(builder: tfds.core.DatasetBuilder, settings: schema.Dataset, split: str) -> Split:
    """Read a split, given as a TFDS expression like "train[:90%]", into memory."""
    decoders = tfds.decode.PartialDecoding(dict.fromkeys({settings.inputs, settings.targets}, True))
    try:
        count = builder.info.splits[split].num_examples
    except (KeyError, ValueError) as error:
        available = ", ".join(builder.info.splits)
        raise UserError(f"dataset.splits: {settings.builder} has no '{split}' ({error}); it has: {available}.") from None
    if count == 0:
        raise UserError(f"The slice '{split}' of {settings.builder} is empty; type a larger one.")
    feature = builder.info.features[settings.inputs]
    if None in feature.shape:
        raise UserError(
            f"dataset={settings.name}: '{settings.inputs}' has no fixed shape ({feature.shape}), which is not supported."
        )
    if feature.np_dtype is np.object_ or feature.np_dtype is np.str_:  # texts: about their size on disk
        required = count * builder.info.dataset_size // sum(info.num_examples for info in builder.info.splits.values())
    else:
        required = count * int(np.prod(feature.shape, dtype=np.int64)) * np.dtype(feature.np_dtype).itemsize
    if required > psutil.virtual_memory().available / 2:  # half, since decoding and encoding each hold a copy
        raise UserError(
            f"dataset={settings.name} needs {required / 2**30:.1f} GiB for '{split}' in memory; type a smaller slice, "
            f"""like 'dataset.splits.train="train[:10%]"'."""
        )
    batch = builder.as_dataset(
        split=split,
        batch_size=-1,
        decoders=decoders,
        read_config=tfds.ReadConfig(interleave_cycle_length=1),  # in the order of the files
    )
    arrays = tfds.as_numpy(batch)
    return Split(inputs=arrays[settings.inputs], targets=arrays[settings.targets])
