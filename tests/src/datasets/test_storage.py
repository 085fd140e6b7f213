"""Images of any size, in memory and on disk: both stores give the same rows, and a run the same weights."""

import itertools
import os

import keras
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds
from keras import tree
from PIL import Image

from recipes import cnn, specs
from src import datasets
from src.datasets import array_records, data, images, lazy, pipeline, stored, validation
from src.datasets.stored import StoredArray
from src.errors import UserError
from src.tasks import factory, image_generation, tokenizers
from src.tasks.baselines import store
from src.tasks.reference_classifier import ReferenceClassifier

IMAGES = ("model=cnn", "dataset=digits", "model.filters=[4,4]")
SPLITS = (
    'dataset.splits.train="b[:10]+a[:60%]"', 'dataset.splits.validation="a[60%:80%]"', 'dataset.splits.test="a[80%:]"',
)  # fmt: skip
THIRDS = [f'dataset.splits.{name}="train[{n}%:{n + 30}%]"' for name, n in (("train", 0), ("validation", 30), ("test", 60))]
FEATURES = {"image": tfds.features.Image(shape=(None, None, 3)), "label": tfds.features.ClassLabel(num_classes=3)}


def columns(count, seed, dtype=np.uint8):
    generator = np.random.default_rng(seed)
    sizes = generator.integers(6, 20, (count, 2))
    return {
        "image": [generator.integers(0, np.iinfo(dtype).max + 1, (*size, 3), dtype=dtype) for size in sizes],
        "label": generator.integers(0, 3, count).tolist(),
    }


@pytest.fixture
def of_varying_size(make):
    """of_varying_size("dataset.shuffle=random", …): settings of color images of 6 to 19 pixels, in two splits."""
    made = {"a": columns(100, 0), "b": columns(30, 1)}
    return lambda *overrides: make(IMAGES, FEATURES, *SPLITS, *overrides, **made).dataset


def load(settings):
    datasets.load.cache_clear()
    return datasets.load(settings)


# --- sizes and channels


def test_images_of_varying_size_need_one(of_varying_size):
    with pytest.raises(UserError, match=r"the images of 'image' differ in size; type .* dataset.image_size=\[64,64\]"):
        load(of_varying_size())


def test_texts_have_no_size(settings):
    with pytest.raises(UserError, match=r"'written' holds no images .*; leave out dataset.image_size"):
        load(settings("dataset=dates", "model=transformer").dataset.model_copy(update={"image_size": (8, 8)}))


def means_of_areas(length, count):
    """(count, length): the weights of the pixels of a line in the mean of each of `count` equal parts of it."""
    edges = np.arange(count + 1) * length / count
    overlaps = np.minimum(edges[1:, None], np.arange(length) + 1) - np.maximum(edges[:-1, None], np.arange(length))
    return np.maximum(overlaps, 0) * count / length


def test_a_smaller_image_has_the_means_of_areas():
    image = np.random.default_rng(3).integers(0, 256, (13, 17, 3), dtype=np.uint8)
    resized = images.resize(tf.constant(image), (5, 9), "stretch").numpy()
    assert resized.dtype == np.uint8
    expected = np.einsum("ij,kl,jlc->ikc", means_of_areas(13, 5), means_of_areas(17, 9), image)
    np.testing.assert_allclose(resized, expected, atol=0.501)


@pytest.mark.parametrize("size", [(20, 30), (20, 9)])
def test_a_larger_image_is_that_of_pillow(size):
    image = np.random.default_rng(3).integers(0, 256, (13, 17, 3), dtype=np.uint8)
    resized = images.resize(tf.constant(image), size, "stretch").numpy()
    expected = np.asarray(Image.fromarray(image).resize(size[::-1], Image.Resampling.BILINEAR))  # antialiased, too
    np.testing.assert_allclose(resized, expected.astype(int), atol=1)


