"""Data as users bring it: each kind either works, with the right values, or is refused in one sentence."""

import logging

import keras
import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds
from keras import layers
from sklearn.datasets import load_digits

from recipes import cnn, lstm
from src import datasets
from src.datasets.examples import Examples, shuffled_rows
from src.errors import UserError
from src.tasks import factory
from src.tasks.baselines import store
from src.training import loop

FEATURES = tfds.features
SERIES = ("model=lstm", "dataset=co2", "model.units=4", "task.window=12", "task.horizon=4", "task.season=12")
IMAGES = ("model=cnn", "dataset=digits", "model.filters=[4,4]")
TEXTS = ("model=cnn", "dataset=docstrings", "task.name=text_classification", "task.length=6")
DIGITS = load_digits()
GRAY, DIGIT = np.rint(DIGITS.images * (255 / 16)).astype(np.uint8)[..., None], DIGITS.target


def messages(caplog):
    """What this project has logged."""
    return [record.getMessage() for record in caplog.records if record.name.startswith("src.")]


def task_of(run_settings):
    return factory.create(run_settings.task, datasets.load(run_settings.dataset))


def fit(run_settings):
    """The task, its model after training, and the last metrics of training."""
    loop.prepare(run_settings)
    task, logged = task_of(run_settings), []
    model = loop.build(run_settings, task, tf.distribute.get_strategy())
    loop.fit(model, run_settings, task, lambda metrics, epoch: logged.append(metrics))
    return task, model, logged[-1]


# --- labels


LABELLED = {"image": FEATURES.Image(shape=(8, 8, 1)), "label": FEATURES.ClassLabel(num_classes=10)}
SPLIT = (
    'dataset.splits.train="train[:60%]"',
    'dataset.splits.validation="train[60%:80%]"',
    'dataset.splits.test="train[80%:]"',
)
OF_TWO = ('dataset.splits.train="train[:80%]"', 'dataset.splits.validation="train[80%:]"', "dataset.splits.test=test")


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([-1] * 20, r"The test split of dataset=made has no labels \(all are -1\); choose another dataset.splits.test"),
        ([1] * 15 + [-1] * 5, r"5 of 20 examples of the test split of dataset=made have no label, the first is row 15"),
    ],
)
def test_labels_that_are_missing_are_no_class(make, labels, message):
    train, test = {"image": GRAY[:100], "label": DIGIT[:100]}, {"image": GRAY[100:120], "label": labels}
    with pytest.raises(UserError, match=message):
        task_of(make(IMAGES, LABELLED, *OF_TWO, train=train, test=test))


def test_language_models_need_no_labels(make):
    texts = {"text": [f"text number {n}" for n in range(40)], "label": [n % 2 for n in range(40)]}
    features = {"text": FEATURES.Text(), "label": FEATURES.ClassLabel(num_classes=2)}
    unlabelled = {"text": ["another text"], "label": [-1]}
    gpt = ("model=gpt", "dataset=docstrings", "task.tokenizer=bytes", "task.context=8")
    assert len(task_of(make(gpt, features, *OF_TWO, train=texts, test=unlabelled)).test)


def test_classes_that_a_split_lacks_are_named(make, caplog):
    order = np.argsort(DIGIT[:200], kind="stable")
    with caplog.at_level(logging.WARNING):
        task_of(make(IMAGES, LABELLED, *SPLIT, train={"image": GRAY[order], "label": DIGIT[order]}))
    train, validation, test = messages(caplog)
    assert train == (
        "The train split of dataset=made has no example of 4 of the 10 classes (6, 7, 8, 9); if the examples are sorted by "
        "class, type dataset.shuffle=stratified."
    )
    assert "8 of the 10 classes (0, 1, 2, 3, 4 and 3 more)" in validation
    assert "test split" in test


def test_a_stratified_split_has_all_classes_in_proportion(make, caplog):
    order = np.argsort(DIGIT[:200], kind="stable")
    columns = {"image": GRAY[order], "label": DIGIT[order]}
    with caplog.at_level(logging.WARNING):
        task = task_of(make(IMAGES, LABELLED, *SPLIT, "dataset.shuffle=stratified", train=columns))
    assert not messages(caplog)
    whole = np.bincount(DIGIT[:200], minlength=10) / 200
    for split in (task.train, task.validation, task.test):
        np.testing.assert_allclose(np.bincount(split.targets, minlength=10), len(split) * whole, atol=1)
    images = np.concatenate([split.raw for split in (task.train, task.validation, task.test)])
    assert sorted(image.tobytes() for image in images) == sorted(image.tobytes() for image in GRAY[:200])  # each one once
    assert all(
        (image == GRAY[:200]).all(axis=(1, 2, 3))[DIGIT[:200] == label].any()
        for image, label in zip(task.test.raw, task.test.targets)
    )


