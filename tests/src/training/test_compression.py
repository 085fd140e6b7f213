"""Pruning, distillation, quantization, and what the files are found to be."""

import gzip

import keras
import numpy as np
import pytest
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter

from recipes import cnn
from src.config.schema import Single
from src.errors import UserError
from src.export import litert
from src.tasks import registry
from src.training import distillation, loop, pruning, strategies

SMALL = ("dataset=digits", "dataset.limit=512", "training.epochs=4")
SAMPLE = (("adam", "single"), ("sgd", "mirrored"))  # of optimizers and strategies; all of them are slow
CNN = ("model=cnn", "model.filters=[8,16]", "model.augmentation=0")


@pytest.fixture
def run(settings, load):
    """run("compression.sparsity=0.8", …): settings, task and trained model."""

    def train(*overrides, teach=None, recipe=CNN):
        chosen = settings(*SMALL, *recipe, *overrides)
        data = load("digits")
        loop.prepare(chosen)
        task = registry.create(chosen.task, data, chosen.dataset.limit)
        strategy = strategies.create(chosen.strategy)
        learner = model = loop.build(chosen, task, strategy)
        if teach:
            learner = loop.pupil(model, teach, chosen, task, strategy)
        train.history = []
        loop.fit(learner, chosen, task, lambda m, e: train.history.append(m), quiet=True, profile_to=None)
        return chosen, task, model

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
    note = pruning.Prune.on_train_batch_end

    def watch(self, batch, logs=None):
        kernels = [keras.ops.convert_to_numpy(kernel) for kernel in self.kernels]
        masks = [keras.ops.convert_to_numpy(kernel.constraint.mask) for kernel in self.kernels]
        seen.append(max(np.abs(kernel[mask == 0]).max(initial=0) for kernel, mask in zip(kernels, masks)))
        note(self, batch, logs)

    monkeypatch.setattr(pruning.Prune, "on_train_batch_end", watch)
    sparse = ("compression.sparsity=0.75", "compression.every=3")
    _, _, model = run(f"optimizer={optimizer}", f"strategy={strategy}", *sparse, "training.epochs=2")
    assert len(seen) == 16
    assert max(seen) == 0  # after each step of the optimizer, before anything is pruned again
    assert pruning.sparsity(model) == pytest.approx(0.75, abs=0.01)


@pytest.mark.parametrize("best", ["true", "false"])
@pytest.mark.parametrize("ema", ["null", "0.9"])
def test_what_is_kept_is_sparse(run, best, ema):
    _, _, model = run(
        "compression.sparsity=0.8",
        f"training.restore_best_weights={best}",
        f"training.ema={ema}",
        "optimizer.learning_rate=0.02",
    )
    assert pruning.sparsity(model) == pytest.approx(0.8, abs=0.01)


def test_the_smallest_weights_go_first_and_the_schedule_is_cubic():
    model = keras.Sequential([keras.Input((10,)), keras.layers.Dense(10)])
    kernel = np.arange(1, 101, dtype=np.float32).reshape(10, 10)
    model.layers[0].set_weights([kernel, np.zeros(10)])

    class Chosen:
        sparsity, begin, end, every = 0.8, 0.0, 1.0, 1

    prune = pruning.Prune(model, Chosen, steps=10)
    for step in range(1, 6):
        prune.on_train_batch_end(step)
        gone = round(100 * 0.8 * (1 - (1 - step / 10) ** 3))
        np.testing.assert_array_equal(model.layers[0].kernel.numpy().ravel() == 0, np.arange(100) < gone)


def test_depthwise_kernels_are_left_whole():
    model = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.DepthwiseConv2D(3), keras.layers.Conv2D(4, 1)])
    assert [kernel.shape for kernel in pruning.prunable(model)] == [(1, 1, 3, 4)]


def test_the_files_are_measured_as_they_lie(run, tmp_path):
    chosen, task, model = run("compression.export=true", "compression.calibration=100")
    found = litert.export(model, task, chosen.compression, str(tmp_path / "litert"))
    kept = task.metrics(task.test, task.predict(model, task.test, 64))
    assert found["float"]["accuracy"] == kept["accuracy"]
    assert found["float"]["nll"] == pytest.approx(kept["nll"], rel=1e-4)
    assert found["int8"]["accuracy"] == pytest.approx(kept["accuracy"], abs=0.02)
    for kind, values in found.items():
        file = (tmp_path / "litert" / f"model_{kind}.tflite").read_bytes()
        assert values["bytes"] == len(file)
        assert values["bytes_compressed"] == len(gzip.compress(file, mtime=0))
        assert 0 < values["latency_p50"] <= values["latency_p95"]
    assert found["float"]["bytes"] > 2 * found["int8"]["bytes"]