@pytest.mark.parametrize(
    ("shape", "size", "rows", "columns"),
    [
        ((10, 20), (5, 5), slice(0, 10), slice(5, 15)),
        ((21, 9), (6, 9), slice(7, 13), slice(0, 9)),
        ((8, 8), (4, 4), slice(8), slice(8)),
    ],
)
def test_cropping_keeps_the_middle_and_the_proportions(shape, size, rows, columns):
    image = np.random.default_rng(0).integers(0, 256, (*shape, 1), dtype=np.uint8)
    cropped = images.resize(tf.constant(image), size, "crop").numpy()
    np.testing.assert_array_equal(cropped, images.resize(tf.constant(image[rows, columns]), size, "stretch").numpy())


def test_padding_keeps_all_and_adds_black():
    image = np.full((10, 20, 1), 200, np.uint8)
    padded = images.resize(tf.constant(image), (8, 8), "pad").numpy()
    np.testing.assert_array_equal(padded[:, :, 0], np.pad(np.full((4, 8), 200), ((2, 2), (0, 0))))


@pytest.mark.parametrize("dtype", [np.uint16, np.float32])
def test_the_type_of_pixels_is_kept(dtype):
    image = np.full((4, 4, 1), 60_000, dtype)
    resized = images.resize(tf.constant(image), (3, 3), "stretch").numpy()
    assert resized.dtype == dtype
    np.testing.assert_allclose(resized, 60_000, rtol=1e-6)


GRAY, COLOR, OPACITY = [76], [255, 0, 0], [9]  # pure red has luma 0.299 · 255


@pytest.mark.parametrize(
    ("pixel", "channels", "expected"),
    [
        (COLOR, 1, GRAY), (COLOR, 2, GRAY + [255]), (COLOR, 3, COLOR), (COLOR, 4, COLOR + [255]),
        (GRAY, 2, GRAY + [255]), (GRAY, 3, GRAY * 3), (GRAY, 4, GRAY * 3 + [255]),
        (COLOR + OPACITY, 1, GRAY), (COLOR + OPACITY, 2, GRAY + OPACITY), (COLOR + OPACITY, 3, COLOR),
        (GRAY + OPACITY, 1, GRAY), (GRAY + OPACITY, 3, GRAY * 3), (GRAY + OPACITY, 4, GRAY * 3 + OPACITY),
    ],
)  # fmt: skip
def test_channels(pixel, channels, expected):
    converted = images.convert_channels(tf.constant([[pixel]], tf.uint8), channels).numpy()
    np.testing.assert_array_equal(converted, [[expected]])


# --- memory and disk


@pytest.mark.parametrize(
    "overrides",
    [
        ["dataset.image_size=[9,7]"],
        ["dataset.image_size=[8,8]", "dataset.resize=pad", "dataset.channels=1", "dataset.shuffle=stratified"],
    ],
)
def test_rows_are_equal_bit_for_bit(of_varying_size, overrides):
    settings = of_varying_size(*overrides)
    memory, disk = load(settings), load(settings.model_copy(update={"storage": "disk"}))
    assert (len(memory.train), len(memory.validation), len(memory.test)) == (70, 20, 20)
    for name, split in memory.splits.items():
        left = disk.splits[name]
        assert isinstance(left.inputs, StoredArray)
        assert (left.inputs.shape, left.inputs.dtype) == (split.inputs.shape, split.inputs.dtype)
        np.testing.assert_array_equal(left.targets, split.targets)
        np.testing.assert_array_equal(np.asarray(left.inputs), split.inputs)
        for index in (3, slice(2, 9), np.array([5, 1, 5])):
            np.testing.assert_array_equal(left.inputs[index], split.inputs[index])
        assert left.digest == split.digest
        np.testing.assert_array_equal(left.take(4).inputs[:], split.inputs[:4])
        assert left.take(4).digest == split.take(4).digest
    for read in (lambda split: pipeline.training(split, 8, seed=1, start=11), lambda split: pipeline.evaluation(split, 8)):
        for one, other in itertools.islice(zip(read(memory.train), read(disk.train)), 20):
            for expected, values in zip(one, other):
                np.testing.assert_array_equal(values, expected)


