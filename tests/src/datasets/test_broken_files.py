"""Files that cannot be read, or make no sense: each is one sentence with file and line, and nothing stays behind."""

import json

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from PIL import Image
from scipy.io import wavfile

from src import datasets
from src.config.files import EXTENSIONS
from src.errors import UserError
from src.tasks import factory
from tests import own_data as files

TEXTS = ("texts", "dataset.inputs=review", "dataset.targets=stars")
SERIES = ("series", "dataset.inputs=load", "dataset.targets=load", "dataset.time=date")
SHOPS = (*SERIES, "dataset.series_id=store")
MODELS = {"pairs": "transformer", "corpus": "gpt", "texts": "lstm", "series": "lstm"}  # of other kinds: cnn
TABLE = "review,stars\n" + "".join(f"film {n},{n % 3}\n" for n in range(12))
HOURS = [str(row["date"]) for row in files.series(30)]


def table(text, name="own.csv", encoding="utf-8"):
    """Writes a file with this text."""

    def write(folder):
        (folder / name).write_text(text, encoding=encoding)
        return name

    return write


def of_times(times, name="own.csv"):
    """Writes a table of a series."""
    return table("date,load\n" + "".join(f"{time},{n}\n" for n, time in enumerate(times)), name)


def of_shops(rows):
    """Writes a table of several series, of (series, time)."""
    return table("store,date,load\n" + "".join(f"{store},{time},{n}\n" for n, (store, time) in enumerate(rows)))


def numpy_file(**arrays):
    def write(folder):
        np.savez(folder / "own.npz", **arrays)
        return "own.npz"

    return write


def parquet(rows):
    def write(folder):
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), folder / "own.parquet")
        return "own.parquet"

    return write


def flowers(change, classes=("lilies", "roses")):
    """Makes folders of pictures, and changes something in them."""

    def write(folder):
        files.pictures(folder / "flowers", classes, count=12)
        change(folder / "flowers")
        return "flowers"

    return write


def words(change):
    """Makes folders of clips, and changes something in them."""

    def write(folder):
        files.clips(folder / "words", count=12)
        change(folder / "words")
        return "words"

    return write


def truncate(file):
    file.write_bytes(file.read_bytes()[:100])


def replace_bytes(file, start, new):
    content = bytearray(file.read_bytes())
    content[start : start + len(new)] = new
    file.write_bytes(content)


def flatten(folder):
    """Moves all pictures of class folders up into the folder that holds these."""
    for of_class in list(folder.iterdir()):
        for file in of_class.iterdir():
            file.rename(folder / f"{of_class.name}{file.name}")
        of_class.rmdir()


def split_folder(name):
    def write(folder):
        files.pictures(folder / "flowers" / "train")
        files.pictures(folder / "flowers" / name, ("lilies", "tulips"))
        return "flowers"

    return write


IMAGES, LABELS = np.zeros((20, 4, 4), np.uint8), np.arange(20) % 2