def test_splits_of_a_builder_are_read_once_and_shuffled_before_they_are_sliced(make, monkeypatch):
    splits = {"train": "test[:20%]+train[:60%]", "validation": "train[60%:80%]", "test": "train[80%:]+test[20%:]"}
    labels, names, read = {"train": DIGIT[:100], "test": DIGIT[100:150]}, [], Examples._read_range

    def count(examples, base, start, stop):
        names.append(base)
        return read(examples, base, start, stop)

    monkeypatch.setattr(Examples, "_read_range", count)
    columns = {
        "train": {"image": GRAY[:100], "label": labels["train"]},
        "test": {"image": GRAY[100:150], "label": labels["test"]},
    }
    expressions = [f'dataset.splits.{name}="{expression}"' for name, expression in splits.items()]
    data = datasets.load(make(IMAGES, LABELLED, *expressions, "dataset.shuffle=random", **columns).dataset)
    assert sorted(names) == ["test", "train"]
    train, test = (labels[name][shuffled_rows(labels[name], stratify=False)] for name in ("train", "test"))
    np.testing.assert_array_equal(data.train.targets, [*test[:10], *train[:60]])
    np.testing.assert_array_equal(data.validation.targets, train[60:80])
    np.testing.assert_array_equal(data.test.targets, [*train[80:], *test[10:]])


@pytest.mark.parametrize("stratify", [False, True])
def test_a_shuffled_order_is_that_of_every_run_and_random(stratify):
    targets = np.repeat([0, 1, 2], [60, 30, 10])
    order = shuffled_rows(targets, stratify)
    np.testing.assert_array_equal(order, shuffled_rows(targets, stratify))
    np.testing.assert_array_equal(np.sort(order), np.arange(100))
    assert (np.diff(order[targets[order] == 0]) < 0).any()  # within a class too
    if stratify:
        assert [np.bincount(targets[rows], minlength=3).tolist() for rows in np.split(order, 10)] == [[6, 3, 1]] * 10


def test_texts_cannot_be_stratified(make):
    columns = {"de": [f"eins {n}" for n in range(20)], "en": [f"one {n}" for n in range(20)]}
    features = {"de": FEATURES.Text(), "en": FEATURES.Text()}
    line = ("model=transformer", "dataset=multi30k")
    with pytest.raises(UserError, match=r"dataset.shuffle=stratified needs class labels as targets"):
        task_of(make(line, features, *SPLIT, "dataset.shuffle=stratified", train=columns))


@pytest.mark.parametrize(
    ("feature", "labels", "classes"),
    [
        (FEATURES.Text(), ["pear", "apple", "fig"], ("apple", "fig", "pear")),
        (np.int64, [5, 1, -3], ("-3", "1", "5")),
        (np.bool_, [True, False, True], ("False", "True")),
    ],
    ids=["texts", "integers", "booleans"],
)
def test_labels_of_every_type_are_classes(make, feature, labels, classes):
    columns = {"text": [f"a text {n}" for n in range(60)], "label": [labels[n % 3] for n in range(60)]}
    task = task_of(make(TEXTS, {"text": FEATURES.Text(), "label": feature}, *SPLIT, train=columns))
    assert task.classes == classes
    assert [task.classes[index] for index in task.test.targets] == [str(label) for label in columns["label"][48:]]


def test_a_label_that_training_lacks_is_named(make):
    features = {"text": FEATURES.Text(), "label": FEATURES.Text()}
    train, test = {"text": ["a"] * 30, "label": ["x", "y", "z"] * 10}, {"text": ["a", "b"], "label": ["x", "w"]}
    with pytest.raises(UserError, match=r"The test split of dataset=made has labels that the training split has not \(w\)"):
        task_of(make(TEXTS, features, *OF_TWO, train=train, test=test))