def test_what_all_rows_are_read_for_is_kept_beside_the_data(of_varying_size, monkeypatch):
    settings = of_varying_size("dataset.image_size=[8,8]", "dataset.storage=disk")
    digest = load(settings).train.digest

    def of_memory(array):
        assert isinstance(array, np.ndarray), "rows are read from disk once more"
        return [array]

    with monkeypatch.context() as patched:
        patched.setattr(data, "chunks", of_memory)
        patched.setattr(validation, "chunks", of_memory)
        assert load(settings).train.digest == digest
    assert load(settings.model_copy(update={"resize": "pad"})).train.digest != digest


def test_shuffled_rows_of_several_splits_are_those_of_numpy(of_varying_size):
    shuffled = load(of_varying_size("dataset.image_size=[6,6]", "dataset.shuffle=random"))
    made = {"a": columns(100, 0), "b": columns(30, 1)}
    order = {name: np.random.default_rng(0).permutation(count) for name, count in (("a", 100), ("b", 30))}
    labels = [made["b"]["label"][row] for row in order["b"][:10]] + [made["a"]["label"][row] for row in order["a"][:60]]
    assert shuffled.train.targets.tolist() == labels
    last = images.resize(tf.constant(made["a"]["image"][order["a"][59]]), (6, 6), "crop")
    np.testing.assert_array_equal(shuffled.train.inputs[-1], last)


def test_images_are_left_on_disk_where_memory_does_not_suffice(of_varying_size, monkeypatch, caplog):
    settings = of_varying_size("dataset.image_size=[8,8]")
    monkeypatch.setattr("psutil.virtual_memory", lambda: type("Memory", (), {"available": 2 * 110 * 192 - 1}))
    with caplog.at_level("INFO"):
        assert isinstance(load(settings).train.inputs, StoredArray)
    assert "so inputs are read from disk during training" in caplog.text
    with pytest.raises(UserError, match=r"needs 0.0 GiB in memory; type a smaller slice, .* or dataset.storage=disk"):
        load(settings.model_copy(update={"storage": "memory"}))
    monkeypatch.setattr("psutil.virtual_memory", lambda: type("Memory", (), {"available": 2 * 110 * 192}))
    assert isinstance(load(settings).train.inputs, np.ndarray)


def test_texts_in_another_encoding_cannot_stay_on_disk(settings):
    dates = settings("dataset=dates", "model=transformer", "dataset.storage=disk", "dataset.encoding=latin-1")
    with pytest.raises(UserError, match=r"but 'written' is a text in iso8859-1; type"):
        load(dates.dataset)


FEW = [f'dataset.splits.{name}="train[{n}:{n + 300}]"' for name, n in (("train", 0), ("validation", 300), ("test", 600))]
TEXTS = {
    "classification": ("model=lstm", "dataset=docstrings", "task.name=text_classification", *FEW),
    "language modeling": ("model=gpt", "dataset=docstrings", *FEW),
    "translation": ("model=transformer", "dataset=dates"),
}


def mapped_file(split):
    """The path of the file that the inputs of a split are views of."""
    array = split.inputs["source"] if isinstance(split.inputs, dict) else split.inputs
    while not isinstance(array, np.memmap):
        array = array.base if isinstance(array.base, np.ndarray) else array.base.base  # of strided views an object between
    return array.filename


@pytest.mark.parametrize("line", TEXTS.values(), ids=TEXTS)
def test_texts_on_disk_are_encoded_as_in_memory(settings, line, monkeypatch):
    monkeypatch.setattr(pipeline, "MAX_COPY", 0)
    composed = settings(*line)
    memory, disk = load(composed.dataset), load(composed.dataset.model_copy(update={"storage": "disk"}))
    for name, split in memory.splits.items():
        assert isinstance(disk.splits[name].inputs, StoredArray)
        assert disk.splits[name].digest == split.digest
    in_memory, on_disk = (factory.create(composed.task, data) for data in (memory, disk))
    assert in_memory.artifacts() == on_disk.artifacts()
    for one, other in ((in_memory.train, on_disk.train), (in_memory.test, on_disk.test)):
        assert mapped_file(other)
        tree.map_structure(np.testing.assert_array_equal, (one.inputs, one.targets), (other.inputs, other.targets))
        batches = (itertools.islice(pipeline.training(split, 8, seed=1, start=11), 5) for split in (one, other))
        for expected, values in zip(*batches):
            tree.map_structure(np.testing.assert_array_equal, expected, values)
    again = factory.create(composed.task, load(composed.dataset.model_copy(update={"storage": "disk"})))
    assert mapped_file(again.train) == mapped_file(on_disk.train)


