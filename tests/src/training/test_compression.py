"""Pruning, distillation, quantization, and measurements of LiteRT files."""

import gzip
import json
from types import SimpleNamespace

import keras
import numpy as np
import pytest
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter
from scipy.special import expit
from sklearn.metrics import f1_score, log_loss

from recipes import cnn
from src.config.schema import Single
from src.errors import UserError
from src.export import litert, onnx
from src.tasks import factory
from src.training import distillation, loop, pruning, strategies
from tests.labels import LABELS, several_labels

SMALL = ("dataset=digits", "dataset.limit=512", "training.epochs=4")
SAMPLE = (("adam", "single"), ("sgd", "mirrored"))  # of optimizers and strategies; all of them are slow
SEVERAL = "task.name=image_multilabel_classification"
CNN = ("model=cnn", "model.filters=[8,16]", "model.augmentation=0")


@pytest.fixture
def run(settings, load):
    """run("compression.sparsity=0.8", …): settings, task and trained model."""

    def train(*overrides, load_teacher=None, recipe=CNN):
        run_settings = settings(*SMALL, *recipe, *overrides)
        data = load("digits")
        if "multilabel" in run_settings.task.name:
            data = several_labels(data)
        loop.prepare(run_settings)
        task = factory.create(run_settings.task, data, run_settings.dataset.limit)
        strategy = strategies.create(run_settings.strategy)
        distiller = model = loop.build(run_settings, task, strategy)
        if load_teacher:
            distiller = loop.student(model, load_teacher, run_settings, task, strategy)
        train.history = []
        loop.fit(distiller, run_settings, task, lambda m, e: train.history.append(m), profile_to=None)
        return run_settings, task, model

    return train


@pytest.mark.parametrize(
    ("optimizer", "strategy"),
    [
        pytest.param(optimizer, strategy, marks=[] if (optimizer, strategy) in SAMPLE else pytest.mark.slow)
        for optimizer in ("adam", "adamw", "sgd", "rmsprop")
        for strategy in ("single", "mirrored")
    ],
)
def test_pruned_weights_stay_pruned_under_any_optimizer_and_strategy(run, optimizer, strategy, monkeypatch):
    seen = []
    original = pruning.MagnitudePruning.on_train_batch_end

    def watch(self, batch, logs=None):
        kernels = [keras.ops.convert_to_numpy(kernel) for kernel in self.kernels]
        masks = [keras.ops.convert_to_numpy(kernel.constraint.mask) for kernel in self.kernels]
        seen.append(max(np.abs(kernel[mask == 0]).max(initial=0) for kernel, mask in zip(kernels, masks)))
        original(self, batch, logs)

    monkeypatch.setattr(pruning.MagnitudePruning, "on_train_batch_end", watch)
    sparse = ("compression.sparsity=0.75", "compression.every=3")
    _, _, model = run(f"optimizer={optimizer}", f"strategy={strategy}", *sparse, "training.epochs=2")
    assert len(seen) == 16
    assert max(seen) == 0  # after each step of the optimizer, before anything is pruned again
    assert pruning.sparsity(model) == pytest.approx(0.75, abs=0.01)


@pytest.mark.parametrize("best", ["true", "false"])
@pytest.mark.parametrize("ema", ["null", "0.9"])
def test_the_kept_weights_are_sparse(run, best, ema):
    _, _, model = run(
        "compression.sparsity=0.8",
        f"training.restore_best_weights={best}",
        f"training.ema={ema}",
        "optimizer.learning_rate=0.02",
    )
    assert pruning.sparsity(model) == pytest.approx(0.8, abs=0.01)


def test_smallest_weights_are_pruned_first_on_a_cubic_schedule():
    model = keras.Sequential([keras.Input((10,)), keras.layers.Dense(10)])
    kernel = np.arange(1, 101, dtype=np.float32).reshape(10, 10)
    model.layers[0].set_weights([kernel, np.zeros(10)])

    class Settings:
        sparsity, begin, end, every = 0.8, 0.0, 1.0, 1

    callback = pruning.MagnitudePruning(model, Settings, steps=10, execution=SimpleNamespace(taken=1))
    for step in range(1, 6):
        callback.on_train_batch_end(step)
        gone = round(100 * 0.8 * (1 - (1 - step / 10) ** 3))
        np.testing.assert_array_equal(model.layers[0].kernel.numpy().ravel() == 0, np.arange(100) < gone)


def test_depthwise_kernels_are_not_pruned():
    model = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.DepthwiseConv2D(3), keras.layers.Conv2D(4, 1)])
    assert [kernel.shape for kernel in pruning.prunable_kernels(model)] == [(1, 1, 3, 4)]