@pytest.mark.parametrize(
    ("feature", "values", "what"),
    [
        (np.float32, np.arange(20) / 2, "numbers of type float32"),
        (np.int64, np.arange(20), "numbers of type int64 that are all"),
    ],
)
def test_targets_that_are_no_labels_are_refused_with_the_reason(make, feature, values, what):
    columns = {"text": [f"text {n}" for n in range(20)], "label": list(values)}
    with pytest.raises(UserError, match=f"needs class labels, but the targets are {what}"):
        task_of(make(TEXTS, {"text": FEATURES.Text(), "label": feature}, *SPLIT, train=columns))


# --- splits


@pytest.mark.parametrize(
    ("slices", "message"),
    [
        (
            ("train", "train[80%:]", "train[:20%]"),
            r"train and dataset.splits.validation have 20 rows in common, train\[80:100\]",
        ),
        (
            ("train[:50%]", "train[50%:]", "train[45%:55%]"),
            r"train and dataset.splits.test have 5 rows in common, train\[45:50\]",
        ),
    ],
)
def test_slices_that_overlap_are_refused(make, slices, message):
    splits = [f'dataset.splits.{name}="{slice}"' for name, slice in zip(("train", "validation", "test"), slices)]
    run_settings = make(IMAGES, LABELLED, *splits, train={"image": GRAY[:100], "label": DIGIT[:100]})
    with pytest.raises(UserError, match=message):
        datasets.load(run_settings.dataset)
    allowed = run_settings.dataset.model_copy(update={"allow_overlap": True})  # by debug=overfit
    assert len(datasets.load(allowed).train) in (50, 100)


def test_identical_examples_in_two_splits_are_counted(make, caplog):
    train, test = {"image": GRAY[:100], "label": DIGIT[:100]}, {"image": GRAY[[5, 90, 200, 201, 7]], "label": [0] * 5}
    with caplog.at_level(logging.WARNING):
        datasets.load(make(IMAGES, LABELLED, *OF_TWO, train=train, test=test).dataset)
    assert messages(caplog) == [
        "2 of 5 inputs of the test split of dataset=made are also in the train split.",
        "1 of 5 inputs of the test split of dataset=made are also in the validation split.",
    ]


# --- series


def sine(steps=240):
    return 5 * np.sin(np.arange(steps) * 2 * np.pi / 12)


def noisy(scale, steps=240):
    return sine(steps) + scale * np.random.default_rng(0).normal(size=steps)


def test_a_builder_that_shuffles_has_no_series(make):
    run_settings = make(SERIES, {"value": np.float32}, *SPLIT, ordered=False, train={"value": sine()})
    with pytest.raises(UserError, match=r"does not keep the order of its examples, so they are no series; pass disable_shuff"):
        task_of(run_settings)


@pytest.mark.parametrize(
    "slices", [("train[60%:]", "train[30%:60%]", "train[:30%]"), ("train[:40%]", "train[60%:80%]", "train[80%:]")]
)
def test_splits_of_a_series_follow_each_other(make, slices):
    splits = [f'dataset.splits.{name}="{slice}"' for name, slice in zip(("train", "validation", "test"), slices)]
    with pytest.raises(UserError, match=r"dataset.splits.validation does not start where dataset.splits.train ends"):
        task_of(make(SERIES, {"value": np.float32}, *splits, train={"value": sine()}))


def test_all_splits_of_a_series_can_be_the_training_set(make):
    task = task_of(make(SERIES, {"value": np.float32}, "debug=overfit", SPLIT[0], train={"value": sine()}))
    np.testing.assert_array_equal(task.test.array, task.train.array)


def test_another_feature_than_the_inputs_is_not_forecast_silently(make):
    columns = {"value": sine(), "other": sine() + 1}
    with pytest.raises(UserError, match=r"add 'other' to dataset.inputs, as in dataset.inputs=\[value,other\]"):
        task_of(make(SERIES, {"value": np.float32, "other": np.float32}, *SPLIT, "dataset.targets=other", train=columns))


HOURLY = [str(time) for time in np.datetime64("2026-01-30T00:00") + np.arange(200).astype("timedelta64[h]")]


