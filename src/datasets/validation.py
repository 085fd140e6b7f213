"""Checks of loaded data for problems that would otherwise give wrong results without a message."""

import hashlib
import itertools
import logging
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from src import terminal
from src.datasets.data import Array, Data, Slice
from src.datasets.lazy import chunks, rows
from src.datasets.stored import StoredArray
from src.errors import UserError

log = logging.getLogger(__name__)

CLIPS = 1000  # that are looked at for clipped samples
MAX_CLIPPED = 0.1  # fraction of samples at the limits of their type; more than any recording has


def check_overlap(slices: Mapping[str, Mapping[str, Sequence[Slice]]]) -> None:
    """Raise a UserError if two of the splits share rows.

    Args:
        slices: {split: {series: where its rows are}}.
    """
    for one, other in itertools.combinations(slices, 2):
        pairs = (itertools.product(own, slices[other].get(series, ())) for series, own in slices[one].items())
        for a, b in itertools.chain.from_iterable(pairs):
            start, stop = max(a.start, b.start), min(a.stop, b.stop)
            if a.base == b.base and start < stop:
                raise UserError(
                    f"dataset.splits.{one} and dataset.splits.{other} have {stop - start:,} rows in common, "
                    f"{a.base}[{start}:{stop}]; type slices that do not overlap."
                )


def warn_of_duplicates(data: Data) -> None:
    """Warn of images, texts and clips that are in two splits. The steps of a series are not compared: values may recur."""
    inputs = data.train.raw_inputs
    if inputs.dtype != object and inputs.ndim < 3 and data.sample_rate is None:
        return
    with terminal.phase(f"Comparing the splits of {data.name}"):
        hashes = {name: _hashes(split.raw_inputs) for name, split in data.splits.items()}
    for one, other in itertools.combinations(hashes, 2):
        count = int(np.isin(hashes[other], hashes[one]).sum())
        if count:
            log.warning(
                "%s of %s inputs of the %s split of dataset=%s are also in the %s split.",
                f"{count:,}", f"{len(hashes[other]):,}", other, data.name, one,
            )  # fmt: skip


def _hashes(inputs: Array) -> np.ndarray:
    """A hash of each input: 64 bits, (examples,)."""
    if isinstance(inputs, StoredArray):
        return inputs.keep("hashes", lambda: np.concatenate([_hashes(chunk) for chunk in chunks(inputs)]))
    digests = (hashlib.blake2b(x if isinstance(x, bytes) else x.tobytes(), digest_size=8).digest() for x in rows(inputs))
    return np.frombuffer(b"".join(digests), np.int64)


def check_finite(data: Data) -> None:
    """Raise a UserError if an input is infinite."""
    for name, split in data.splits.items():
        inputs = split.raw_inputs
        if inputs.dtype.kind != "f":
            continue
        rows = np.flatnonzero(_any_of_row(np.isinf, inputs))
        if len(rows):
            raise UserError(
                f"Row {rows[0]} of the {name} split of dataset={data.name} (counted from 0) holds an infinite value, "
                f"the first of {len(rows)}; correct it, or write it as NaN in a series, where it counts as missing."
            )


def _any_of_row(test: Callable[[np.ndarray], np.ndarray], inputs: Array) -> np.ndarray:
    """Whether a test holds for any value of each row, (rows,)."""
    return np.concatenate([test(chunk).reshape(len(chunk), -1).any(axis=1) for chunk in chunks(inputs)])


def check_images(data: Data, task: str) -> None:
    """Raise a UserError unless the inputs are images (H, W, C) of numbers."""
    images = data.train.raw_inputs
    if images.ndim != 4 or images.dtype.kind not in "buif":
        raise UserError(
            f"dataset={data.name}: {task} needs images (height, width, channels), but the inputs are "
            f"{describe(images)}; choose another dataset.inputs."
        )
    _check_no_nan(data, "pixels", "images")


