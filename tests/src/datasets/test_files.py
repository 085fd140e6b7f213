"""The user's own files: each kind is read with the right values, once for each content of the files."""

import datetime
import json
import shutil

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

from src import config, datasets
from src.datasets import lazy
from src.datasets.builders.files import corpus, texts
from src.errors import UserError
from tests import own_data as files

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
        assert lazy.is_lazy(data.train.single) == (storage == "disk")
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
