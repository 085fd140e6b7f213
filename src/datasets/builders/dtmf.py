"""`dtmf`: tones of telephone keys, with noise."""

from collections.abc import Iterator

import numpy as np
import tensorflow_datasets as tfds

SAMPLE_RATE = 8000  # Hz
ROWS, COLUMNS = (697, 770, 852, 941), (1209, 1336, 1477, 1633)  # Hz
KEYS = "123A456B789C*0#D"  # row by row
OF_EACH_KEY = 100
CLIP = (0.25, 0.4)  # shortest and longest, in seconds
TONE = (0.07, 0.2)
LEVEL = (-30.0, -6.0)  # of the tone's peak, in dB relative to the largest sample
TWIST = 6.0  # largest difference in level of the two frequencies, in dB
TOLERANCE = 0.018  # largest relative deviation of a frequency
SIGNAL_TO_NOISE = (-12.0, 20.0)  # ratio of the powers of tone and white noise, in dB


class Dtmf(tfds.core.GeneratorBasedBuilder):
    """Dual-tone multi-frequency signals (ITU-T Recommendation Q.23)."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description=f"{OF_EACH_KEY * len(KEYS):,} clips of the tones of the {len(KEYS)} telephone keys in white noise: "
            f"{CLIP[0]} to {CLIP[1]} s with {SAMPLE_RATE:,} samples in a second. A tone is the sum of one of four low and one "
            "of four high frequencies; its start, length, level and phases are random.",
            features=tfds.features.FeaturesDict(
                {
                    "audio": tfds.features.Audio(shape=(None,), dtype=np.int16, sample_rate=SAMPLE_RATE),
                    "label": tfds.features.ClassLabel(names=list(KEYS)),
                }
            ),
            supervised_keys=("audio", "label"),
            homepage="https://www.itu.int/rec/T-REC-Q.23",
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Iterator[tuple[int, dict]]]:
        return {"train": self._generate_examples()}

    def _generate_examples(self) -> Iterator[tuple[int, dict]]:
        generator = np.random.default_rng(0)
        for index in range(OF_EACH_KEY * len(KEYS)):
            key = KEYS[index % len(KEYS)]
            yield index, {"audio": clip(key, generator), "label": key}


def clip(key: str, generator: np.random.Generator) -> np.ndarray:
    """A clip of the tone of a key in noise: int16 (samples,)."""
    row, column = divmod(KEYS.index(key), len(COLUMNS))
    samples, duration = (round(SAMPLE_RATE * generator.uniform(*extremes)) for extremes in (CLIP, TONE))
    frequencies = np.array([ROWS[row], COLUMNS[column]]) * (1 + generator.uniform(-TOLERANCE, TOLERANCE, 2))
    twist = generator.uniform(-TWIST, TWIST) / 2
    amplitudes = 10 ** (np.array([twist, -twist]) / 20)
    phases = 2 * np.pi * (np.outer(np.arange(duration) / SAMPLE_RATE, frequencies) + generator.random(2))  # (duration, 2)
    tone = np.sin(phases) @ (amplitudes / amplitudes.sum())
    noise = np.sqrt(np.mean(tone**2) / 10 ** (generator.uniform(*SIGNAL_TO_NOISE) / 10))  # standard deviation
    start = generator.integers(samples - duration)
    signal = generator.normal(0, noise, samples)
    signal[start : start + duration] += tone
    level = 10 ** (generator.uniform(*LEVEL) / 20)
    return np.rint(np.clip(level * signal, -1, 1) * np.iinfo(np.int16).max).astype(np.int16)