def test_litert_files_are_measured(run, tmp_path):
    run_settings, task, model = run("compression.export=true", "compression.calibration=100")
    result = litert.export(model, task, run_settings.compression, str(tmp_path / "litert"))
    kept = task.metrics(task.test, task.predict(model, task.test, 64))
    assert result["float"]["accuracy"] == kept["accuracy"]
    assert result["float"]["nll"] == pytest.approx(kept["nll"], rel=1e-4)
    assert result["int8"]["accuracy"] == pytest.approx(kept["accuracy"], abs=0.02)
    for kind, values in result.items():
        file = (tmp_path / "litert" / f"model_{kind}.tflite").read_bytes()
        assert values["bytes"] == len(file)
        assert values["bytes_compressed"] == len(gzip.compress(file, mtime=0))
        assert 0 < values["latency_p50"] <= values["latency_p95"]
    assert result["float"]["bytes"] > 2 * result["int8"]["bytes"]


def test_litert_files_of_several_labels_have_the_thresholds_of_the_model(run, tmp_path):
    run_settings, task, model = run(SEVERAL, "compression=litert")
    task.finalize(model, 64)
    result = litert.export(model, task, run_settings.compression, str(tmp_path / "litert"))
    thresholds = json.loads((tmp_path / "litert" / "labels.json").read_text())
    assert tuple(thresholds) == LABELS
    images = task.test.raw.astype(np.float32) / 255
    logits = np.concatenate(list(litert.predict(tmp_path / "litert" / "model_float.tflite", images, 50, 1)))[: len(images)]
    predicted = logits > list(thresholds.values())
    for average in ("macro", "micro"):
        assert result["float"][f"{average}_f1"] == pytest.approx(f1_score(task.test.targets, predicted, average=average))
    kept = task.metrics(task.test, task.predict(model, task.test, 64))
    for name, value in kept.items():
        assert result["float"][name] == pytest.approx(value, rel=1e-3)
        assert result["int8"][name] == pytest.approx(value, abs=0.03)
    assert "macro f1" in litert.table(result, "macro_f1", 1)


def test_the_onnx_file_computes_what_the_model_computes(run, tmp_path):
    for package in ("tf2onnx", "onnxruntime"):
        pytest.importorskip(package)
    _, task, model = run("compression.onnx=true", "training.epochs=1", "model.augmentation=0.1")
    result = onnx.export(model, task, tmp_path / "onnx")
    kept = task.metrics(task.test, task.predict(model, task.test, 64))
    assert result["accuracy"] == kept["accuracy"]
    assert result["nll"] == pytest.approx(kept["nll"], rel=1e-4)
    assert 0 < result["difference"] < 1e-3
    (file,) = (tmp_path / "onnx").iterdir()
    assert result["bytes"] == len(file.read_bytes())
    two = onnx.predict(file, task.test.raw[:2])  # a batch of another size
    np.testing.assert_allclose(two, task.predict(model, task.test.take(2), 2), atol=1e-3)


def test_the_onnx_file_of_several_labels_has_the_thresholds_of_the_model(run, tmp_path):
    for package in ("tf2onnx", "onnxruntime"):
        pytest.importorskip(package)
    _, task, model = run(SEVERAL, "compression.onnx=true")
    task.finalize(model, 64)
    result = onnx.export(model, task, tmp_path / "onnx")
    thresholds = json.loads((tmp_path / "onnx" / "labels.json").read_text())
    assert tuple(thresholds) == LABELS
    predicted = onnx.predict(tmp_path / "onnx" / "model.onnx", task.test.raw) > list(thresholds.values())
    assert result["macro_f1"] == pytest.approx(f1_score(task.test.targets, predicted, average="macro"))
    assert result["macro_f1"] == pytest.approx(task.metrics(task.test, task.predict(model, task.test, 64))["macro_f1"])
    assert 0 < result["difference"] < 1e-3


def test_the_int8_file_holds_8_bit_weights_and_activations(run, tmp_path):
    run_settings, task, model = run("compression.export=true", "training.epochs=1")
    litert.export(model, task, run_settings.compression, str(tmp_path / "litert"))
    interpreter = Interpreter(model_path=str(tmp_path / "litert" / "model_int8.tflite"), experimental_preserve_all_tensors=True)
    interpreter.allocate_tensors()
    assert interpreter.get_input_details()[0]["dtype"] == np.uint8
    large = [tensor for tensor in interpreter.get_tensor_details() if np.prod(tensor["shape"]) > 200]
    assert large
    assert {tensor["dtype"] for tensor in large} <= {np.int8, np.uint8}