def test_some_variables_are_forecast_from_all(make):
    """`late` is `early` of eight steps ago, so that its next four steps are in the window of `early`."""
    draw = np.random.default_rng(0).normal(size=208).astype(np.float32)
    columns = {"early": draw[8:], "late": draw[:-8], "never": np.ones(200, np.float64)}
    features = {"early": np.float32, "late": np.float32, "never": np.float64}
    variables = ("dataset.inputs=[early,late,never]", "dataset.targets=[late]")
    task, model, _ = fit(make(SERIES, features, *SPLIT, *variables, "training.epochs=1", train=columns))
    np.testing.assert_array_equal(task.train.inputs[5], np.stack([columns[name][5:17] for name in features], axis=1))
    np.testing.assert_array_equal(task.train.targets[5], columns["late"][17:21, None])
    assert task.predict(model, task.test, 8).shape == task.test.targets.shape
    measured = store.compute(task).metrics
    assert measured["ridge"]["mae"] < 0.05 < 0.5 < measured["autoregression"]["mae"]
    assert not any(task.constant)


@pytest.mark.parametrize("center", ["last", "mean", "train"])
def test_an_untrained_network_forecasts_the_center_of_the_targets(make, center):
    columns = {"one": sine(), "two": 100 + sine()}
    run_settings = make(
        SERIES, {"one": np.float32, "two": np.float32}, *SPLIT, "dataset.inputs=[one,two]", "dataset.targets=[two]",
        f"task.center={center}", train=columns,
    )  # fmt: skip
    task = task_of(run_settings)
    zeros = layers.Dense(4, use_bias=False, kernel_initializer="zeros")
    model = task.wrap(keras.Sequential([keras.Input((12, 2)), layers.Flatten(), zeros, layers.Reshape((4, 1))]))
    windows = task.test.inputs[..., 1]
    expected = {"last": windows[:, -1], "mean": windows.mean(axis=1), "train": np.full(len(windows), task.mean[1])}[center]
    np.testing.assert_allclose(task.predict(model, task.test, 8), np.tile(expected[:, None, None], (1, 4, 1)), rtol=1e-6)


def test_the_calendar_shows_the_steps_of_the_forecast(make):
    """A series that is the hour of the day, and the day of the week."""
    times = pd.to_datetime(HOURLY)
    columns = {"time": HOURLY, "value": times.hour.astype(np.float32) + 100 * times.day_of_week}
    line = ("dataset.time=time", "task.calendar=[hour,weekday,day,month]")
    run_settings = make(
        SERIES, {"time": FEATURES.Text(), "value": np.float32}, *SPLIT, *line, "training.epochs=1", train=columns
    )
    task, model, _ = fit(run_settings)
    for split in (task.train, task.test):
        hour, weekday = np.moveaxis(split.inputs[:, -4:, 1:3], 2, 0) + 0.5
        later = 23 * hour + 600 * weekday
        np.testing.assert_allclose(later, split.targets[..., 0], atol=1e-3)
    first = task.train.inputs[0]
    np.testing.assert_allclose(first[:, 3] + 0.5, [29 / 30] * 12)  # January 30, from 4 to 15 o'clock
    np.testing.assert_allclose(first[:, 4] + 0.5, 0)
    assert task.predict(model, task.test, 8).shape == (len(task.test), 4, 1)


def test_times_with_offsets_are_those_of_utc(make):
    local = [str(time) + "+02:00" for time in pd.to_datetime(HOURLY)]
    columns = {"time": local, "value": sine(len(local))}
    made = make(SERIES, {"time": FEATURES.Text(), "value": np.float32}, *SPLIT, "dataset.time=time", train=columns)
    times = datasets.load(made.dataset).times["train"]
    np.testing.assert_array_equal(times[:3], np.array(HOURLY[:3], "datetime64[ns]") - np.timedelta64(2, "h"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda times: times[:5] + [times[4]] + times[6:], r"Row 5 of the train split .* 2026-01-30T04:00, and the row before"),
        (lambda times: times[1:] + times[:1], r"Row 39 of the test split"),
        (lambda times: ["soon"] + times[1:], r"dataset.time=time holds no times in ISO 8601"),
    ],
)  # fmt: skip
def test_times_are_checked(make, change, message):
    columns = {"time": change(HOURLY), "value": sine()}
    with pytest.raises(UserError, match=message):
        task_of(make(SERIES, {"time": FEATURES.Text(), "value": np.float32}, *SPLIT, "dataset.time=time", train=columns))


def test_a_calendar_needs_times(make):
    run_settings = make(SERIES, {"value": np.float32}, *SPLIT, "task.calendar=[hour]", train={"value": sine()})
    with pytest.raises(UserError, match=r"task.calendar needs the time of each step of dataset=made; type dataset.time="):
        task_of(run_settings)
    with pytest.raises(UserError, match=r"made has no feature 'hour'; it has: value"):
        datasets.load(run_settings.dataset.model_copy(update={"time": "hour"}))


