"""Targets of a data set: class labels, several labels, and what is refused in one sentence."""

import logging

import numpy as np
import pytest
import tensorflow_datasets as tfds

from src import config, datasets
from src.errors import UserError
from src.tasks import factory

FEATURES = tfds.features
IMAGES = ("model=cnn", "dataset=digits", "model.filters=[4,4]", "task.name=image_multilabel_classification")
TEXTS = ("model=cnn", "dataset=docstrings", "task.name=text_multilabel_classification", "task.length=6")
SPLIT = (
    'dataset.splits.train="train[:60%]"', 'dataset.splits.validation="train[60%:80%]"', 'dataset.splits.test="train[80%:]"',
)  # fmt: skip
COUNT, NAMES = 40, ("red", "green", "blue")
DRAW = np.random.default_rng(0)
PIXELS, TABLE = DRAW.integers(0, 256, (COUNT, 6, 6, 1), dtype=np.uint8), DRAW.random((COUNT, 3)) < 0.4
TABLE[0], TABLE[1] = False, True
IMAGE = FEATURES.Image(shape=(6, 6, 1))
LISTS = {"image": IMAGE, "labels": FEATURES.Sequence(FEATURES.ClassLabel(names=NAMES))}
COLUMNS = {"image": IMAGE, **dict.fromkeys(NAMES, np.bool_), "other": np.float32}


def lists():
    """The labels of each example as a list of indices, in any order."""
    return {"image": PIXELS, "labels": [DRAW.permutation(np.flatnonzero(row)).tolist() for row in TABLE]}


def columns(dtype=bool):
    return {"image": PIXELS, **{name: TABLE[:, n].astype(dtype) for n, name in enumerate(NAMES)}, "other": np.ones(COUNT)}


def task_of(run_settings):
    datasets.load.cache_clear()
    return factory.create(run_settings.task, datasets.load(run_settings.dataset))


def check(task, table=TABLE):
    assert task.classes == NAMES
    whole = np.concatenate([split.targets for split in (task.train, task.validation, task.test)])
    images = np.concatenate([np.asarray(split.inputs) for split in (task.train, task.validation, task.test)])
    order = [int(np.flatnonzero((image == PIXELS).all(axis=(1, 2, 3)))[0]) for image in images]
    assert whole.dtype == np.uint8
    np.testing.assert_array_equal(whole, table[order])
    return order


@pytest.mark.parametrize("storage", ["memory", "disk"])
def test_lists_of_class_labels_are_several_labels(make, storage):
    options = (*SPLIT, "dataset.targets=labels", f"dataset.storage={storage}")
    assert check(task_of(make(IMAGES, LISTS, *options, train=lists()))) == list(range(COUNT))


def test_labels_stay_beside_their_images_when_they_are_shuffled(make):
    options = (*SPLIT, "dataset.targets=labels", "dataset.shuffle=random")
    order = check(task_of(make(IMAGES, LISTS, *options, train=lists())))
    assert order != sorted(order) == list(range(COUNT))


@pytest.mark.parametrize("dtype", [np.bool_, np.int64])
def test_several_features_are_several_labels(make, dtype):
    features = {"image": IMAGE, **dict.fromkeys(NAMES, dtype), "other": np.float32}
    settings = make(IMAGES, features, *SPLIT, "dataset.targets=[red,green,blue]", train=columns(dtype))
    assert settings.model_dump()["dataset"]["targets"] == ["red", "green", "blue"]
    check(task_of(settings))
    two = settings.model_copy(update={"dataset": settings.dataset.model_copy(update={"targets": ("blue", "red")})})
    task = task_of(two)
    assert task.classes == ("blue", "red")
    np.testing.assert_array_equal(task.test.targets, TABLE[32:, [2, 0]])


def test_a_vector_of_0_and_1_is_several_labels_with_numbers(make):
    features = {"image": IMAGE, "vector": FEATURES.Tensor(shape=(3,), dtype=np.uint8)}
    made = make(IMAGES, features, *SPLIT, "dataset.targets=vector", train={"image": PIXELS, "vector": TABLE.astype(np.uint8)})
    task = task_of(made)
    assert task.classes == ("0", "1", "2")
    np.testing.assert_array_equal(task.test.targets, TABLE[32:])


def test_labels_that_a_split_lacks_are_named(make, caplog):
    made = columns()
    made["green"][:24] = False
    with caplog.at_level(logging.WARNING):
        task_of(make(IMAGES, COLUMNS, *SPLIT, "dataset.targets=[red,green,blue]", train=made))
    assert (
        "The train split of dataset=made has no example of 1 of the 3 classes (green); if the examples are sorted"
        in caplog.text
    )
    assert "type dataset.shuffle=random." in caplog.text


