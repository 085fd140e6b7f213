"""Several series in one file, and irregular times: against pandas."""

import datetime

import numpy as np
import pandas as pd
import pytest
import tensorflow_datasets as tfds

from src import datasets
from src.config import files as config_files
from src.errors import UserError
from tests import own_data as files

SHOPS = ("dataset.time=date", "dataset.series_id=store", "dataset.targets=sales")
LOAD = ("dataset.time=date", "dataset.targets=load")


def parts_of(count):
    """The rows of a series in each split: the last tenth is the test set, the one before the validation set."""
    ends = [round(count * percent / 100) for percent in (80, 90)]
    return {"train": slice(0, ends[0]), "validation": slice(*ends), "test": slice(ends[1], count)}


def check(data, frame, series, time, columns):
    """Each split holds the part of each series, one series after the other, with its times.

    Args:
        data: the data set.
        frame: pandas' table of what is expected.
        series: its column, or columns, that say which series a row is of.
        time: its column of times.
        columns: those of the values.
    """
    groups = [group for _, group in frame.groupby(series, sort=False)]
    for split in data.splits:
        expected = [group.iloc[parts_of(len(group))[split]] for group in groups]
        np.testing.assert_array_equal(data.splits[split].array, np.squeeze(pd.concat(expected)[columns].to_numpy()))
        np.testing.assert_array_equal(data.times[split], pd.concat(expected)[time].to_numpy())
        assert list(data.series_lengths[split].values()) == [len(each) for each in expected]


def test_rows_of_several_series_are_sorted_and_each_series_is_split_by_itself(read, tmp_path):
    rows = files.shops({"Oslo": 50, "Rome": 77, "Bari": 40})
    files.write_csv(tmp_path / "shops.csv", rows)
    data = read("series", tmp_path / "shops.csv", *SHOPS)
    assert list(data.series_lengths["test"]) == ["Oslo", "Rome", "Bari"]
    check(data, pd.DataFrame(rows), "store", "date", ["sales"])


def test_several_columns_may_say_which_series_a_row_is_of(read, tmp_path):
    rows = files.shops(dict.fromkeys(["Oslo", "Rome", "Bari"], 40))
    rows = [row | {"item": item, "sales": row["sales"] + item} for item in (7, 8) for row in rows]
    frame = pd.DataFrame(rows)
    frame.to_parquet(tmp_path / "shops.parquet")
    data = read("series", tmp_path / "shops.parquet", *SHOPS, "dataset.series_id=[store,item]")
    assert list(data.series_lengths["train"]) == ["Oslo, 7", "Rome, 7", "Bari, 7", "Oslo, 8", "Rome, 8", "Bari, 8"]
    check(data, frame, ["store", "item"], "date", ["sales"])


def test_slices_are_those_of_each_series(read, tmp_path):
    rows = files.shops({"Oslo": 50, "Rome": 77})
    files.write_csv(tmp_path / "shops.csv", rows)
    slices = ("train[:20]", "train[20:-10]", "train[-10:]")
    typed = [f'dataset.splits.{name}="{slice}"' for name, slice in zip(("train", "validation", "test"), slices)]
    data = read("series", tmp_path / "shops.csv", *SHOPS, *typed)
    assert data.series_lengths == {
        "train": {"Oslo": 20, "Rome": 20}, "validation": {"Oslo": 20, "Rome": 47}, "test": {"Oslo": 10, "Rome": 10}
    }  # fmt: skip
    with pytest.raises(UserError, match=r"has no 'train\[:60\]' of the series 'Oslo' \(Requested slice \[:60\] incompatible"):
        read("series", tmp_path / "shops.csv", *SHOPS, 'dataset.splits.train="train[:60]"')


def test_files_have_the_splits_of_all_series(read, tmp_path):
    rows, folder = files.shops({"Oslo": 60, "Rome": 60}), tmp_path / "shops"
    folder.mkdir()
    for name, part in (("train", rows[:80]), ("validation", rows[80:99]), ("test", rows[99:])):
        files.write_csv(folder / f"{name}.csv", part)
    data = read("series", folder, *SHOPS)
    assert data.series_lengths == {
        "train": {"Oslo": 40, "Rome": 40}, "validation": {"Oslo": 10, "Rome": 9}, "test": {"Rome": 11, "Oslo": 10}
    }  # fmt: skip
    by_store = [row["sales"] for name in ("Rome", "Oslo") for row in rows[99:] if row["store"] == name]
    assert data.test.array.tolist() == by_store


