"""The user's own files: each kind is read with the right values, once for each content of the files."""

import datetime
import json
import shutil
import wave

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from PIL import ExifTags, Image, ImageOps
from scipy.io import wavfile

from src import config, datasets
from src.datasets import stored
from src.datasets.builders.files import audio, corpus, texts
from src.errors import UserError
from src.tasks import factory
from tests import own_data as files

MODELS = {"pairs": "transformer", "corpus": "gpt", "texts": "lstm", "series": "lstm"}


@pytest.fixture
def read(settings, tmp_path):
    """read("texts", path, …): the data set of a path, prepared in a folder of its own."""

    def load(kind, path, *overrides, task=False):
        composed = settings(f"model={MODELS.get(kind, 'cnn')}", f"dataset={kind}", f"dataset.path={path}", *overrides)
        dataset = composed.dataset.model_copy(update={"data_dir": str(tmp_path / "prepared")})
        data = datasets.load(dataset)
        return factory.create(composed.task, data) if task else data

    yield load
    datasets.load.cache_clear()


REVIEWS = ("dataset.inputs=review", "dataset.targets=stars")
LOAD = ("dataset.inputs=load", "dataset.targets=load")


def rows_of(data, *splits):
    """(input, target) of all examples of these splits, as texts."""
    chosen = [data.splits[name] for name in splits or ("train", "validation", "test")]
    return [(text.decode(), label.decode()) for split in chosen for text, label in zip(split.single[:], split.targets)]


def expected(rows, *columns):
    return [tuple(str(row[column]) for column in columns) for row in rows]


# --- texts and pairs


def write_jsonl(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def write_parquet(path, rows):
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)


WRITERS = {
    ".csv": files.write_csv,
    ".tsv": lambda path, rows: files.write_csv(path, rows, "\t"),
    ".jsonl": write_jsonl,
    ".parquet": write_parquet,
}


@pytest.mark.parametrize("extension", WRITERS)
def test_texts_of_every_format_are_drawn_into_stratified_splits(read, tmp_path, extension):
    rows = files.reviews(100)
    rows[3]["review"] = 'a "quoted" text, with commas\nand two lines'
    rows[4]["review"] = "影评 ünïcode"
    WRITERS[extension](tmp_path / f"reviews{extension}", rows)
    data = read("texts", tmp_path / f"reviews{extension}", *REVIEWS)
    assert data.name == "reviews"
    assert sorted(rows_of(data)) == sorted(expected(rows, "review", "stars"))
    assert [len(split) for split in data.splits.values()] == [80, 10, 10]
    assert rows_of(data, "train") != expected(rows, "review", "stars")[:80]  # they are drawn
    whole = np.array([34, 33, 33]) / 100
    for split in data.splits.values():
        counts = [list(split.targets).count(str(label).encode()) for label in files.STARS]
        np.testing.assert_allclose(counts, len(split) * whole, atol=1)


def test_integers_as_labels_are_sorted_by_their_value(read, own_data):
    assert read("texts", own_data / "reviews.csv", *REVIEWS, task=True).classes == ("1", "2", "10")


def test_a_column_may_be_both_input_and_target(read, own_data):
    data = read("texts", own_data / "reviews.csv", "dataset.inputs=review", "dataset.targets=review", "model=gpt")
    assert all(text == target for text, target in rows_of(data))
    assert len(set(rows_of(data))) == 90


def test_a_column_named_split_says_the_split_of_each_row(read, tmp_path):
    rows = [row | {"split": ("train", "val", "test", "train")[n % 4]} for n, row in enumerate(files.reviews())]
    files.write_csv(tmp_path / "reviews.csv", rows)
    data = read("texts", tmp_path / "reviews.csv", *REVIEWS)
    for split, name in (("train", "train"), ("validation", "val"), ("test", "test")):
        assert sorted(rows_of(data, split)) == sorted(
            expected([row for row in rows if row["split"] == name], "review", "stars")
        )


def test_files_of_a_folder_are_its_splits_and_a_missing_one_is_a_tenth_of_train(read, tmp_path):
    rows, folder = files.reviews(120), tmp_path / "films"
    folder.mkdir()
    files.write_csv(folder / "train.csv", rows[:100])
    files.write_csv(folder / "test.csv", rows[100:])
    (folder / "notes.csv").write_text("no data")
    data = read("texts", folder, *REVIEWS)
    assert data.name == "films"
    assert sorted(rows_of(data, "test")) == sorted(expected(rows[100:], "review", "stars"))
    assert (len(data.train), len(data.validation)) == (90, 10)
    assert sorted(rows_of(data, "train", "validation")) == sorted(expected(rows[:100], "review", "stars"))