BOXES = np.zeros((COUNT, 4), np.float32) + np.array([0, 0, 0.5, 0.5], np.float32)
OBJECTS = [[{"bbox": FEATURES.BBox(*box), "label": 0}] for box in BOXES.tolist()]
SINGLE = ("model=cnn", "dataset=digits")
SUPPORTED = "supported targets are one class label, several labels, a text, or the variables of a series"


@pytest.mark.parametrize(
    ("line", "feature", "values", "message"),
    [
        (SINGLE, FEATURES.BBoxFeature(), [FEATURES.BBox(*box) for box in BOXES.tolist()],
         f"'target' holds bounding boxes, and object detection is not supported; {SUPPORTED}, so choose another"),
        (SINGLE, FEATURES.Sequence({"bbox": FEATURES.BBoxFeature(), "label": FEATURES.ClassLabel(num_classes=1)}), OBJECTS,
         "'target' holds bounding boxes, and object detection is not supported"),
        (SINGLE, FEATURES.Image(shape=(6, 6, 1)), PIXELS, "'target' holds images, and segmentation is not supported"),
        (SINGLE, np.float32, DRAW.random(COUNT).astype(np.float32),
         "the targets are numbers of type float32, and regression is not supported; choose another dataset.targets."),
        (SINGLE, FEATURES.Sequence(FEATURES.ClassLabel(names=NAMES)), lists()["labels"],
         "an example has several labels (of red, green, blue), where one is needed; type "
         "task.name=image_multilabel_classification, or choose another dataset.targets."),
        (("model=gan", "dataset=digits"), FEATURES.Sequence(FEATURES.ClassLabel(names=NAMES)), lists()["labels"],
         "an example has several labels"),
        (IMAGES, FEATURES.ClassLabel(num_classes=2), DRAW.integers(0, 2, COUNT),
         "an example has one label, where several are needed; type task.name=image_classification, or name several boolean"),
        (IMAGES, FEATURES.Sequence(FEATURES.Text()), [["a"], ["b", "c"]] * (COUNT // 2),
         "'target' is a list of varying length, but not of class labels"),
        (IMAGES, FEATURES.Tensor(shape=(2,), dtype=np.int64), np.full((COUNT, 2), 7),
         "the targets have to say which labels an example has, 0 or 1 for each, but those of the train split are arrays"),
        (IMAGES, FEATURES.Sequence(FEATURES.ClassLabel(names=NAMES)), [[0]] * 30 + [[]] * 10,
         "No example of the test split of dataset=made has a label; choose another dataset.splits.test."),
    ],
)  # fmt: skip
def test_other_targets_are_refused_in_one_sentence(make, line, feature, values, message):
    made = make(line, {"image": IMAGE, "target": feature}, *SPLIT, "dataset.targets=target",
                train={"image": PIXELS, "target": values})  # fmt: skip
    with pytest.raises(UserError) as raised:
        task_of(made)
    assert message in str(raised.value)
    assert str(raised.value).count(". ") == 0


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        ("[red,pink]", r"made has no feature 'pink'; it has: blue, green, image, other, red"),
        ("[red,other]", r"the targets have to say which labels an example has, 0 or 1 for each, but .* of type float32"),
    ],
)
def test_several_features_have_to_be_labels(make, targets, message):
    with pytest.raises(UserError, match=message):
        task_of(make(IMAGES, COLUMNS, *SPLIT, f"dataset.targets={targets}", train=columns()))


def test_several_labels_cannot_be_stratified(make):
    with pytest.raises(
        UserError, match=r"dataset\.shuffle=stratified needs class labels as targets; type dataset.shuffle=random"
    ):
        task_of(make(IMAGES, LISTS, *SPLIT, "dataset.targets=labels", "dataset.shuffle=stratified", train=lists()))


def test_an_unlabelled_image_may_be_its_own_target(make):
    task = task_of(
        make(("model=gan", "dataset=digits"), {"image": IMAGE}, *SPLIT, "dataset.targets=image", train={"image": PIXELS})
    )
    assert task.classes == ()


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        ("[a,b,a]", "dataset.targets names 'a' twice; leave one out."),
        ("[]", "dataset.targets=[] is neither the name of a feature nor a list"),
        ("3", "dataset.targets=3 is neither"),
    ],
)
def test_names_of_targets_are_checked_before_the_data_is_loaded(targets, message):
    with pytest.raises(UserError) as raised:
        config.parse(["model=cnn", f"dataset.targets={targets}"])
    assert message in str(raised.value)


def test_goemotions_has_all_its_labels_as_targets(settings, tmp_path):
    dataset = settings("model=lstm", "dataset=goemotions").dataset
    features = tfds.builder("goemotions", data_dir=tmp_path).info.features
    assert sorted(dataset.targets) == sorted(name for name, feature in features.items() if feature.np_dtype == np.bool_)
    assert dataset.inputs in features