def test_missing_values_are_said_and_count_nowhere(make, caplog):
    """White noise with most values missing cannot be forecast: no error may be below that of the mean."""
    draw = np.random.default_rng(0)
    series = draw.normal(size=2000).astype(np.float32)
    complete = series.copy()
    series[draw.random(2000) < 0.8] = np.nan
    with caplog.at_level(logging.INFO):
        task, model, logged = fit(make(SERIES, {"value": np.float32}, *SPLIT, "training.epochs=1", train={"value": series}))
    assert "80.7 % of the values of the train split are missing" in caplog.text
    predictions = np.random.default_rng(1).normal(size=task.test.targets.shape)
    observed = ~np.isnan(task.test.targets)
    errors = predictions[observed] - task.test.targets[observed]
    result = task.metrics(task.test, predictions)
    assert result["mae"] == pytest.approx(np.abs(errors).mean(), rel=1e-6)
    assert result["rmse"] == pytest.approx(np.sqrt(np.square(errors).mean()), rel=1e-6)
    assert result["standardized_mae"] == pytest.approx(np.abs(errors).mean() / np.nanstd(series[:1200]), rel=1e-5)
    wild = np.where(observed, predictions, 1e9)
    assert task.metrics(task.test, wild) == result
    known = series[1600:][~np.isnan(series[1600:])]
    floor = np.abs(known - np.median(known)).mean()
    assert all(metrics["mae"] > 0.9 * floor for metrics in store.compute(task).metrics.values())
    assert task.metrics(task.test, task.predict(model, task.test, 64))["mae"] > 0.9 * floor
    assert np.isfinite([logged["epoch/train/loss"], logged["epoch/val/loss"], logged["epoch/val/mae"]]).all()
    assert logged["epoch/val/mae"] == pytest.approx(
        task.metrics(task.validation, task.predict(model, task.validation, 64))["mae"], rel=1e-4
    )
    assert np.abs(complete).max() < 5  # nothing that was filled in is far away
    assert np.abs(task.train.inputs).max() <= np.abs(complete).max()


DOUBLE = FEATURES.Tensor(shape=(), dtype=np.float64, encoding="bytes")


