"""The project's own data sets hold all data of the packages that they are made from."""

import datetime
import inspect
import math
import re

import numpy as np
import pytest
import sklearn
import statsmodels
import statsmodels.api as sm
import tensorflow_datasets as tfds
from sklearn.datasets import load_digits

from src.datasets.builders import dates, docstrings, dtmf, sst2_by_sentence


@pytest.fixture
def examples(load):
    def read(name):
        load(name)  # prepares it
        return list(tfds.as_numpy(tfds.load(name, split="train")))

    return read


def test_digits_holds_every_image_of_scikit_learn(examples):
    made = sorted((example["image"].tobytes(), int(example["label"])) for example in examples("digits"))
    raw = load_digits()
    expected = [(np.rint(i * 255 / 16).astype(np.uint8).tobytes(), int(label)) for i, label in zip(raw.images, raw.target)]
    assert made == sorted(expected)
    assert tfds.builder("digits").info.metadata["scikit-learn"] == sklearn.__version__


def test_series_hold_every_value_in_order(examples):
    co2 = sm.datasets.co2.load_pandas().data["co2"]
    np.testing.assert_array_equal([example["value"] for example in examples("co2")], co2.to_numpy(np.float32))
    assert [example["time"].decode() for example in examples("co2")] == [f"{day:%Y-%m-%d}" for day in co2.index]
    assert sum(math.isnan(value) for value in co2) == 59  # gaps stay gaps
    sunspots = sm.datasets.sunspots.load_pandas().data["SUNACTIVITY"]
    np.testing.assert_array_equal([example["value"] for example in examples("sunspots")], sunspots.to_numpy(np.float32))
    assert tfds.builder("co2").info.metadata["statsmodels"] == statsmodels.__version__


def test_docstrings_hide_the_name_of_the_library_and_no_text_comes_twice(examples):
    made = examples("docstrings")
    texts = [example["text"].decode() for example in made]
    assert 15_000 < len(texts) < 25_000
    assert len(set(texts)) == len(texts)
    assert not [text for text in texts if docstrings.NAMES.search(text)]
    names = tfds.builder("docstrings").info.features["label"].names
    counts = np.bincount([example["label"] for example in made], minlength=len(names))
    assert (counts > 500).all()
    assert tfds.builder("docstrings").info.metadata["scikit-learn"] == sklearn.__version__


def test_docstrings_are_those_of_the_sources():
    result = {text for _, text in docstrings.docstrings("numpy")}
    assert {
        inspect.getdoc(documented) for documented in (np.linalg.norm, np.polyfit, np.lib.stride_tricks.as_strided)
    } <= result


def test_both_forms_of_a_date_are_the_same_date(examples):
    made = [(example["written"].decode(), example["iso"].decode()) for example in examples("dates")]
    assert len(made) == dates.EXAMPLES
    assert len({iso for _, iso in made}) == len(made)  # no date twice: none of the test set was seen in training
    numeric = [(written, iso) for written, iso in made if re.fullmatch(r"[\d./年月日号]+", written)]
    assert len(numeric) > 1_000
    for written, iso in numeric:
        numbers = [int(number) for number in re.findall(r"\d+", written)]
        numbers = numbers[::-1] if numbers[0] < 32 else numbers  # day.month.year
        assert datetime.date(*numbers) == datetime.date.fromisoformat(iso)


@pytest.mark.parametrize(
    ("number", "written"), [(1, "一"), (10, "十"), (11, "十一"), (20, "二十"), (29, "二十九"), (31, "三十一")]
)
def test_chinese_numbers(number, written):
    assert dates.chinese(number) == written


def test_tones_have_the_frequencies_of_their_keys(examples):
    made = examples("dtmf")
    assert np.bincount([example["label"] for example in made]).tolist() == [100] * 16
    keypad = {  # ITU-T Q.23
        (697, 1209): "1", (697, 1336): "2", (697, 1477): "3", (697, 1633): "A",
        (770, 1209): "4", (770, 1336): "5", (770, 1477): "6", (770, 1633): "B",
        (852, 1209): "7", (852, 1336): "8", (852, 1477): "9", (852, 1633): "C",
        (941, 1209): "*", (941, 1336): "0", (941, 1477): "#", (941, 1633): "D",
    }  # fmt: skip
    names = tfds.builder("dtmf").info.features["label"].names
    correct = []
    for example in made[::20]:
        assert 2_000 <= len(example["audio"]) <= 3_200  # 0.25 to 0.4 s of 8 kHz
        power = np.abs(np.fft.rfft(example["audio"].astype(float))) ** 2
        frequency = np.fft.rfftfreq(len(example["audio"]), 1 / 8_000)
        loudest = [
            max(candidates, key=lambda each: power[np.abs(frequency / each - 1) < 0.02].max())
            for candidates in ((697, 770, 852, 941), (1209, 1336, 1477, 1633))
        ]
        correct.append(keypad[tuple(loudest)] == names[example["label"]])
    assert np.mean(correct) > 0.95  # noise hides a few


def test_tones_begin_anywhere_and_are_the_same_each_time():
    clips = [[dtmf.clip("5", generator) for _ in range(3)] for generator in map(np.random.default_rng, (0, 0, 1))]
    assert all(map(np.array_equal, clips[0], clips[1]))
    assert not any(map(np.array_equal, clips[0], clips[2]))
    assert not any(len(clip) == len(clips[0][0]) and np.array_equal(clip, clips[0][0]) for clip in clips[0][1:])


def test_no_phrase_of_a_sentence_is_in_two_splits():
    draw = np.random.default_rng(0)
    sentences = [" ".join(draw.choice(list("abcdefghijklmnop"), 8)) for _ in range(400)]
    texts = list(sentences)
    for sentence in sentences:
        words = sentence.split()
        for start, length in zip(draw.integers(0, 6, 6), draw.integers(1, 5, 6)):
            texts.append(" ".join(words[start : start + length]))
    splits = sst2_by_sentence.split_by_sentence(texts)
    parts = {split: {text for text, own in zip(texts, splits) if own == split} for split in ("train", "validation", None)}
    assert len(parts["validation"] & set(sentences)) == pytest.approx(400 / sst2_by_sentence.ONE_IN, abs=12)

    def sentences_of(text):  # by searching the text, where the split compares tuples of words
        return {sentence for sentence in sentences if f" {text} " in f" {sentence} "}

    of = {split: set().union(*(sentences_of(text) for text in parts[split])) for split in ("train", "validation")}
    assert of["train"] | of["validation"] == set(sentences)
    assert not of["train"] & of["validation"]
    for text in parts[None]:  # what is left out had to be
        assert sentences_of(text) & parts["train"]
        assert sentences_of(text) & parts["validation"]


@pytest.mark.parametrize(
    ("name", "counts"),
    [
        ("multi30k", {"train": 29_000, "validation": 1_014, "test": 1_000}),
        ("chnsenticorp", {"train": 7_765}),
        ("etth1", {"train": 17_420}),
        ("etth2", {"train": 17_420}),
        ("sst2_by_sentence", {"train": 63_103, "validation": 3_236, "test": 872}),
    ],
)
def test_downloaded_data_is_complete(catalogue_data, name, counts):
    builder = tfds.builder(name, data_dir=catalogue_data)
    builder.download_and_prepare()
    assert {split: info.num_examples for split, info in builder.info.splits.items()} == counts