def test_shards_of_a_split_are_put_together(read, tmp_path):
    rows, folder = files.reviews(120), tmp_path / "films"
    folder.mkdir()
    for name, part in {
        "train-00000-of-00002": rows[:50], "train-00001-of-00002": rows[50:100], "valid-00000-of-00001": rows[100:110],
        "test-00000-of-00001": rows[110:], "test_results": rows[:3],
    }.items():  # fmt: skip
        files.write_csv(folder / f"{name}.csv", part)
    data = read("texts", folder, *REVIEWS, "dataset.shuffle=null")
    assert rows_of(data) == expected(rows, "review", "stars")


def test_a_glob_is_one_table_of_all_its_files(read, tmp_path):
    rows = files.reviews()
    (tmp_path / "shards").mkdir()
    files.write_csv(tmp_path / "shards" / "a.csv", rows[:25])
    files.write_csv(tmp_path / "shards" / "b.csv", rows[25:])
    data = read("texts", tmp_path / "shards" / "*.csv", *REVIEWS)
    assert data.name == "shards"
    assert sorted(rows_of(data)) == sorted(expected(rows, "review", "stars"))


def test_all_splits_can_be_the_training_set(read, own_data):
    data = read("texts", own_data / "reviews.csv", *REVIEWS, "debug=overfit", "dataset.limit=null")
    assert len(data.train) == 90
    assert data.train.digest == data.validation.digest == data.test.digest


def test_slices_can_be_typed(read, own_data):
    splits = (
        'dataset.splits.train="train[:50%]"',
        'dataset.splits.test="train[50%:60%]"',
        'dataset.splits.validation="train[60%:]"',
    )
    assert [len(split) for split in read("texts", own_data / "reviews.csv", *REVIEWS, *splits).splits.values()] == [45, 36, 9]


def test_texts_in_another_encoding_and_with_a_byte_order_mark_are_read(read, tmp_path):
    rows = [{"review": f"très bon n° {n}", "stars": n % 2} for n in range(20)]
    files.write_csv(tmp_path / "latin.csv", rows, encoding="latin-1")
    files.write_csv(tmp_path / "excel.csv", rows, encoding="utf-8-sig")
    latin = ("latin.csv", "latin-1")
    for name, encoding, storage in ((*latin, "disk"), (*latin, "memory"), ("excel.csv", "utf-8", "auto")):
        data = read("texts", tmp_path / name, *REVIEWS, f"dataset.encoding={encoding}", f"dataset.storage={storage}")
        assert stored.is_on_disk(data.train.single) == (storage == "disk")
        assert sorted(rows_of(data)) == sorted(expected(rows, "review", "stars"))


def test_pairs_are_read_from_two_columns(read, own_data):
    data = read("pairs", own_data / "sentences.tsv")
    assert sorted(rows_of(data)) == sorted(expected(files.pairs(), "source", "target"))
    assert [len(split) for split in data.splits.values()] == [72, 9, 9]