def test_the_int8_file_holds_8_bit_weights_and_activations(run, tmp_path):
    chosen, task, model = run("compression.export=true", "training.epochs=1")
    litert.export(model, task, chosen.compression, str(tmp_path / "litert"))
    interpreter = Interpreter(model_path=str(tmp_path / "litert" / "model_int8.tflite"), experimental_preserve_all_tensors=True)
    interpreter.allocate_tensors()
    assert interpreter.get_input_details()[0]["dtype"] == np.uint8
    large = [tensor for tensor in interpreter.get_tensor_details() if np.prod(tensor["shape"]) > 200]
    assert large
    assert {tensor["dtype"] for tensor in large} <= {np.int8, np.uint8}


def test_the_distillation_loss_by_hand(run, settings):
    chosen, task, teacher = run("compression.temperature=2.0", "compression.teacher_weight=0.7")
    student = loop.build(chosen, task, strategies.create(Single(name="single", device="auto")))
    learner = loop.pupil(student, lambda: teacher, chosen, task, tf.distribute.get_strategy())
    images, truth = task.train.inputs[:6], task.train.targets[:6]
    told, said = (keras.ops.convert_to_numpy(m(images, training=False)).astype(np.float64) for m in (teacher, student))
    logs = lambda z: z - np.logaddexp.reduce(z, axis=1, keepdims=True)  # noqa: E731
    hard = -logs(said)[np.arange(6), truth].mean()
    soft = np.exp(logs(told / 2))
    divergence = (soft * (logs(told / 2) - logs(said / 2))).sum(axis=1).mean() * 2**2
    found = float(learner.compute_loss(tf.constant(images), tf.constant(truth), tf.constant(said, tf.float32), training=True))
    assert found == pytest.approx(0.3 * hard + 0.7 * divergence, rel=1e-3)
    alone = float(learner.compute_loss(tf.constant(images), tf.constant(truth), tf.constant(said, tf.float32), training=False))
    assert alone == pytest.approx(hard, rel=1e-4)


def test_a_student_learns_the_same_under_every_strategy_and_leaves_its_teacher_alone(run):
    chosen, task, model = run()
    weights = model.get_weights()
    teachers = []

    def teach():
        teachers.append(task.model(cnn.build, chosen.model.hyperparameters))
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
        run(*plain, f"strategy={strategy}", teach=teach)
        losses.append([[epoch["train/loss"], epoch["val/loss"]] for epoch in run.history])
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-3)
    for teacher in teachers:
        for before, after in zip(weights, teacher.get_weights()):
            np.testing.assert_array_equal(before, after)


@pytest.mark.parametrize("asked", ["compression=litert", "compression.teacher=a-run"])
def test_what_learns_by_reward_is_not_compressed(run, asked):
    with pytest.raises(UserError, match=r"compression\.(teacher|export) does not work for a recipe that learns by reward"):
        run(asked, recipe=("model=attention", "model.kind=hard", "model.glimpse_size=4"))


def test_a_teacher_of_other_data_is_refused(run, settings):
    chosen, task, _ = run("training.epochs=1")
    recorded = settings("model=cnn", "dataset=mnist").model_dump(by_alias=True)
    with pytest.raises(UserError, match="was trained on dataset=mnist, not on dataset=digits"):
        distillation.teacher(recorded, keras.Model.load_weights, chosen, task)


def test_a_teacher_comes_back_from_its_recorded_settings_and_weights(run, tmp_path):
    chosen, task, model = run("training.epochs=1")
    model.save_weights(tmp_path / "model.weights.h5")
    again = distillation.teacher(
        chosen.model_dump(by_alias=True), lambda made: made.load_weights(tmp_path / "model.weights.h5"), chosen, task
    )
    np.testing.assert_allclose(task.predict(again, task.test, 64), task.predict(model, task.test, 64), atol=1e-6)
