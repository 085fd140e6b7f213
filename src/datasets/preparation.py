"""Preparation of data sets by TensorFlow Datasets, on first use."""

import contextlib
import difflib
import logging
import os
import sys
from pathlib import Path
from types import ModuleType

import filelock
import tensorflow_datasets as tfds

from src import terminal
from src.config import schema
from src.datasets import array_records, builders, tfds_patches
from src.errors import UserError

log = logging.getLogger(__name__)


def _builders(module: ModuleType) -> list[type[tfds.core.GeneratorBasedBuilder]]:
    """The TFDS builders of a module."""
    base = tfds.core.GeneratorBasedBuilder
    return [value for value in vars(module).values() if isinstance(value, type) and issubclass(value, base)]


OFFLINE = sorted(builder.name for module in builders.MODULES if not hasattr(module, "URL") for builder in _builders(module))


def prepare(settings: schema.Dataset) -> tfds.core.DatasetBuilder:
    """Prepare a data set, if that has not been done yet, and return its builder.

    Raises:
        UserError: there is no such builder, or the download failed.
    """
    return _prepared(_builder(settings), settings)


def _builder(settings: schema.Dataset) -> tfds.core.DatasetBuilder:
    try:
        builder = tfds.builder(settings.builder, config=settings.config, data_dir=settings.data_dir)
    except tfds.core.DatasetNotFoundError:
        matches = difflib.get_close_matches(settings.builder, tfds.list_builders(), n=2)
        hint = f"did you mean {' or '.join(matches)}? " if matches else ""
        raise UserError(
            f"TensorFlow Datasets has no builder '{settings.builder}'; {hint}"
            "See https://www.tensorflow.org/datasets/catalog/overview."
        ) from None
    except ValueError as error:  # an unknown config
        raise UserError(f"dataset.config={settings.config}: {str(error).splitlines()[0]}") from None
    tfds_patches.keep_double_precision(builder)
    return builder


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
            # TFDS shows bars of its own while it downloads.
            title = f"Preparing {builder.info.full_name}"
            shown = contextlib.nullcontext() if progress else terminal.phase(title, announce=False)
            with (
                shown,
                tfds_patches.fail_fast_downloads(),
                open(os.devnull, "w") as devnull,
                contextlib.redirect_stdout(devnull),
            ):
                builder.download_and_prepare(file_format=array_records.FORMAT if settings.storage == "disk" else None)
        except Exception as error:
            if offline:
                raise
            raise UserError(
                f"dataset={settings.name} could not be prepared: {_reason(error)}; "
                f"data sets that need no network: {', '.join(OFFLINE)}."
            ) from error
    return builder


def _reason(error: Exception) -> str:
    """The reason for an error of TFDS, as a user needs it."""
    text = str(error)
    if "Max retries exceeded" in text or "Connection" in type(error).__name__ or "Timeout" in type(error).__name__:
        return "its archive cannot be downloaded (no connection)"
    return " ".join(text.split())[:300] or type(error).__name__