def test_columns_say_which_of_several_labels_apply(read, tmp_path):
    rows = [{"review": f"film {n}", "good": n % 2, "long": ("true", "False")[n // 2 % 2]} for n in range(40)]
    files.write_csv(tmp_path / "reviews.csv", rows)
    more = ("dataset.inputs=review", "dataset.targets=[good,long]", "task.name=text_multilabel_classification")
    task = read("texts", tmp_path / "reviews.csv", *more, task=True)
    assert task.classes == ("good", "long")
    labels = {
        text.decode(): tuple(row)
        for split in (task.train, task.validation, task.test)
        for text, row in zip(split.raw, split.targets)
    }
    assert labels == {row["review"]: (row["good"], int(row["long"] == "true")) for row in rows}


# --- series


def test_several_variables_and_the_calendar_come_from_the_columns(read, tmp_path):
    rows = [row | {"heat": n / 4} for n, row in enumerate(files.series(200))]
    files.write_csv(tmp_path / "load.csv", rows)
    more = ("dataset.inputs=[heat,load]", "dataset.targets=[load]", "dataset.time=date")
    data = read("series", tmp_path / "load.csv", *more)
    np.testing.assert_array_equal(
        np.concatenate([split.array for split in data.splits.values()]), [(row["heat"], row["load"]) for row in rows]
    )
    times = np.concatenate(list(data.times.values()))
    np.testing.assert_array_equal(times, np.array([row["date"] for row in rows], "datetime64[us]"))
    assert len(read("series", tmp_path / "load.csv", *more, "task.calendar=[hour]", "task.window=8", task=True).test)


def test_a_series_keeps_its_order_and_precision(read, tmp_path):
    rows = files.series(100)
    for row in rows:
        row["load"] += 1e9
    rows[50]["load"] = ""
    files.write_csv(tmp_path / "load.csv", rows)
    data = read("series", tmp_path / "load.csv", *LOAD, "dataset.time=date")
    values = np.concatenate([split.array for split in data.splits.values()])
    np.testing.assert_array_equal(values, [float(row["load"] or "nan") for row in rows])
    assert data.ordered
    assert [len(split) for split in data.splits.values()] == [80, 10, 10]


def test_timestamps_need_not_be_there(read, tmp_path):
    (tmp_path / "load.csv").write_text("load\n" + "".join(f"{n}\n" for n in range(20)))
    assert read("series", tmp_path / "load.csv", *LOAD).test.array.tolist() == [18, 19]


@pytest.mark.parametrize(
    "times",
    [
        [f"{2000 + n // 12}-{n % 12 + 1:02}-01" for n in range(30)],
        [str(datetime.date(2000 + (n + 1) // 12, (n + 1) % 12 + 1, 1) - datetime.timedelta(days=1)) for n in range(30)],
        [str(1700 + n) for n in range(30)],
        [f"2016-10-30T{hour:02}:00+0{offset}:00" for hour, offset in ((0, 2), (1, 2), (2, 2), (2, 1), (3, 1), (4, 1), (5, 1))]
        + [f"2016-10-30T{hour:02}:00+01:00" for hour in range(6, 24)],
    ],
    ids=["first of the month", "end of the month", "years", "end of summer time"],
)
def test_regular_timestamps_of_every_form_are_accepted(read, tmp_path, times):
    files.write_csv(tmp_path / "load.csv", [{"date": time, "load": n} for n, time in enumerate(times)])
    data = read("series", tmp_path / "load.csv", *LOAD, "dataset.time=date")
    assert np.concatenate([split.array for split in data.splits.values()]).tolist() == list(range(len(times)))


def test_files_of_a_series_follow_each_other_with_a_gap_or_without(read, tmp_path):
    rows, folder = files.series(60), tmp_path / "loads"
    folder.mkdir()
    for name, part in (("train", rows[:40]), ("validation", rows[40:50]), ("test", rows[52:])):
        files.write_csv(folder / f"{name}.csv", part)
    data = read("series", folder, *LOAD, "dataset.time=date")
    assert data.test.array.tolist() == [row["load"] for row in rows[52:]]


# --- arrays


def test_arrays_with_the_names_of_keras_are_its_splits(read, own_data):
    task = read("arrays", own_data / "digits.npz", task=True)
    arrays = files.digits()
    assert task.classes == tuple(map(str, range(10)))
    assert sorted(zip(map(bytes, task.test.raw), task.test.targets)) == sorted(
        zip(map(bytes, arrays["x_test"]), arrays["y_test"])
    )
    drawn = [(bytes(image), label) for split in (task.train, task.validation) for image, label in zip(split.raw, split.targets)]
    assert sorted(drawn) == sorted(zip(map(bytes, arrays["x_train"]), arrays["y_train"]))
    assert (len(task.train), len(task.validation)) == (180, 20)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32, np.float64, np.bool_], ids=lambda dtype: dtype.__name__)
def test_arrays_of_every_type_are_exact(read, tmp_path, dtype):
    images = (np.random.default_rng(0).random((20, 5, 4, 3)) * (1 if dtype in (np.float32, np.float64) else 2)).astype(dtype)
    labels = np.array(["no", "yes"] * 10)[:, None]
    np.savez(tmp_path / "own.npz", pixels=images, names=labels)
    data = read("arrays", tmp_path / "own.npz", "dataset.inputs=pixels", "dataset.targets=names", "dataset.shuffle=null")
    result = np.concatenate([split.array for split in data.splits.values()])
    assert result.dtype == dtype
    np.testing.assert_array_equal(result, images)
    assert [text.decode() for split in data.splits.values() for text in split.targets] == labels[:, 0].tolist()


def test_arrays_say_which_of_several_labels_apply(read, tmp_path):
    images, labels = np.arange(20 * 9, dtype=np.uint8).reshape(20, 3, 3), np.arange(60).reshape(20, 3) % 2
    np.savez(tmp_path / "own.npz", x=images, y=labels)
    task = read("arrays", tmp_path / "own.npz", "task.name=image_multilabel_classification", task=True)
    examples = [pair for split in (task.train, task.validation, task.test) for pair in zip(split.raw, split.targets)]
    assert {image.tobytes(): tuple(row) for image, row in examples} == dict(zip(map(bytes, images), map(tuple, labels)))


# --- corpus


def test_a_corpus_is_cut_at_the_ends_of_lines(read, own_data):
    data = read("corpus", own_data / "books" / "*.txt")
    assert data.name == "books"
    texts = {name: [text.decode() for text in split.array] for name, split in data.splits.items()}
    whole = [path.read_text() for path in (own_data / "books").iterdir()]
    joined = "".join(text for of_split in texts.values() for text in of_split)
    assert sorted(line for text in whole for line in text.splitlines()) == sorted(joined.splitlines())
    assert all(text in joined for text in whole)  # files stay together
    total = sum(map(len, whole))
    longest = max(len(line) + 1 for line in joined.splitlines())
    for name, share in (("train", 0.8), ("validation", 0.1), ("test", 0.1)):
        assert abs(sum(map(len, texts[name])) - share * total) <= longest


def test_a_corpus_with_files_named_after_splits_has_these_splits(read, tmp_path):
    for name in ("train", "valid", "test"):
        (tmp_path / f"{name}.txt").write_text(f"the text of {name}\n")
    data = read("corpus", tmp_path / "*.txt")
    assert [split.array.tolist() for split in data.splits.values()] == [
        [b"the text of train\n"], [b"the text of valid\n"], [b"the text of test\n"],
    ]  # fmt: skip


def test_a_long_text_is_several_examples(monkeypatch):
    monkeypatch.setattr(corpus, "LONGEST", 20)
    text = "one line\nand another line\n" + 50 * "x" + "\nend"
    pieces = list(corpus._pieces(text))
    assert "".join(pieces) == text
    assert pieces[:2] == ["one line\n", "and another line\n"]
    assert max(map(len, pieces)) <= 20


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


# --- versions


def test_files_are_prepared_once_and_changed_files_again(read, tmp_path, monkeypatch):
    prepared, examples = [], texts.Texts.examples

    def count(self, split):
        prepared.append(split)
        return examples(self, split)

    monkeypatch.setattr(texts.Texts, "examples", count)
    path = tmp_path / "reviews.csv"
    files.write_csv(path, files.reviews())
    first = read("texts", path, *REVIEWS)
    datasets.load.cache_clear()
    assert read("texts", path, *REVIEWS).source == first.source
    assert prepared == ["train"]
    files.write_csv(path, files.reviews(100))
    datasets.load.cache_clear()
    changed = read("texts", path, *REVIEWS)
    assert (prepared, len(changed.train)) == (["train", "train"], 80)
    assert changed.source != first.source


def test_a_recorded_digest_stands_for_the_data_as_it_was(settings, tmp_path):
    path = tmp_path / "reviews.csv"
    files.write_csv(path, files.reviews())
    typed = settings("model=lstm", "dataset=texts", f"dataset.path={path}", *REVIEWS)
    typed = typed.model_copy(update={"dataset": typed.dataset.model_copy(update={"data_dir": str(tmp_path / "prepared")})})
    recorded = config.with_digest(typed).dataset
    rows = rows_of(datasets.load(recorded))
    files.write_csv(path, files.reviews(100))
    changed = config.with_digest(typed)
    assert (
        changed.fingerprint() != typed.model_copy(update={"dataset": recorded}).fingerprint()
    )  # so a run on other data is not resumed
    path.unlink()
    datasets.load.cache_clear()
    assert rows_of(datasets.load(recorded)) == rows
    files.write_csv(path, files.reviews(100))
    shutil.rmtree(tmp_path / "prepared")
    datasets.load.cache_clear()
    with pytest.raises(UserError, match=r"has changed since the digest \w{16} was recorded"):
        datasets.load(recorded)
    files.write_csv(path, files.reviews())
    assert rows_of(datasets.load(recorded)) == rows
