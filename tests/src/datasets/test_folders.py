"""Pictures and audio clips in folders, one for each class: they are read with the right values."""

import wave

import numpy as np
import pytest
from PIL import ExifTags, Image, ImageOps
from scipy.io import wavfile

from src import datasets
from src.datasets.builders.files import audio
from tests import own_data as files

# --- pictures


@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_pictures_are_those_of_the_files_and_their_folders_are_the_classes(read, tmp_path, mode):
    expected = set()
    for name in ("roses", "lilies"):
        (tmp_path / "flowers" / name).mkdir(parents=True)
        for n in range(10):
            pixels = np.random.default_rng([len(name), n]).integers(256, size=(6, 5, 3)[: 2 + (mode == "RGB")], dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "flowers" / name / f"{n}.png")
            expected.add((name, pixels.tobytes()))
    (tmp_path / "flowers" / "roses" / "Thumbs.db").write_text("no picture")
    task = read("images", tmp_path / "flowers", "dataset.image_size=null", task=True)
    assert task.classes == ("lilies", "roses")
    assert task.test.raw.shape == (2, 6, 5, len(mode))
    examples = [example for split in (task.train, task.validation, task.test) for example in zip(split.targets, split.raw)]
    assert {(task.classes[label], image.tobytes()) for label, image in examples} == expected
    for split, count in ((task.train, 8), (task.validation, 1), (task.test, 1)):
        assert np.bincount(split.targets).tolist() == [count, count]


def test_folders_of_splits_hold_folders_of_classes(read, tmp_path):
    for name, count in (("train", 10), ("val", 3), ("test", 4)):
        files.pictures(tmp_path / "flowers" / name, count=count)
    data = read("images", tmp_path / "flowers")
    assert [(len(split), split.array.shape[1:]) for split in data.splits.values()] == [
        (20, (64, 64, 3)), (6, (64, 64, 3)), (8, (64, 64, 3)),
    ]  # fmt: skip
    assert np.bincount(data.test.targets[:4]).tolist() == [2, 2]  # so a limit takes all classes


ORIENTATIONS = range(1, 9)


def turned(folder, mode, extension, exif_of):
    """Pictures of 24×16 pixels, brightest at the upper left, with EXIF data; in two folders."""
    y, x = np.mgrid[:16, :24]
    pixels = np.stack([255 - 8 * y, 255 - 6 * x, 200 - 4 * x - 3 * y], axis=-1).astype(np.uint8)
    paths = []
    for label in ("a", "b"):
        (folder / label).mkdir(parents=True)
        for orientation in ORIENTATIONS:
            exif = Image.Exif()
            exif[ExifTags.Base.Orientation] = orientation
            paths.append(folder / label / f"{orientation}.{extension}")
            picture = Image.fromarray(pixels).convert(mode)
            picture.save(paths[-1], exif=exif_of(exif), quality=100, subsampling=0)
    return paths


@pytest.mark.parametrize(("mode", "extension", "tolerance"), [("RGB", "jpg", 6), ("L", "jpg", 6), ("RGB", "png", 0)])
def test_pictures_are_turned_as_their_exif_data_says(tmp_path, settings, mode, extension, tolerance):
    paths = turned(tmp_path / "flowers", mode, extension, lambda exif: exif)
    made = settings("dataset=images", f"dataset.path={tmp_path / 'flowers'}", "dataset.image_size=null").dataset
    builder = datasets.prepare(made.model_copy(update={"data_dir": str(tmp_path / "prepared")}))
    assert builder.info.features["image"].shape == (None, None, len(mode))
    prepared = list(builder.as_dataset(split="train").as_numpy_iterator())  # in the order of the files
    for path, example in zip(paths, prepared, strict=True):
        expected = np.asarray(ImageOps.exif_transpose(Image.open(path)), int).reshape(example["image"].shape)
        np.testing.assert_allclose(example["image"].astype(int), expected, atol=tolerance)
    shapes = {orientation: example["image"].shape[:2] for orientation, example in zip(ORIENTATIONS, prepared)}
    assert shapes == dict.fromkeys(range(1, 5), (16, 24)) | dict.fromkeys(range(5, 9), (24, 16))


