"""Audio classification."""

import keras
import numpy as np
from keras import KerasTensor, layers, ops

from recipes.shared_layers import SpecAugment
from recipes.specs import Image
from src.config.tasks import AudioSettings
from src.datasets import Data, Split, validation
from src.errors import UserError
from src.tasks.baselines import images as methods
from src.tasks.baselines.interface import Baselines, Prediction, join_notes, sample_note, spaced_rows
from src.tasks.visual_classification import VisualClassification

STATISTICS_CLIPS = 5000  # of the training set, from which mean and deviation of each band are computed
MIN_POWER = 1e-6  # of a band, below which there is silence: −60 dB
NO_LIMIT = 1e4  # dB
BATCH = 256  # clips whose spectrograms are computed at once
SHOWN_DEVIATIONS = 2.0  # from the mean, that are black and white in figures


class AudioClassification(VisualClassification):
    """Audio clips (samples,) to one of several classes.

    The model takes samples as they are in the data, int16, or floats of −1 to 1. It computes the log-mel spectrogram, and
    standardizes each of its bands; a recipe sees it as an image (frames, mels, 1).

    Attributes:
        mean, deviation: of each band over the training set, in dB, (mels,).
    """

    example_noun = "clips"
    input_name = "audio"
    legend = "\n(log-mel spectrograms: time runs downwards, frequency to the right)"
    baseline_settings = ("name", "mels", "frame_length", "frame_step")

    def __init__(self, settings: AudioSettings, data: Data):
        validation.check_audio(data, settings.name)
        super().__init__(settings, data)
        self.settings = settings
        self.sample_rate = data.sample_rate or 0
        self.length, self.step = (
            max(round(self.sample_rate * ms / 1000), 1) for ms in (settings.frame_length, settings.frame_step)
        )
        self.samples = data.train.raw_inputs.shape[1]
        self._check_frames(data.name)
        self.inputs = Image(1 + self.samples // self.step, settings.mels, 1)
        waveform = self._audio_input()
        self._log_mels = keras.Model(waveform, self.log_mels(waveform))
        clips = data.train.raw_inputs[spaced_rows(len(data.train), STATISTICS_CLIPS)]
        values = self._spectrograms(clips).astype(np.float64)
        self.mean, deviation = values.mean(axis=(0, 1)), values.std(axis=(0, 1))
        self.deviation = np.where(deviation > 0, deviation, 1)

    def _check_frames(self, name: str) -> None:
        """Raise a UserError unless clips and settings give a spectrogram."""
        settings, seconds = self.settings, self.samples / self.sample_rate
        if self.samples <= self.fft_length // 2:
            raise UserError(
                f"dataset.seconds={seconds:g} is too short for task.frame_length={settings.frame_length:g} (milliseconds); "
                "type shorter frames or longer clips."
            )
        if settings.spec_augment and settings.spec_augment[1] > 1 + self.samples // self.step:
            raise UserError(
                f"task.spec_augment={list(settings.spec_augment)} hides up to {settings.spec_augment[1]} frames, and the clips "
                f"of dataset={name} have {1 + self.samples // self.step}; type a smaller second number."
            )
        filters = self.mel_layer().linear_to_mel_weight_matrix(
            settings.mels, self.fft_length // 2 + 1, self.sample_rate, 20.0, self.sample_rate / 2
        )
        if not np.all(ops.convert_to_numpy(filters).any(axis=0)):
            raise UserError(
                f"task.mels={settings.mels} are more bands than frames of task.frame_length={settings.frame_length:g} "
                "(milliseconds) can tell apart; type fewer, or longer frames."
            )

    @property
    def fft_length(self) -> int:
        """Samples of the Fourier transform: the next power of two."""
        return 1 << (self.length - 1).bit_length()

    def mel_layer(self) -> layers.MelSpectrogram:
        """Keras's layer from float samples to the power of each band in dB, (batch, mels, frames).

        Its `top_db` would limit the range relative to the loudest clip of the batch, so that the prediction for a clip would
        depend on the others; it is out of reach here.
        """
        return layers.MelSpectrogram(
            fft_length=self.fft_length, sequence_stride=self.step, sequence_length=self.length, sampling_rate=self.sample_rate,
            num_mel_bins=self.settings.mels, min_freq=20.0, min_power=MIN_POWER, top_db=NO_LIMIT, dtype="float32",
            name="log_mel",
        )  # fmt: skip

    def _audio_input(self) -> KerasTensor:
        return keras.Input((self.samples,), dtype=self.train.raw_inputs.dtype.name, name=self.input_name)

    def log_mels(self, inputs: KerasTensor) -> KerasTensor:
        """Log-mel spectrograms in dB, (batch, frames, mels), of raw clips (batch, samples); full scale is 1."""
        is_integer = self.train.raw_inputs.dtype.kind == "i"
        full_scale = -float(np.iinfo(self.train.raw_inputs.dtype).min) if is_integer else 1.0
        x = layers.Rescaling(1 / full_scale, dtype="float32", name="scale")(inputs)
        x = layers.Permute((2, 1), dtype="float32", name="frames")(self.mel_layer()(x))
        return x[:, : self.inputs.height]  # Keras infers one frame too many where a clip is one sample short of it

    def preprocess(self, inputs: KerasTensor) -> KerasTensor:
        standardize = layers.Rescaling(
            1 / self.deviation, offset=-self.mean / self.deviation, dtype="float32", name="standardize"
        )
        x = standardize(self.log_mels(inputs))
        if self.settings.spec_augment:
            x = SpecAugment(*self.settings.spec_augment, dtype="float32", name="spec_augment")(x)
        return layers.Reshape((*x.shape[1:], 1), dtype="float32", name="spectrogram")(x)

    def _spectrograms(self, inputs: np.ndarray) -> np.ndarray:
        """The same as `log_mels` of arrays."""
        return self._log_mels.predict(inputs, batch_size=BATCH, verbose=0)

    def images(self, inputs: np.ndarray) -> np.ndarray:
        if not len(inputs):
            return np.empty((0, self.inputs.height, self.inputs.width, 1), np.float32)
        standardized = (self._spectrograms(inputs) - self.mean) / self.deviation
        return standardized.astype(np.float32)[..., None]

    def shown(self, images: np.ndarray) -> np.ndarray:
        return images / (2 * SHOWN_DEVIATIONS) + 0.5

    def learned_baselines(self) -> Baselines:
        return {"logistic_regression": self._logistic_regression, "nearest_neighbors": self._nearest_neighbors}

    def features(self, split: Split) -> np.ndarray:
        """Mean and standard deviation over time of each band, standardized: float32 (examples, 2 · mels)."""
        clips = split.raw_inputs
        parts = [self.images(clips[start : start + BATCH])[..., 0] for start in range(0, len(split), BATCH)]
        return np.concatenate([np.concatenate([part.mean(axis=1), part.std(axis=1)], axis=1) for part in parts])

    def _logistic_regression(self) -> Prediction:
        train = self.train.take(methods.regression_examples(2 * self.settings.mels))
        test = self.features(self.test)
        values = methods.logistic_regression(self.features(train), train.targets, test, self.outputs.count)
        return Prediction(values, sample_note(len(train), len(self.train), self.example_noun))

    def _nearest_neighbors(self) -> Prediction:
        queries = len(self.validation) + len(self.test)
        train = self.train.take(methods.neighbor_examples(2 * self.settings.mels, queries))
        k, values = methods.nearest_neighbors(
            (self.features(train), train.targets), (self.features(self.validation), self.validation.targets),
            self.features(self.test), self.outputs.count,
        )  # fmt: skip
        return Prediction(values, join_notes(f"k = {k}", sample_note(len(train), len(self.train), self.example_noun)))