def test_float64_is_stored_as_such(settings, tmp_path, monkeypatch):
    """By default TFDS stores it as float32, in which these numbers are all the same."""
    series = 1e9 + np.arange(8) / 4

    class Meter(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        VERSION = tfds.core.Version("1.0.0")

        def _info(self):
            return tfds.core.DatasetInfo(
                builder=self, features=FEATURES.FeaturesDict({"value": np.float64}), disable_shuffling=True
            )

        def _split_generators(self, dl_manager):
            return {"train": self._generate_examples()}

        def _generate_examples(self):
            yield from enumerate({"value": value} for value in series)

    monkeypatch.setattr(tfds, "builder", lambda name, **_: Meter(data_dir=tmp_path))
    dataset = settings(*SERIES, *SPLIT, "dataset.builder=meter").dataset
    for _ in ("prepared", "read again"):
        datasets.load.cache_clear()
        data = datasets.load(dataset)
        np.testing.assert_array_equal(np.concatenate([split.array for split in data.splits.values()]), series)


def test_a_large_offset_costs_no_digit(make):
    offset = noisy(0.1) + 1e9
    one = make(SERIES, {"value": DOUBLE}, *SPLIT, "training.epochs=3", train={"value": offset})
    task, model, logged = fit(one)
    baselines = store.compute(task).metrics
    plain = factory.create(one.task, _without_offset(datasets.load(one.dataset), 1e9))
    for name, metrics in store.compute(plain).metrics.items():
        tolerance = 0.05 if name in ("exponential_smoothing", "theta") else 1e-4  # an optimizer fits these
        assert baselines[name] == pytest.approx(metrics, rel=tolerance, abs=1e-6), name
    predictions = task.predict(model, task.test, 64)
    assert predictions.dtype == np.float64
    result = task.metrics(task.test, predictions)
    assert 0.05 < result["mae"] < 4
    assert np.isfinite(list(result.values())).all()
    assert logged["epoch/val/mae"] == pytest.approx(
        task.metrics(task.validation, task.predict(model, task.validation, 64))["mae"], rel=1e-4
    )
    (forecast, _) = task.serving(model).functions["serving_default"]
    served = forecast(tf.constant(task.test.raw[:3]))["forecast"].numpy()
    np.testing.assert_allclose(served - 1e9, predictions[:3] - 1e9, rtol=1e-4)


@pytest.mark.parametrize("center", ["mean", "train"])
def test_every_center_of_a_large_offset_is_exact(make, center):
    task = task_of(make(SERIES, {"value": DOUBLE}, *SPLIT, f"task.center={center}", train={"value": noisy(0.1) + 1e9}))
    model = task.build_model(lstm.build, {"units": 2})
    for weight in model.get_layer("lstm").get_layer("steps_ahead").weights:
        weight.assign(keras.ops.zeros_like(weight))  # then the forecast is the center
    of_window = task.test.raw - 1e9 if center == "mean" else task.train.raw - 1e9
    expected = of_window[:3].mean(axis=1, keepdims=True) if center == "mean" else of_window.mean()
    forecast = model(tf.constant(task.test.raw[:3])).numpy() - 1e9  # `predict` converts arrays to float32
    np.testing.assert_allclose(forecast, np.broadcast_to(expected, forecast.shape), atol=1e-5)


def _without_offset(data, offset):
    return data.convert(lambda name, split: datasets.Split(split.array - offset, split.targets - offset))


@pytest.mark.parametrize("center", ["last", "mean", "train"])
def test_a_constant_feature_is_scaled_by_1_and_left_out_of_scaled_errors(make, caplog, center):
    moving = noisy(0.5)
    values = np.stack([moving, np.full(240, 371.3), moving[::-1]], axis=1).astype(np.float32)
    features = {"value": FEATURES.Tensor(shape=(3,), dtype=np.float32)}
    with caplog.at_level(logging.WARNING):
        task = task_of(make(SERIES, features, *SPLIT, f"task.center={center}", train={"value": values}))
    assert "Of the 3 targets of the series these keep one value in the training split: 1 (counted from 0)" in caplog.text
    assert task.scale[1] == 1
    predictions = task.test.targets + np.array([0.5, 1.0, 0.5])
    result = task.metrics(task.test, predictions)
    assert result["mae"] == pytest.approx((0.5 + 1.0 + 0.5) / 3)
    train = values[:144, [0, 2]].astype(np.float64)
    assert result["mase"] == pytest.approx((0.5 / np.abs(train[12:] - train[:-12]).mean(axis=0)).mean(), rel=1e-5)
    assert result["standardized_mae"] == pytest.approx((0.5 / train.std(axis=0)).mean(), rel=1e-5)
    loss = keras.ops.convert_to_numpy(task.loss()(task.test.targets, predictions))
    assert loss == pytest.approx(np.square(np.array([0.5, 1.0, 0.5]) / task.scale).mean(), rel=1e-5)
    assert np.isfinite([value for metrics in store.compute(task).metrics.values() for value in metrics.values()]).all()


def test_a_series_that_never_moves_is_refused(make):
    with pytest.raises(UserError, match="keeps one value, so there is nothing to learn"):
        task_of(make(SERIES, {"value": np.float32}, *SPLIT, train={"value": np.ones(240)}))


def test_an_infinite_value_is_found_with_its_row(make):
    series = sine()
    series[150] = np.inf
    with pytest.raises(UserError, match=r"Row 6 of the validation split of dataset=made \(counted from 0\) holds an infinite"):
        task_of(make(SERIES, {"value": np.float32}, *SPLIT, train={"value": series}))


@pytest.mark.parametrize("dtype", [np.int64, np.uint8, np.int16], ids=lambda dtype: dtype.__name__)
def test_whole_numbers_are_a_series(make, dtype):
    counts = np.rint(50 + 4 * noisy(0.3)).astype(dtype)
    line = make(SERIES, {"value": dtype}, *SPLIT, train={"value": counts})
    task = task_of(line)
    same = factory.create(
        line.task,
        datasets.load(line.dataset).convert(lambda name, split: datasets.Split(*[split.array.astype(np.float32)] * 2)),
    )
    own = store.compute(task).metrics
    for name, metrics in store.compute(same).metrics.items():
        assert own[name] == pytest.approx(metrics, rel=1e-3, abs=1e-6), name


# --- images


def images_of(make, images, feature):
    features = {"image": feature, "label": FEATURES.ClassLabel(num_classes=10)}
    return make(IMAGES, features, *SPLIT, train={"image": images[:150], "label": DIGIT[:150]})


@pytest.mark.parametrize(
    ("images", "feature"),
    [
        (GRAY.astype(np.uint16) * 257, FEATURES.Image(shape=(8, 8, 1), dtype=np.uint16, encoding_format="png")),
        (GRAY / np.float32(255), FEATURES.Tensor(shape=(8, 8, 1), dtype=np.float32)),
        (GRAY / 51.0 - 2, FEATURES.Tensor(shape=(8, 8, 1), dtype=np.float64)),
        (GRAY.astype(np.int32) - 1000, FEATURES.Tensor(shape=(8, 8, 1), dtype=np.int32)),
    ],
    ids=["16 bits", "0 to 1", "standardized", "negative"],
)
def test_images_of_every_type_reach_the_network_as_0_to_1(make, images, feature):
    line = images_of(make, images, feature)
    task = task_of(line)
    model = task.build_model(cnn.build, {"filters": [4]})
    scaled = keras.Model(model.input, model.get_layer("scale").output).predict(task.test.raw, verbose=0)
    np.testing.assert_allclose(scaled, GRAY[120:150] / 255, atol=1e-6)
    bytes_alone = factory.create(line.task, datasets.load(line.dataset).convert(_as_bytes))
    for name, predict in bytes_alone.learned_baselines().items():
        if name != "gradient_boosting":  # slow, and on the same pixels
            np.testing.assert_allclose(task.learned_baselines()[name]().values, predict().values, atol=1e-2)


def _as_bytes(name, split):
    start, stop = {"train": (0, 90), "validation": (90, 120), "test": (120, 150)}[name]
    return datasets.Split(GRAY[start:stop], split.targets)


def test_two_channels_are_drawn_one_beside_the_other(make, tmp_path):
    images = np.concatenate([GRAY, 255 - GRAY], axis=-1)
    task = task_of(images_of(make, images, FEATURES.Tensor(shape=(8, 8, 2), dtype=np.uint8)))
    wrong = np.zeros((len(task.test), 10)) + np.eye(10)[(task.test.targets + 1) % 10]
    figure = task.figures(task.build_model(cnn.build, {"filters": [4]}), wrong)["worst_mistakes.png"]
    figure.savefig(tmp_path / "figure.png")
    shown = figure.axes[0].get_images()[0].get_array()
    assert shown.shape == (8, 16)
    np.testing.assert_allclose(shown[:, :8] + shown[:, 8:], 1, atol=1e-6)


def test_pixels_that_are_nan_are_found_with_their_row(make):
    images = GRAY / np.float32(255)
    images[130, 2, 2] = np.nan
    with pytest.raises(
        UserError, match=r"Row 10 of the test split of dataset=made \(counted from 0\) holds pixels that are NaN"
    ):
        task_of(images_of(make, images, FEATURES.Tensor(shape=(8, 8, 1), dtype=np.float32)))


# --- texts


def latin(count=60):
    return {"text": [f"très bon film n° {n}".encode("latin-1") for n in range(count)], "label": [n % 2 for n in range(count)]}


BYTES = {"text": FEATURES.Tensor(shape=(), dtype=np.object_), "label": FEATURES.ClassLabel(names=["no", "yes"])}


def test_texts_of_another_encoding_are_found_with_their_row(make):
    columns = latin()
    columns["text"][:37] = [b"plain"] * 37
    message = (
        r"Row 1 of the validation split of dataset=made \(counted from 0\) is no text in utf-8 \(byte 0xe8 at position 2\)"
    )
    with pytest.raises(UserError, match=message):
        task_of(make(TEXTS, BYTES, *SPLIT, train=columns | {"text": [b"plain"] * 37 + columns["text"][37:]}))


def test_texts_are_decoded_as_named(make):
    task = task_of(make(TEXTS, BYTES, *SPLIT, "dataset.encoding=latin-1", train=latin()))
    assert task.test.raw[0].decode() == "très bon film n° 48"


def test_an_encoding_that_python_has_not_is_refused(settings):
    with pytest.raises(UserError, match=r"dataset.encoding=utf8x is no text encoding that Python has; type for example utf-8"):
        settings(*TEXTS, "dataset.encoding=utf8x")