@pytest.mark.parametrize(
    "exif", [b"Exif\x00\x00nonsense", b"Exif\x00\x00II*\x00\x08\x00\x00\x00\x09"], ids=["no TIFF", "too short"]
)
def test_pictures_with_unreadable_exif_data_stay_as_they_are(tmp_path, settings, exif):
    turned(tmp_path / "flowers", "RGB", "jpg", lambda _: exif)
    made = settings("dataset=images", f"dataset.path={tmp_path / 'flowers'}", "dataset.image_size=null").dataset
    builder = datasets.prepare(made.model_copy(update={"data_dir": str(tmp_path / "prepared")}))
    assert builder.info.features["image"].shape == (16, 24, 3)


# --- audio


def fitted(clip, samples):
    """The middle of a clip, or zeros around it, with NumPy."""
    excess = len(clip) - samples
    return clip[excess // 2 :][:samples] if excess > 0 else np.pad(clip, (-excess // 2, -excess - -excess // 2))


def write_clips(folder, clips, sample_rate=1000):
    """WAV files of the classes a and b in turn."""
    for n, clip in enumerate(clips):
        of_class = folder / "ab"[n % 2]
        of_class.mkdir(parents=True, exist_ok=True)
        (write_24_bit if clip.dtype == object else wavfile.write)(of_class / f"{n:02}.wav", sample_rate, clip)


def write_24_bit(path, sample_rate, samples):
    """A file with Python's own writer, since SciPy has none of 24 bits."""
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 3, sample_rate, 0, "NONE", ""))
        file.writeframes(b"".join(int(sample).to_bytes(3, "little", signed=True) for sample in samples))


def all_clips(data):
    """The clips of all splits and their classes, sorted."""
    examples = [pair for split in data.splits.values() for pair in zip(split.targets.tolist(), split.array)]
    return sorted(examples, key=lambda example: (example[0], example[1].tolist()))


def check_clips(data, expected):
    """The clips of a data set are these, float or integer, of the classes a and b in turn."""
    expected = sorted((n % 2, clip.tolist()) for n, clip in enumerate(expected))
    assert [label for label, _ in all_clips(data)] == [label for label, _ in expected]
    np.testing.assert_array_equal([clip for _, clip in all_clips(data)], [clip for _, clip in expected])


RANDOM = np.random.default_rng(0)
INTEGERS = [RANDOM.integers(-128, 128, length) for length in RANDOM.integers(30, 70, 20)]
ENCODINGS = {  # samples of a file, and what they are in the data
    "8 bits": (lambda x: (x + 128).astype(np.uint8), lambda x: (256 * x).astype(np.int16)),
    "16 bits": (lambda x: (200 * x).astype(np.int16), lambda x: (200 * x).astype(np.int16)),
    "24 bits": (lambda x: (50_000 * x).astype(object), lambda x: (50_000 * x / 2**23).astype(np.float32)),
    "32 bits": (lambda x: (2**24 * x).astype(np.int32), lambda x: (x / 128).astype(np.float32)),
    "float": (lambda x: (x / 100).astype(np.float32), lambda x: (x / 100).astype(np.float32)),
    "double": (lambda x: x / 100, lambda x: (x / 100).astype(np.float32)),
}


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_clips_of_every_encoding_are_exact_and_of_one_length(read, tmp_path, encoding):
    written, kept = ENCODINGS[encoding]
    write_clips(tmp_path / "words", map(written, INTEGERS))
    data = read("audio", tmp_path / "words", "dataset.seconds=0.05")
    assert (data.classes, data.sample_rate) == (("a", "b"), 1000)
    expected = [fitted(kept(clip), 50) for clip in INTEGERS]
    assert data.train.array.dtype == expected[0].dtype
    check_clips(data, expected)
    assert [np.bincount(split.targets).tolist() for split in data.splits.values()] == [[8, 8], [1, 1], [1, 1]]