BROKEN = {
    # paths and formats
    "no such path": (TEXTS, lambda folder: "nowhere.csv", "nowhere.csv does not exist; relative paths start in "),
    "a glob without a match": (("corpus",), lambda folder: "*.txt", "*.txt matches no file; relative paths start in "),
    "an empty file": (TEXTS, table(""), "own.csv is empty; choose another dataset.path."),
    "an unknown extension": (
        TEXTS,
        table(TABLE, "own.xlsx"),
        "own.xlsx is no file for dataset=texts, which reads .csv, .tsv, .jsonl, .ndjson, .parquet.",
    ),
    "a folder without splits": (
        TEXTS,
        lambda folder: ".",
        "has no train.csv; name the files of its splits train.csv, validation.csv, test.csv, or type ",
    ),
    # tables
    "a header alone": (TEXTS, table("review,stars\n"), "own.csv has no examples in the train split; add some"),
    "too few rows": (
        TEXTS,
        table("".join(TABLE.splitlines(keepends=True)[:9])),
        "own.csv has 8 examples, too few to draw validation and test sets from;",
    ),
    "a missing column": (
        TEXTS,
        table(TABLE.replace("stars", "rating")),
        "own.csv has no column 'stars'; type dataset.targets=<one of: review, rating>.",
    ),
    "semicolons": (
        TEXTS,
        table(TABLE.replace(",", ";")),
        "no column 'review' (it seems to be separated by semicolons; save it",
    ),
    "a column that is there twice": (
        TEXTS,
        table("review,stars,stars\na,1,2\n"),
        "own.csv has two columns 'stars'; rename one",
    ),
    "a missing text": (
        TEXTS,
        table(TABLE.replace("film 4,", " ,")),
        "own.csv, line 6: the column 'review' is empty; write a text there, or leave",
    ),
    "a missing label": (
        TEXTS,
        table(TABLE.replace("film 4,1", "film 4,")),
        "own.csv, line 6: the column 'stars' is empty; write a label there",
    ),
    "too many values": (
        TEXTS,
        table(TABLE.replace("film 3", '"two\nlines"').replace("film 4", "film, the 4th")),
        "own.csv, line 7: this row and the header differ in length (3 and 2); put",
    ),
    "too few values": (
        TEXTS,
        table(TABLE.replace("film 4,1", "film 4")),
        "own.csv, line 6: this row and the header differ in length (1 and 2); put",
    ),
    "a quote without its end": (TEXTS, table(TABLE.replace("film 4", '"film 4')), "own.csv, line 6: this row cannot be read ("),
    "another encoding": (
        TEXTS,
        table(TABLE.replace("film 4", "très bon"), encoding="latin-1"),
        "own.csv, line 6: this is no text in utf-8; type its encoding, as in dataset.encoding=latin-1.",
    ),
    "a label of several that is neither there nor not": (
        (*TEXTS[:2], "dataset.targets=[good,long]", "task.name=text_multilabel_classification"),
        table("review,good,long\na film,1,0\nanother,true,perhaps\n"),
        "own.csv, line 3: the column 'long' holds 'perhaps', but of several labels each column says whether its own",
    ),
    "two columns of texts": (
        ("texts", "dataset.inputs=[review,stars]", "dataset.targets=stars"),
        table(TABLE),
        "dataset=texts has one input for each example; type one name, as in dataset.inputs=text.",
    ),
    "an unknown split": (
        TEXTS,
        table("review,stars,split\na,1,train\nb,2,later\n"),
        "own.csv, line 3: the column 'split' holds 'later', which is none of train, validation and test; correct it, or rename",
    ),
    "numbers instead of texts": (
        TEXTS,
        table(TABLE.replace("film ", "")),
        "The column 'review' of own.csv holds numbers, not texts, and tables of numbers are not supported as inputs; supported",
    ),
    "only one class": (
        TEXTS,
        table("review,stars\n" + "".join(f"film {n},5\n" for n in range(12))),
        "dataset=own has only one class, 5; classif",
    ),
    "labels that are all different": (
        TEXTS,
        table("review,stars\n" + "".join(f"film {n},{n}\n" for n in range(12))),
        "needs class labels",
    ),
    "an invalid line of JSON": (
        TEXTS,
        table('{"review": "a", "stars": 1}\n{"review": "b", "stars": }\n', "own.jsonl"),
        "own.jsonl, line 2: this is no JSON (Expecting value at position 25); write one object in each line.",
    ),
    "a line of JSON that is no object": (
        TEXTS,
        table('{"review": "a"}\n\n[1]\n', "own.jsonl"),
        "own.jsonl, line 3: this is no obj",
    ),
    "a list as text": (
        TEXTS,
        table(json.dumps({"review": ["a"], "stars": 1}), "own.jsonl"),
        "line 1: the column 'review' holds a list, not a text",
    ),
    "no Parquet": (TEXTS, table("abc", "own.parquet"), "own.parquet is no Parquet file ("),
    "a null in Parquet": (
        TEXTS,
        parquet([{"review": "a", "stars": 1}, {"review": None, "stars": 1}]),
        "own.parquet, row 2: the column 'review' is emp",
    ),
    "an empty target": (
        ("pairs",),
        table("source\ttarget\na\tb\nc\t\n", "own.tsv"),
        "own.tsv, line 3: the column 'target' is empty",
    ),
    # series
    "text among numbers": (
        SERIES,
        of_times(HOURS[:3] + ["2016-07-01 03:00:00,unknown\n2016-07-01 04:00:00"] + HOURS[5:]),
        "own.csv, line 5: the column 'load' holds 'unknown', which is no number; correct it, or leave a missing value empty.",
    ),
    "an infinite value": (
        ("series", *SERIES[1:3]),
        table("load\n1\ninf\n"),
        "own.csv, line 3: the column 'load' is infinite; correct it",
    ),
    "no column of times": (SERIES, table("load\n1\n"), "own.csv has no column 'date'; type dataset.time=<one of: load>."),
    "a time of an unclear form": (
        SERIES,
        of_times(["07/01/2016", "07/02/2016"]),
        "own.csv, line 2: '07/01/2016' in the column 'date' is no time in ISO 8601; write it like 2016-07-01 12:00.",
    ),
    "a missing time": (SERIES, of_times([*HOURS[:5], ""]), "own.csv, line 7: the column 'date' is empty; write the time"),
    "a time that comes twice": (
        SERIES,
        of_times([*HOURS[:5], *HOURS[4:]]),
        "own.csv, line 7: 2016-07-01 04:00:00 comes twice; keep one row for each time",
    ),
    "times that are not in order": (
        SERIES,
        of_times([*HOURS[:5], HOURS[6], HOURS[5], *HOURS[7:]]),
        "own.csv, line 8: 2016-07-01 05:00:00 comes after 2016-07-01 06:00:00; sort the rows by time, the oldest first.",
    ),
    "missing rows": (
        SERIES,
        of_times([*HOURS[:5], *HOURS[7:10], *HOURS[11:]]),
        "own.csv, line 7: 2016-07-01 07:00:00 comes after 2016-07-01 04:00:00, but most rows are 1:00:00 apart (missing "
        "rows: 2, gaps in all: 2); add the missing rows, with an empty value, or type dataset.resample=1h.",
    ),
    "a missing month": (
        SERIES,
        of_times([f"2016-{month:02}-01" for month in (1, 2, 3, 4, 6, 7, 8, 9, 10, 11, 12)]),
        "own.csv, line 6: 2016-06-01 comes after 2016-04-01, but most rows are 1 month apart (missing rows: 1, gaps in all: 1)",
    ),
    "a missing hour of the last day of a month": (
        SERIES,
        of_times([f"2016-01-31 {hour:02}:00" for hour in (*range(8), *range(9, 14))]),
        "own.csv, line 10: 2016-01-31 09:00 comes after 2016-01-31 07:00, but most rows are 1:00:00 apart (missing rows: 1,",
    ),
    "irregular times": (
        SERIES,
        of_times([*HOURS[:5], "2016-07-01 05:10", *HOURS[6:]]),
        "own.csv, line 7: 2016-07-01 05:10 comes after 2016-07-01 04:00:00, but most rows are 1:00:00 apart (2 rows are "
        "irregular); type dataset.resample=1h for the means over regular intervals.",
    ),
    # several series
    "no column of series": (
        (*SERIES, "dataset.series_id=store"),
        of_times(HOURS),
        "own.csv has no column 'store'; type dataset.series_id=<one of: date, load>.",
    ),
    "a row of no series": (
        SHOPS,
        of_shops([("Oslo", HOURS[0]), ("", HOURS[1])]),
        "own.csv, line 3: the column 'store' is empty; write there which series the row belongs to.",
    ),
    "a time that comes twice in a series": (
        SHOPS,
        of_shops([("Oslo", HOURS[0]), ("Rome", HOURS[0]), ("Rome", HOURS[1]), ("Oslo", HOURS[0])]),
        f"own.csv, line 5: {HOURS[0]} of the series 'Oslo' comes twice; keep one row for each time",
    ),
    "a series that is not in order": (
        SHOPS,
        of_shops([("Oslo", HOURS[0]), ("Rome", HOURS[5]), ("Oslo", HOURS[1]), ("Rome", HOURS[4])]),
        f"own.csv, line 5: {HOURS[4]} of the series 'Rome' comes after {HOURS[5]}; sort the rows by time, the oldest first.",
    ),
    "missing rows of a series": (
        SHOPS,
        of_shops([(store, time) for time in HOURS for store in ("Oslo", "Rome") if (store, time) != ("Rome", HOURS[7])]),
        f"own.csv, line 18: {HOURS[8]} of the series 'Rome' comes after {HOURS[6]}, but most rows are 1:00:00 apart (missing "
        "rows: 1, gaps in all: 1); add the missing rows, with an empty value, or type dataset.resample=1h.",
    ),
    "irregular times of a series": (
        SHOPS,
        of_shops([("Oslo", time) for time in HOURS] + [("Rome", f"2016-07-01 00:{n}") for n in ("00", 15, 30, 40, 45)]),
        "own.csv, line 35: 2016-07-01 00:40 of the series 'Rome' comes after 2016-07-01 00:30, but most rows are 0:15:00 apart "
        "(2 rows are irregular); type dataset.resample=15min for the means over regular intervals.",
    ),
    "times to be resampled that are not in order": (
        (*SERIES, "dataset.resample=1h"),
        of_times([*HOURS[:5], HOURS[6], HOURS[5]]),
        f"own.csv, line 8: {HOURS[5]} comes after {HOURS[6]}; sort the rows by time, the oldest first.",
    ),
    "an interval in two files": (
        (*SERIES, "dataset.resample=1h"),
        lambda folder: (
            [of_times(times, name)(folder) for name, times in (("train.csv", HOURS[:9]), ("test.csv", ["2016-07-01 08:30"]))]
            and "."
        ),
        "test.csv, line 2: 2016-07-01 08:30 is at the same time, or in the same interval, as 2016-07-01 08:00:00 (train.csv, "
        "line 10); leave one of them out.",
    ),
    "files that are not in order of time": (
        SERIES,
        lambda folder: (
            [of_times(times, name)(folder) for name, times in (("train.csv", HOURS[9:]), ("test.csv", HOURS[:9]))] and "."
        ),
        f"test.csv, line 2: {HOURS[0]} comes after {HOURS[-1]}; sort the rows by time, the oldest first.",
    ),
    "a time that makes too many intervals": (
        (*SERIES, "dataset.resample=1min"),
        of_times([*HOURS[:20], "2106-07-01"]),
        "dataset.resample=1min makes 47,334,240 intervals of the 21 rows between 2016-07-01 00:00:00 and 2106-07-01 00:00:00; "
        "type a longer interval, or correct the times.",
    ),
    # arrays
    "several files of arrays": (
        ("arrays",),
        lambda folder: [np.savez(folder / f"{name}.npz", x=IMAGES, y=LABELS) for name in ("train", "test")] and "*.npz",
        "dataset.path=*.npz names 2 files, but dataset=arrays reads one; type its path.",
    ),
    "no file of arrays": (("arrays",), table("abc", "own.npz"), "own.npz is no file of NumPy's savez ("),
    "other arrays": (
        ("arrays",),
        numpy_file(images=IMAGES, labels=LABELS),
        "own.npz has no arrays x and y, or x_train and y_train; type dataset.inputs=… and dataset.targets=… with names from: "
        "images, labels.",
    ),
    "arrays of different lengths": (
        ("arrays",),
        numpy_file(x=IMAGES, y=LABELS[:19]),
        "own.npz: x has 20 examples, but y has 19; correct one.",
    ),
    "objects in arrays": (
        ("arrays",),
        numpy_file(x=IMAGES, y=np.array(["a", None] * 10, object)),
        "own.npz: the array y holds Python objects, which",
    ),
    "vectors of features": (
        ("arrays",),
        numpy_file(x=np.zeros((20, 7)), y=LABELS),
        "own.npz: x holds float64 of shape (20, 7), not images (examples, height, width, channels), and vectors of features "
        "are not supported; supported are images, audio",
    ),
    "masks as targets": (
        ("arrays",),
        numpy_file(x=IMAGES, y=IMAGES),
        "own.npz: y holds uint8 of shape (20, 4, 4), but each image has one label",
    ),
    "images of two sizes": (
        ("arrays",),
        numpy_file(x_train=IMAGES, y_train=LABELS, x_test=IMAGES[:, :3], y_test=LABELS),
        "own.npz: images of the test split are (3, 4, 1), but those of train (4, 4, 1).",
    ),
    # text files
    "a blank text file": (
        ("corpus",),
        table(" \n", "own.txt"),
        "own.txt holds only spaces; write a text there, or leave the file",
    ),
    "too little text": (
        ("corpus",),
        table("a line\n" * 20, "own.txt"),
        "own.txt holds 140 characters, too few to cut validation",
    ),
    "a text file in another encoding": (
        ("corpus",),
        table("a\nè\n", "own.txt", "latin-1"),
        "own.txt, line 2: this is no text in utf-8",
    ),
    # pictures
    "a file for pictures": (
        ("images",),
        table("abc", "own.png"),
        "own.png is a file; dataset=images reads a folder with a folder",
    ),
    "pictures without classes": (
        ("images",),
        flowers(flatten),
        "flowers has no folders; put the pictures of each class into a folder with its name.",
    ),
    "a single class of pictures": (
        ("images",),
        flowers(lambda folder: None, ("roses",)),
        "flowers has only one class, roses; classification needs at least two",
    ),
    "a class without pictures": (
        ("images",),
        flowers(lambda folder: (folder / "tulips").mkdir()),
        "flowers/tulips has no pictures; put files there (.jpg, .jpeg, .png), or remove the folder.",
    ),
    "a class that training lacks": (
        ("images",),
        split_folder("test"),
        "flowers/test has classes that flowers/train has not (tulips); add them there, or remove",
    ),
    "masks beside images": (
        ("images",),
        flowers(lambda folder: None, ("images", "masks")),
        "flowers/masks looks like annotations, but detection and segmentation are not supported; supported are images, audio",
    ),
    "broken pictures": (
        ("images",),
        flowers(lambda folder: [truncate(folder / "roses" / f"{n:02}.png") for n in (4, 7)]),
        "2 of 24 pictures in flowers cannot be read, the first is flowers/roses/04.png (",
    ),
    "a picture that is none": (
        ("images",),
        flowers(lambda folder: (folder / "roses" / "04.png").write_text("abc")),
        "1 of 24 pictures in flowers cannot be read, the first is flowers/roses/04.png (it is no picture); replace them, or "
        "type dataset.skip_broken=true to leave them out.",
    ),
    "a picture of another format": (
        ("images",),
        flowers(lambda folder: Image.new("RGB", (9, 9)).save(folder / "roses" / "04.png", "GIF")),
        "flowers/roses/04.png (its format is GIF, not JPEG or PNG)",
    ),
    "another file among pictures": (
        ("images",),
        flowers(lambda folder: (folder / "roses" / "notes.txt").write_text("abc")),
        "1 of 25 pictures in flowers cannot be read, the first is flowers/roses/notes.txt (its name ends in none of .jpg",
    ),
    # audio clips
    "a file for clips": (("audio",), table("abc", "own.wav"), "own.wav is a file; dataset=audio reads a folder with a folder"),
    "clips without classes": (
        ("audio",),
        words(flatten),
        "words has no folders; put the clips of each class into a folder with its name.",
    ),
    "a class without clips": (
        ("audio",),
        words(lambda folder: (folder / "maybe").mkdir()),
        "words/maybe has no clips; put files there (.wav), or remove the folder.",
    ),
    "clips that end too early": (
        ("audio",),
        words(lambda folder: [truncate(folder / "yes" / f"{n:02}.wav") for n in (4, 7)]),
        "2 of 24 clips in words cannot be read, the first is words/yes/04.wav (it ends too early); replace them, or type "
        "dataset.skip_broken=true to leave them out.",
    ),
    "a clip without a header": (
        ("audio",),
        words(lambda folder: (folder / "yes" / "04.wav").write_text("abc")),
        "words/yes/04.wav (it cannot be read as WAV: File format b'abc' not understood.",
    ),
    "a clip without samples": (
        ("audio",),
        words(lambda folder: wavfile.write(folder / "yes" / "04.wav", 8000, np.empty(0, np.int16))),
        "words/yes/04.wav (it has no samples)",
    ),
    "a clip whose header stops": (
        ("audio",),
        words(lambda folder: (folder / "yes" / "04.wav").write_bytes((folder / "yes" / "05.wav").read_bytes()[:30])),
        "words/yes/04.wav (it is no complete WAV file)",
    ),
    "a compressed clip": (
        ("audio",),
        words(lambda folder: replace_bytes(folder / "yes" / "04.wav", 20, b"\x06\x00")),
        "words/yes/04.wav (it cannot be read as WAV: Unknown wave file format: ALAW. Supported formats: PCM, IEEE_FLOAT)",
    ),
    "a clip with NaN": (
        ("audio",),
        words(lambda folder: wavfile.write(folder / "yes" / "04.wav", 8000, np.full(99, np.nan, np.float32))),
        "words/yes/04.wav (it has samples that are NaN or infinite)",
    ),
    "a clip of another format": (
        ("audio",),
        words(lambda folder: (folder / "yes" / "04.wav").rename(folder / "yes" / "04.flac")),
        "words/yes/04.flac (its name ends in none of .wav)",
    ),
    "clips of several sample rates": (
        ("audio",),
        words(lambda folder: wavfile.write(folder / "no" / "99.wav", 16000, np.ones(99, np.int16))),
        "1 of 25 clips in words do not have a sample rate of 8,000 Hz, the first is words/no/99.wav (16,000 Hz); type "
        "dataset.sample_rate=8000 to resample them.",
    ),
}


