"""`audio`: clips in folders, one for each class."""

import collections
import struct
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tensorflow_datasets as tfds
from scipy.io import wavfile
from scipy.signal import resample_poly

from src.datasets.builders.files.folders import FoldersBuilder, LabelledFile
from src.errors import UserError

FULL_SCALE = 2**15  # of 16 bits


class Recording(NamedTuple):
    """What a file says of its clip.

    Attributes:
        sample_rate: in Hz.
        is_16_bit: whether its samples are integers of at most 16 bits.
    """

    sample_rate: int
    is_16_bit: bool


class Audio(FoldersBuilder[Recording]):
    """WAV files of any length, as one channel; the class of a clip is the name of its folder.

    Samples are 16-bit integers if those of all files have at most 16 bits, and floats of −1 to 1 otherwise.
    """

    DESCRIPTION = "Audio clips of the user's own"

    def describe_features(self) -> tfds.features.FeaturesDict:
        dtype = np.int16 if all(file.properties.is_16_bit for file in self.labelled_files) else np.float32
        audio = tfds.features.Audio(shape=(None,), dtype=dtype, sample_rate=self._sample_rate())
        return tfds.features.FeaturesDict({"audio": audio, "label": self.class_label})

    def _sample_rate(self) -> int:
        """The sample rate of all clips, in Hz: that of the settings, or else of the files.

        Raises:
            UserError: the settings name none, and the files have several.
        """
        if self.settings.sample_rate is not None:
            return self.settings.sample_rate
        files = self.labelled_files
        ((sample_rate, _),) = collections.Counter(file.properties.sample_rate for file in files).most_common(1)
        others = [file for file in files if file.properties.sample_rate != sample_rate]
        if others:
            first, rate = others[0].path, others[0].properties.sample_rate
            raise UserError(
                f"{len(others):,} of {len(files):,} clips in {self.settings.path} do not have a sample rate of {sample_rate:,} "
                f"Hz, the first is {first} ({rate:,} Hz); type dataset.sample_rate={sample_rate} to resample them."
            )
        return sample_rate

    def check(self, file: Path) -> Recording:
        sample_rate, samples = read(file)
        if not samples.size:
            raise ValueError("it has no samples")
        if samples.dtype.kind == "f" and not np.isfinite(samples).all():
            raise ValueError("it has samples that are NaN or infinite")
        return Recording(sample_rate, samples.dtype.kind != "f" and samples.dtype.itemsize <= 2)

    def example(self, file: LabelledFile[Recording]) -> dict[str, Any]:
        feature = self.info.features["audio"]
        sample_rate, samples = read(file.path)
        clip = resample(to_mono(samples), sample_rate, feature.sample_rate)
        if feature.np_dtype == np.int16:
            clip = np.clip(np.rint(FULL_SCALE * clip), -FULL_SCALE, FULL_SCALE - 1)
        return {"audio": clip.astype(feature.np_dtype)}


def read(file: Path) -> tuple[int, np.ndarray]:
    """The sample rate of a WAV file in Hz, and its samples (samples,) or (samples, channels).

    Samples of 8 bits are unsigned; those of 24 bits are the upper bits of 32.

    Raises:
        ValueError: it cannot be read; the text says why.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", wavfile.WavFileWarning)  # of chunks with other things than samples
            warnings.filterwarnings("error", "Reached EOF prematurely", wavfile.WavFileWarning)
            return wavfile.read(file)
    except wavfile.WavFileWarning:
        raise ValueError("it ends too early") from None
    except (UnboundLocalError, ZeroDivisionError, TypeError, struct.error):  # SciPy's, where parts are missing or make no sense
        raise ValueError("it is no complete WAV file") from None
    except (OSError, ValueError) as error:
        raise ValueError(f"it cannot be read as WAV: {str(error).splitlines()[0][:80]}") from None


def to_mono(samples: np.ndarray) -> np.ndarray:
    """The mean of the channels, as floats of −1 to 1: float64 (samples,).

    Args:
        samples: as `read` returns them.
    """
    if samples.dtype.kind == "u":
        values = (samples.astype(np.float64) - 128) / 128
    elif samples.dtype.kind == "i":
        values = samples / -float(np.iinfo(samples.dtype).min)
    else:
        values = samples.astype(np.float64)
    return values if values.ndim == 1 else values.mean(axis=1)


def resample(clip: np.ndarray, present: int, wanted: int) -> np.ndarray:
    """Change the sample rate of a clip (samples,) with SciPy's polyphase filter, which removes what would be aliased.

    Args:
        clip: of floats.
        present: its sample rate, in Hz.
        wanted: that of the result (⌈samples · wanted / present⌉,).
    """
    return clip if present == wanted else resample_poly(clip, wanted, present)