def test_clips_of_several_encodings_are_floats_of_the_same_scale(read, tmp_path):
    written = [ENCODINGS[name][0](clip) for clip, name in zip(INTEGERS, 5 * ["8 bits", "16 bits", "24 bits", "float"])]
    scale = 5 * [1 / 128, 200 / 2**15, 50_000 / 2**23, 1 / 100]
    write_clips(tmp_path / "words", written)
    expected = [fitted(clip * factor, 50).astype(np.float32) for clip, factor in zip(INTEGERS, scale)]
    check_clips(read("audio", tmp_path / "words", "dataset.seconds=0.05"), expected)


def test_channels_are_averaged(read, tmp_path):
    left, right = ([np.clip(200 * clip + add, -(2**15), 2**15 - 1) for clip in INTEGERS] for add in (0, 3))
    write_clips(tmp_path / "words", [np.stack(pair, axis=1).astype(np.int16) for pair in zip(left, right)])
    expected = [fitted(np.rint((one + other) / 2).astype(np.int16), 50) for one, other in zip(left, right)]
    check_clips(read("audio", tmp_path / "words", "dataset.seconds=0.05"), expected)


def tone(frequency, sample_rate, seconds=0.5):
    return 0.5 * np.sin(2 * np.pi * frequency * np.arange(round(seconds * sample_rate)) / sample_rate)


@pytest.mark.parametrize(("present", "wanted"), [(16000, 8000), (44100, 16000), (8000, 16000), (11025, 8000)])
def test_resampling_keeps_a_tone_and_removes_what_would_be_aliased(present, wanted):
    margin = round(0.05 * wanted)  # the filter rings at the ends
    kept, expected = audio.resample(tone(1000, present), present, wanted), tone(1000, wanted)
    assert abs(len(kept) - len(expected)) <= 1
    np.testing.assert_allclose(kept[margin : len(expected) - margin], expected[margin:-margin], atol=0.005)
    if wanted < present:  # a tone above half the new rate: less than a hundredth of it is left
        removed = audio.resample(tone(0.65 * wanted, present), present, wanted)[margin:-margin]
        assert np.abs(removed).max() < 0.005


def test_clips_are_resampled_on_request_and_other_rates_are_other_data(read, tmp_path):
    for label, rate in (("a", 8000), ("b", 16000)):
        (tmp_path / "words" / label).mkdir(parents=True)
        for n in range(10):
            samples = np.rint(2**15 * tone(300 + 20 * n, rate)).astype(np.int16)
            wavfile.write(tmp_path / "words" / label / f"{n}.wav", rate, samples)
    data = read("audio", tmp_path / "words", "dataset.sample_rate=8000", "dataset.seconds=0.5")
    assert (data.sample_rate, data.train.array.dtype, data.train.array.shape[1]) == (8000, np.int16, 4000)
    by_class = [[clip[400:-400] for label, clip in all_clips(data) if label == number] for number in (0, 1)]
    for one in by_class[0]:  # each tone is there in both classes
        assert min(np.abs(one - other.astype(int)).max() for other in by_class[1]) < 0.005 * 2**15
    other = read("audio", tmp_path / "words", "dataset.sample_rate=16000", "dataset.seconds=0.5")
    assert (other.sample_rate, other.train.array.shape[1]) == (16000, 8000)
    assert other.source != data.source


def test_folders_of_splits_hold_folders_of_clips(read, tmp_path):
    for name, count in (("train", 10), ("dev", 3), ("test", 4)):
        files.clips(tmp_path / "words" / name, count=count)
    data = read("audio", tmp_path / "words")
    assert [(len(split), split.array.shape[1]) for split in data.splits.values()] == [(20, 8000), (6, 8000), (8, 8000)]