def load(settings, kind, path, overrides, folder):
    """The task of a data set that is prepared in a folder."""
    composed = settings(f"model={MODELS.get(kind, 'cnn')}", f"dataset={kind}", f"dataset.path={path}", *overrides)
    dataset = composed.dataset.model_copy(update={"data_dir": str(folder)})
    return factory.create(composed.task, datasets.load(dataset))


@pytest.mark.parametrize("what", BROKEN)
def test_broken_files_are_reported_in_one_sentence_and_leave_nothing_behind(settings, tmp_path, monkeypatch, what):
    (kind, *overrides), write, message = BROKEN[what]
    monkeypatch.chdir(tmp_path)
    path = write(tmp_path)
    with pytest.raises(UserError) as raised:
        load(settings, kind, path, overrides, tmp_path / "prepared")
    datasets.load.cache_clear()
    text = str(raised.value)
    assert message in text
    assert "\n" not in text
    assert text.endswith(".")
    if what in ("only one class", "labels that are all different"):  # which a language model could be trained on
        return
    left = [path for path in (tmp_path / "prepared").rglob("*") if path.name not in ("downloads", "extracted")]
    assert [path.name for path in left] in ([], [f".{kind}.lock"])


def test_every_kind_of_files_is_broken_in_some_way():
    assert {kind for (kind, *_), _, _ in BROKEN.values()} == set(EXTENSIONS)


@pytest.mark.parametrize(
    ("kind", "write", "broken"), [("images", files.pictures, "roses/04.png"), ("audio", files.clips, "yes/04.wav")]
)
def test_broken_files_in_folders_are_left_out_on_request(settings, tmp_path, caplog, kind, write, broken):
    write(tmp_path / "own", count=12)
    truncate(tmp_path / "own" / broken)
    composed = settings("model=cnn", f"dataset={kind}", f"dataset.path={tmp_path / 'own'}", "dataset.skip_broken=true")
    dataset = composed.dataset.model_copy(update={"data_dir": str(tmp_path / "prepared")})
    builder = datasets.prepare(dataset)
    assert builder.info.splits["train"].num_examples == 23
    assert "1 of 24 " in caplog.text
