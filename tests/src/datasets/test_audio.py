"""Audio clips of any length, in memory and on disk, and what is refused."""

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds

from src import datasets
from src.datasets import Data, Split, audio, validation
from src.datasets.stored import StoredArray
from src.errors import UserError

AUDIO = ("model=lstm", "dataset=dtmf", "dataset.sample_rate=1000", "dataset.seconds=0.05")  # 50 samples
RATE = 1000
LABEL = tfds.features.ClassLabel(num_classes=2)
DRAW = np.random.default_rng(0)
COUNT = 30


def clips(dtype):
    values = [DRAW.normal(0, 1000, length) for length in DRAW.integers(20, 80, COUNT)]
    return [(each if np.dtype(dtype).kind == "f" else np.rint(each)).astype(dtype) for each in values]


def fitted(clip, samples=50):
    """The same with NumPy."""
    excess = len(clip) - samples
    if excess > 0:
        return clip[excess // 2 : excess // 2 + samples]
    return np.pad(clip, (-excess // 2, -excess - -excess // 2))


@pytest.mark.parametrize(
    ("clip", "expected"),
    [
        ([1, 2, 3, 4], [1, 2, 3, 4]), ([1, 2, 3, 4, 5], [1, 2, 3, 4]), ([1, 2, 3, 4, 5, 6], [2, 3, 4, 5]),
        ([1, 2, 3], [1, 2, 3, 0]), ([1, 2], [0, 1, 2, 0]), ([], [0, 0, 0, 0]),
    ],
)  # fmt: skip
def test_the_middle_of_long_clips_is_kept_and_short_ones_get_silence(clip, expected):
    np.testing.assert_array_equal(audio.fit(tf.constant(clip, tf.int16), 4), expected)


@pytest.mark.parametrize(
    ("dtype", "kept", "values", "expected"),
    [
        (np.int16, np.int16, [-5, 7], [-5, 7]), (np.int64, np.int16, [-(2**40), 2**15], [-(2**15), 2**15 - 1]),
        (np.float32, np.float32, [0.25, -1], [0.25, -1]), (np.float64, np.float32, [0.5, 3], [0.5, 3]),
    ],
)  # fmt: skip
def test_samples_are_int16_or_float32(dtype, kept, values, expected):
    transform = audio.AudioTransform(2)
    result = transform.apply(tf.constant(values, dtype)).numpy()
    assert result.dtype == kept == transform.dtype(np.dtype(dtype))
    np.testing.assert_array_equal(result, expected)


@pytest.fixture
def of_varying_length(make):
    """of_varying_length(feature, values): settings of a data set of clips."""

    def made(feature, values, *overrides):
        labels = np.arange(COUNT) % 2
        return make(AUDIO, {"audio": feature, "label": LABEL}, *overrides, train={"audio": values, "label": labels}).dataset

    return made


@pytest.mark.parametrize("dtype", [np.int16, np.int64, np.float32])
def test_memory_and_disk_give_the_same_clips_of_one_length(of_varying_length, dtype):
    made = clips(dtype)
    settings = of_varying_length(tfds.features.Audio(dtype=dtype, sample_rate=RATE), made)
    memory = datasets.load(settings)
    assert memory.sample_rate == RATE
    np.testing.assert_array_equal(memory.train.inputs, [fitted(clip) for clip in made[:21]])
    disk = datasets.load(settings.model_copy(update={"storage": "disk"}))
    for name, split in memory.splits.items():
        left = disk.splits[name]
        assert isinstance(left.inputs, StoredArray)
        assert left.inputs.dtype == split.inputs.dtype
        np.testing.assert_array_equal(np.asarray(left.inputs), split.inputs)
        assert left.digest == split.digest


def test_clips_of_a_tensor_have_the_rate_of_the_settings(of_varying_length):
    made = [clip[:20] for clip in clips(np.float32)]
    loaded = datasets.load(of_varying_length(tfds.features.Tensor(shape=(20,), dtype=np.float32), made))
    np.testing.assert_array_equal(loaded.test.inputs, [fitted(clip) for clip in made[24:]])


def test_the_rate_may_be_that_of_the_feature(of_varying_length):
    made = clips(np.int16)
    audio = tfds.features.Audio(dtype=np.int16, sample_rate=500)
    loaded = datasets.load(of_varying_length(audio, made, "dataset.sample_rate=null", "dataset.seconds=0.1"))
    assert loaded.sample_rate == 500
    np.testing.assert_array_equal(loaded.train.inputs, [fitted(clip) for clip in made[:21]])


def test_a_feature_without_a_rate_needs_that_of_the_settings(of_varying_length):
    tensor = tfds.features.Tensor(shape=(None,), dtype=np.float32)
    with pytest.raises(UserError, match=r"'audio' does not say its sample rate; type dataset\.sample_rate, in Hz\."):
        datasets.load(of_varying_length(tensor, clips(np.float32), "dataset.sample_rate=null"))


def test_clips_of_varying_length_need_the_length_of_all(of_varying_length):
    audio = tfds.features.Audio(dtype=np.int16, sample_rate=RATE)
    with pytest.raises(UserError, match=r"the clips of 'audio' differ in length; .* like dataset\.seconds=1\.0\."):
        datasets.load(of_varying_length(audio, clips(np.int16), "dataset.sample_rate=null", "dataset.seconds=null"))


def test_clips_in_two_splits_are_counted(of_varying_length, caplog):
    made = clips(np.int16)
    made[-1] = made[0]
    datasets.load(of_varying_length(tfds.features.Audio(dtype=np.int16, sample_rate=RATE), made))
    assert "1 of 6 inputs of the test split of dataset=made are also in the train split." in caplog.text


@pytest.mark.parametrize(
    ("feature", "values", "message"),
    [
        (tfds.features.Audio(dtype=np.int16, sample_rate=16000), clips(np.int16),
         "'audio' has 16,000 samples in a second, not 1,000; type dataset.sample_rate=16000."),
        (tfds.features.Audio(shape=(None, 2), dtype=np.int16, sample_rate=RATE), [np.ones((9, 2), np.int16)] * COUNT,
         "'audio' holds no audio of one channel"),
        (tfds.features.Text(), ["a", "b"] * (COUNT // 2), "'audio' holds no audio of one channel"),
        (tfds.features.Tensor(shape=(9,), dtype=np.uint8), [np.ones(9, np.uint8)] * COUNT, "'audio' holds no audio"),
    ],
)  # fmt: skip
def test_other_features_are_refused(of_varying_length, feature, values, message):
    with pytest.raises(UserError, match=message):
        datasets.load(of_varying_length(feature, values))


def data(clips, rate=RATE):
    split = Split(clips, np.arange(len(clips)) % 2)
    return Data("made", "", "", split, split, split, ("a", "b"), sample_rate=rate)


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (data(np.zeros((4, 50, 1), np.float32), rate=None), r"needs audio clips, but the inputs are arrays of type float32"),
        (data(np.full((4, 50), np.nan, np.float32)), r"Row 0 of the train split .* holds samples that are NaN, the first of 4"),
        (data(np.full((4, 50), 2**15 - 1, np.int16)), r"100 % of the training samples .* limits of 16 bits or beyond; convert"),
    ],
)  # fmt: skip
def test_what_is_no_audio_is_refused(made, message):
    with pytest.raises(UserError, match=message):
        validation.check_audio(made, "audio_classification")


def test_several_labels_name_their_task(make):
    several = tfds.features.Sequence(LABEL)
    features = {"audio": tfds.features.Audio(dtype=np.int16, sample_rate=RATE), "label": several}
    made = make(AUDIO, features, train={"audio": clips(np.int16), "label": [[0, 1]] * COUNT})
    with pytest.raises(UserError, match=r"where one is needed; type task\.name=audio_multilabel_classification, or"):
        datasets.conversion.to_class_indices(datasets.load(made.dataset))