def test_distillation_loss_by_hand(run, settings):
    run_settings, task, teacher = run("compression.temperature=2.0", "compression.teacher_weight=0.7")
    student = loop.build(run_settings, task, strategies.create(Single(name="single", device="auto")))
    distiller = loop.student(student, lambda: teacher, run_settings, task, tf.distribute.get_strategy())
    images, targets = task.train.inputs[:6], task.train.targets[:6]
    teacher_logits, student_logits = (
        keras.ops.convert_to_numpy(m(images, training=False)).astype(np.float64) for m in (teacher, student)
    )
    log_softmax = lambda z: z - np.logaddexp.reduce(z, axis=1, keepdims=True)  # noqa: E731
    hard = -log_softmax(student_logits)[np.arange(6), targets].mean()
    soft = np.exp(log_softmax(teacher_logits / 2))
    divergence = (soft * (log_softmax(teacher_logits / 2) - log_softmax(student_logits / 2))).sum(axis=1).mean() * 2**2
    result = float(
        distiller.compute_loss(
            tf.constant(images), tf.constant(targets), tf.constant(student_logits, tf.float32), training=True
        )
    )
    assert result == pytest.approx(0.3 * hard + 0.7 * divergence, rel=1e-3)
    alone = float(
        distiller.compute_loss(
            tf.constant(images), tf.constant(targets), tf.constant(student_logits, tf.float32), training=False
        )
    )
    assert alone == pytest.approx(hard, rel=1e-4)


def test_distillation_loss_of_several_labels_by_hand(run):
    run_settings, task, teacher = run(SEVERAL, "compression.temperature=2.0", "compression.teacher_weight=0.7")
    student = loop.build(run_settings, task, strategies.create(run_settings.strategy))
    distiller = loop.student(student, lambda: teacher, run_settings, task, tf.distribute.get_strategy())
    images, targets = task.train.inputs[:6], task.train.targets[:6]
    teacher_logits, student_logits = (
        keras.ops.convert_to_numpy(m(images, training=False)).astype(np.float64) for m in (teacher, student)
    )
    hard = log_loss(targets.ravel(), expit(student_logits).ravel())  # the mean over examples and labels
    p, q = expit(teacher_logits / 2), expit(student_logits / 2)
    divergence = np.mean(p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q))) * 2**2
    arguments = tf.constant(images), tf.constant(targets), tf.constant(student_logits, tf.float32)
    assert float(distiller.compute_loss(*arguments, training=True)) == pytest.approx(0.3 * hard + 0.7 * divergence, rel=1e-3)
    assert float(distiller.compute_loss(*arguments, training=False)) == pytest.approx(hard, rel=1e-4)


def test_distillation_agrees_across_strategies_and_does_not_change_the_teacher(run):
    run_settings, task, model = run()
    weights = model.get_weights()
    teachers = []

    def load_teacher():
        teachers.append(task.build_model(cnn.build, run_settings.model.hyperparameters))
        teachers[-1].set_weights(weights)
        return teachers[-1]

    plain = (
        "model.dropout=0",
        "optimizer=sgd",
        "optimizer.learning_rate=0.1",
        "training.epochs=2",
        "training.restore_best_weights=false",
    )
    losses = []
    for strategy in ("single", "mirrored"):
        run(*plain, f"strategy={strategy}", load_teacher=load_teacher)
        losses.append([[epoch["epoch/train/loss"], epoch["epoch/val/loss"]] for epoch in run.history])
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-3)
    for teacher in teachers:
        for before, after in zip(weights, teacher.get_weights()):
            np.testing.assert_array_equal(before, after)


@pytest.mark.parametrize("override", ["compression=litert", "compression.onnx=true", "compression.teacher=a-run"])
def test_models_trained_by_reinforce_cannot_be_compressed(run, override):
    with pytest.raises(UserError, match=r"compression\.(teacher|export|onnx) does not work for a recipe that learns by reward"):
        run(override, recipe=("model=attention", "model.kind=hard", "model.glimpse_size=4"))


def test_teacher_trained_on_other_data_is_rejected(run, settings):
    run_settings, task, _ = run("training.epochs=1")
    teacher_config = settings("model=cnn", "dataset=mnist").model_dump(by_alias=True)
    with pytest.raises(UserError, match="was trained on dataset=mnist, not on dataset=digits"):
        distillation.load_teacher(teacher_config, keras.Model.load_weights, run_settings, task)


def test_teacher_of_another_task_or_other_labels_is_rejected(run, settings):
    run_settings, task, _ = run("training.epochs=1")
    for override, learned in ((SEVERAL, "image_multilabel_classification of dataset.targets=label"),
                              ("dataset.targets=writer", "image_classification of dataset.targets=writer")):  # fmt: skip
        teacher_config = settings(*CNN, override).model_dump(by_alias=True)
        with pytest.raises(UserError, match=f"learned {learned}, not image_classification of label; choose a run with the"):
            distillation.load_teacher(teacher_config, keras.Model.load_weights, run_settings, task)


def test_teacher_is_restored_from_recorded_settings_and_weights(run, tmp_path):
    run_settings, task, model = run("training.epochs=1")
    model.save_weights(tmp_path / "model.weights.h5")
    restored = distillation.load_teacher(
        run_settings.model_dump(by_alias=True),
        lambda made: made.load_weights(tmp_path / "model.weights.h5"),
        run_settings,
        task,
    )
    np.testing.assert_allclose(task.predict(restored, task.test, 64), task.predict(model, task.test, 64), atol=1e-6)