@pytest.mark.parametrize("storage", ["memory", "disk"])
def test_a_corpus_is_on_disk_once(make, storage):
    texts = {"text": [f"Text {number}".encode() for number in range(40)]}
    corpus = make(
        ("model=gpt", "dataset=docstrings"), {"text": tfds.features.Text()}, *THIRDS, "dataset.targets=text", train=texts
    )
    read = load(corpus.dataset.model_copy(update={"storage": "memory"}))
    on_disk = load(corpus.dataset.model_copy(update={"storage": "disk"}))  # converts the files
    other = load(corpus.dataset.model_copy(update={"storage": storage}))
    assert on_disk.train.targets is on_disk.train.inputs
    assert other.train.digest == on_disk.train.digest == read.train.digest
    assert other.train.take(3).targets[2] == b"Text 2"
    assert len(other.train) == 12


def test_few_long_texts_are_read_at_once(make, monkeypatch):
    texts = {"text": [f"Text {number} ".encode() * 100 for number in range(40)]}
    corpus = make(
        ("model=gpt", "dataset=docstrings"), {"text": tfds.features.Text()}, *THIRDS, "dataset.targets=text", train=texts
    )
    array = load(corpus.dataset.model_copy(update={"storage": "disk"})).train.inputs
    assert list(map(len, lazy.chunks(array))) == [12]
    monkeypatch.setattr(stored, "CHUNK_BYTES", int(5.5 * array.records.mean_size))
    array = array.take(np.arange(12))
    assert list(map(len, lazy.chunks(array))) == [5, 5, 2]
    np.testing.assert_array_equal(np.asarray(array), texts["text"][:12])


def test_texts_on_disk_have_to_be_utf_8(make):
    texts = {"text": [b"good", "caf\u00e9".encode("latin-1")] * 20, "label": [0, 1] * 20}
    features = {"text": tfds.features.Text(), "label": tfds.features.ClassLabel(num_classes=2)}
    made = make(TEXTS["classification"], features, *THIRDS, "dataset.inputs=text", "dataset.targets=label", train=texts)
    with pytest.raises(UserError, match=r"Row 1 of the train split .* is no text in utf-8 .*; type its encoding"):
        load(made.dataset.model_copy(update={"storage": "disk"}))


def test_a_vocabulary_is_learned_from_evenly_spaced_texts_of_a_large_set(monkeypatch, caplog):
    monkeypatch.setattr(tokenizers, "MAX_BYTES", 40)
    texts = np.array([str(number).encode() for number in range(1_000, 2_000)], dtype=object)
    with caplog.at_level("INFO"):
        sample = list(tokenizers.training_texts(texts, "words"))
    assert sample == [b"1000", b"1111", b"1222", b"1333", b"1444", b"1555", b"1666", b"1777", b"1888", b"1999"]
    assert "The vocabulary is learned from 10 of the 1,000 training texts." in caplog.text
    assert list(tokenizers.training_texts(texts[:10], "words")) == texts[:10].tolist()