def test_a_builder_yields_one_series_after_the_other(make):
    columns = {"store": ["a"] * 20 + ["b"] * 20, "value": np.arange(40.0)}
    features = {"store": tfds.features.Text(), "value": np.float32}
    splits = ('dataset.splits.train="train[:60%]"', 'dataset.splits.validation="train[60%:80%]"')
    line = ("model=lstm", "dataset=co2"), features, *splits, 'dataset.splits.test="train[80%:]"', "dataset.series_id=store"
    data = datasets.load(make(*line, train=columns).dataset)
    assert data.test.array.tolist() == [16, 17, 18, 19, 36, 37, 38, 39]


def test_a_builder_that_mixes_series_is_refused(make):
    columns = {"store": ["a", "b"] * 20, "value": np.arange(40.0)}
    features = {"store": tfds.features.Text(), "value": np.float32}
    settings = make(("model=lstm", "dataset=co2"), features, "dataset.series_id=store", train=columns)
    with pytest.raises(UserError, match=r"The rows of the series 'a' in the train split of made do not follow each other; let"):
        datasets.load(settings.dataset)


# --- resampling


def irregular(count=2000, seed=0):
    """Rows at random times, of which some are equal, with a gap of a day and with missing values."""
    draw = np.random.default_rng(seed)
    seconds = np.sort(draw.integers(0, 40 * 24 * 3600, count))
    seconds[count // 2 :] += 36 * 3600
    times = datetime.datetime(2016, 7, 1) + pd.to_timedelta(seconds, "s")
    values = np.where(draw.random(count) < 0.1, np.nan, draw.normal(size=count))
    return pd.DataFrame({"date": times, "load": values})


@pytest.mark.parametrize("frequency", ["1h", "90min", "1D", "7h"])
def test_irregular_times_are_resampled_as_pandas_does(read, tmp_path, frequency):
    frame = irregular()
    frame.to_csv(tmp_path / "load.csv", index=False)
    data = read("series", tmp_path / "load.csv", *LOAD, f"dataset.resample={frequency}")
    expected = frame.set_index("date")["load"].resample(frequency, origin="epoch").mean()
    np.testing.assert_array_equal(np.concatenate([split.array for split in data.splits.values()]), expected)
    np.testing.assert_array_equal(np.concatenate(list(data.times.values())), expected.index.to_numpy())
    if frequency == "1h":
        assert expected.isna().sum() > 24  # those of the gap, too


def test_months_of_different_lengths_are_intervals(read, tmp_path):
    frame = pd.DataFrame({"date": pd.date_range("2001-01-01", periods=1200, freq="D"), "load": np.arange(1200.0)})
    frame.to_csv(tmp_path / "load.csv", index=False)
    data = read("series", tmp_path / "load.csv", *LOAD, "dataset.resample=MS")
    expected = frame.groupby(frame["date"].dt.to_period("M"))["load"].mean()
    np.testing.assert_allclose(np.concatenate([split.array for split in data.splits.values()]), expected)


def test_each_series_is_resampled_by_itself(read, tmp_path):
    frame = pd.concat([irregular(800, seed).assign(store=store) for seed, store in enumerate(("Oslo", "Rome"))])
    frame.sort_values("date").rename(columns={"load": "sales"}).to_csv(tmp_path / "shops.csv", index=False)
    data = read("series", tmp_path / "shops.csv", *SHOPS, "dataset.resample=6h")
    first = frame.sort_values("date")["store"].iloc[0]
    expected = []
    for store in sorted(("Oslo", "Rome"), key=lambda store: store != first):
        means = frame[frame["store"] == store].set_index("date")["load"].resample("6h").mean()
        expected.append(means.reset_index().assign(store=store))
    check(data, pd.concat(expected), "store", "date", ["load"])


def test_series_that_are_read_in_other_ways_are_other_data(own_data, settings, monkeypatch):
    def digest(*words):
        line = ("model=lstm", "dataset=series", f"dataset.path={own_data / files.PATHS['series']}", *LOAD)
        return config_files.digest_of(settings(*line, *words).dataset)

    plain = digest()
    assert len({plain, digest("dataset.resample=1h"), digest("dataset.resample=2h"), digest("dataset.series_id=store")}) == 4
    monkeypatch.setattr(config_files, "ALSO_READING", ())  # as in earlier versions, whose prepared data is still found
    assert digest() == plain