def check_audio(data: Data, task: str) -> None:
    """Raise a UserError unless the inputs are audio clips, of samples that are no NaN and, if integers, of 16 bits."""
    clips = data.train.raw_inputs
    if data.sample_rate is None:
        raise UserError(
            f"dataset={data.name}: {task} needs audio clips, but the inputs are {describe(clips)}; if they are samples of "
            "sound, type dataset.sample_rate and dataset.seconds."
        )
    _check_no_nan(data, "samples", "clips")
    if clips.dtype.kind == "i":
        extremes = np.iinfo(clips.dtype)
        clipped = np.isin(clips[:: max(len(clips) // CLIPS, 1)], (extremes.min, extremes.max)).mean()
        if clipped > MAX_CLIPPED:
            raise UserError(
                f"{100 * clipped:.0f} % of the training samples of dataset={data.name} are at the limits of 16 bits "
                "or beyond; convert the data to 16 bits, or to floats of −1 to 1."
            )


def _check_no_nan(data: Data, values: str, inputs: str) -> None:
    """Raise a UserError if a value of the inputs is NaN; both are named in the message."""
    for name, split in data.splits.items():
        array = split.raw_inputs
        if array.dtype.kind == "f" and (rows := np.flatnonzero(_any_of_row(np.isnan, array))).size:
            raise UserError(
                f"Row {rows[0]} of the {name} split of dataset={data.name} (counted from 0) holds {values} that are NaN, "
                f"the first of {len(rows)}; correct them, or leave the {inputs} out of the data."
            )


def check_series(data: Data) -> None:
    """Raise a UserError unless the inputs are an ordered series of numbers and the targets are among its variables."""
    missing = [name for name in data.target_variables if name not in data.variables]
    if missing:
        raise UserError(
            f"dataset={data.name}: a series is forecast from its own past; add '{missing[0]}' to dataset.inputs, as in "
            f"dataset.inputs=[{','.join((*data.variables, *missing))}]."
        )
    for name, split in data.splits.items():
        if split.array.dtype.kind not in "buif":
            raise UserError(
                f"dataset={data.name}: forecasting needs a series of numbers, but the inputs are {describe(split.array)}; "
                "choose another dataset.inputs."
            )
        for series, values in data.by_series(name, split.array).items():
            if np.isnan(values).all(axis=0).any():
                raise UserError(
                    f"A feature{of_series(series)} of the {name} split of dataset={data.name} holds no number at all; choose "
                    f"other dataset.inputs or another dataset.splits.{name}{or_leave_out(series)}."
                )
    if not data.ordered:
        raise UserError(
            f"The builder of dataset={data.name} does not keep the order of its examples, so they are no series; pass "
            "disable_shuffling=True to its DatasetInfo, and prepare it again."
        )
    for earlier, later in itertools.pairwise(data.splits):
        unknown = set(data.series_lengths.get(later, {})) - set(data.series_lengths.get(earlier, {}))
        if unknown:
            raise UserError(
                f"The {later} split of dataset={data.name} has a series '{min(unknown)}', which the {earlier} split has not; "
                "add its past there, or leave it out."
            )
        for series, after in data.slices.get(later, {}).items():
            before = data.slices[earlier][series]
            joints = itertools.pairwise([*before[-1:], *after])
            are_same = after == before  # with debug=overfit
            if not are_same and any(a.base == b.base and a.stop != b.start for a, b in joints):
                raise UserError(
                    f"dataset.splits.{later} does not start where dataset.splits.{earlier} ends; type splits of a series that "
                    "follow each other in order of time, without gaps."
                )


def of_series(series: str) -> str:
    """Which series something is of, for messages: " of the series 'Oslo'"; empty if there is only one."""
    return f" of the series '{series}'" if series else ""


def or_leave_out(series: str) -> str:
    """The advice to do without a series, for messages; empty if there is only one."""
    return ", or leave the series out of the data" if series else ""


def describe(array: Array) -> str:
    """What an array holds, for messages: texts, or numbers of which type and shape."""
    if array.dtype == object:
        return "texts"
    return f"arrays of type {array.dtype} and shape {array.shape[1:]}" if array.ndim > 1 else f"numbers of type {array.dtype}"