def test_byte_pairs_are_learned_from_fewer_texts_without_spaces(monkeypatch):
    monkeypatch.setattr(tokenizers, "MAX_UNSPACED_BYTES", 60)
    chinese, mixed, english = (
        np.array([text.encode()] * 100, dtype=object)
        for text in ("苹果汁苹果汁", "苹 two words", "six words without any of these")
    )
    count = lambda texts, kind: len(list(tokenizers.training_texts(texts, kind)))  # noqa: E731
    assert [count(texts, "bpe") for texts in (chinese, mixed, english)] == [60 // 18, 60 // 3, 100]
    assert count(chinese, "words") == 100


def test_a_read_only_folder_is_not_converted(of_varying_size, monkeypatch):
    settings = of_varying_size("dataset.image_size=[8,8]", "dataset.storage=disk")
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may write everywhere
    with pytest.raises(UserError, match=r"is read-only, .*; type dataset.storage=memory, or another dataset.data_dir"):
        load(settings)


def test_images_of_many_channels_are_not_converted(make):
    bands = {"image": np.zeros((20, 6, 6, 5), np.uint8), "label": [0, 1] * 10}
    features = {
        "image": tfds.features.Tensor(shape=(6, 6, 5), dtype=np.uint8),
        "label": tfds.features.ClassLabel(num_classes=2),
    }
    with pytest.raises(UserError, match=r"images of 5 channels cannot be converted; leave out dataset.channels"):
        load(make(IMAGES, features, *THIRDS, "dataset.channels=3", train=bands).dataset)


def test_an_interrupted_conversion_is_repeated(of_varying_size, monkeypatch):
    settings = of_varying_size("dataset.image_size=[8,8]", "dataset.storage=disk")

    def interrupt(source, target):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(os, "replace", interrupt)
        with pytest.raises(KeyboardInterrupt):
            load(settings)
    builder = datasets.prepare(settings)
    assert not [path for path in os.listdir(builder.data_path) if path.endswith("-of-00001") and array_records.FORMAT in path]
    assert len(load(settings).train.inputs[:70]) == 70


def test_data_is_prepared_for_reading_by_number(settings, tmp_path):
    digits = settings("dataset=digits").dataset.model_copy(update={"data_dir": str(tmp_path), "storage": "disk"})
    disk = load(digits)
    assert not list(tmp_path.rglob("*tfrecord*"))
    memory = load(digits.model_copy(update={"storage": "memory"}))  # from the same files
    assert isinstance(memory.train.inputs, np.ndarray)
    shared = load(settings("dataset=digits").dataset)
    assert disk.test.digest == memory.test.digest == shared.test.digest


def test_generated_images_are_compared_with_those_on_disk_as_with_those_in_memory(make, monkeypatch):
    """Colors of 16 bits, which are converted to 8 bits; the nearest of 30 of the 70 training images."""
    monkeypatch.setattr(image_generation, "NEIGHBOR_VALUES", 30 * 8 * 8 * 3)
    made = {"a": columns(100, 0, np.uint16), "b": columns(30, 1, np.uint16)}
    features = FEATURES | {"image": tfds.features.Image(shape=(None, None, 3), dtype=np.uint16)}
    composed = make(
        ("model=gan", "dataset=digits", "task.samples=20"), features, *SPLITS, "dataset.image_size=[8,8]", **made
    )  # fmt: skip
    classifier = ReferenceClassifier(keras.Sequential([cnn.build(specs.Image(8, 8, 3), specs.Classes(3))]), "run", 0.9)

    def create(storage):
        data = load(composed.dataset.model_copy(update={"storage": storage}))
        return factory.create(composed.task, data, reference_classifier=classifier), data

    (memory, data), (disk, _) = create("memory"), create("disk")
    assert isinstance(disk.train.inputs["image"], lazy.LazyArray)
    for one, other in itertools.islice(zip(*(pipeline.training(task.train, 8, seed=1) for task in (memory, disk))), 9):
        tree.map_structure(np.testing.assert_array_equal, one, other)
    bytes_of = [np.rint(split.inputs / 257).astype(int) for split in (data.train, data.test)]  # 65,535 becomes 255
    np.testing.assert_allclose(255 * disk.train.inputs["image"][:], bytes_of[0], atol=1e-4)
    expected, results = (store.compute(task).metrics for task in (memory, disk))
    assert results == expected

    training, test = (images.reshape(len(images), 1, -1) / 255 for images in bytes_of)
    sample = training[np.linspace(0, 69, 30).astype(int), 0]
    drawn = training[np.sort(np.random.default_rng(0).choice(70, 20, replace=False))]
    distances = [np.median(np.sqrt(((images - sample) ** 2).mean(axis=2)).min(axis=1)) for images in (drawn, test)]
    assert results["training_images"]["training_distance"] == pytest.approx(distances[0] / distances[1], rel=1e-3)
