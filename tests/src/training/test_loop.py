"""Learning-rate schedules, settings of `fit`, and errors that end a run."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from recipes.specs import LearningRates
from src.errors import OutOfMemoryError, UserError
from src.tasks import factory
from src.tasks.image_classification import ImageClassification
from src.training import callbacks, loop, optimizers, strategies
from src.training.execution import Execution
from src.training.optimizers import WarmupThenDecay


def rates(schedule, steps=101, warmup=0.0, final_fraction=0.1):
    rate = WarmupThenDecay(2.0, schedule, steps, warmup, final_fraction)
    return np.array([float(rate(step)) for step in range(steps)])


def test_schedules_by_hand():
    share = np.arange(101) / 100
    np.testing.assert_allclose(rates("constant"), 2.0)
    np.testing.assert_allclose(rates("linear"), 2 * (1 - 0.9 * share), rtol=1e-5)
    np.testing.assert_allclose(rates("cosine"), 2 * (0.1 + 0.45 * (1 + np.cos(np.pi * share))), rtol=1e-5)
    np.testing.assert_allclose(rates("exponential"), 2 * 0.1**share, rtol=1e-5)


def test_warmup_rises_to_the_peak_and_the_decay_follows():
    result = rates("cosine", steps=100, warmup=0.2)
    np.testing.assert_allclose(result[:20], 2 * np.arange(1, 21) / 20, rtol=1e-5)
    assert (np.diff(result[20:]) < 0).all()
    np.testing.assert_allclose(result[-1], 0.2, rtol=1e-5)


def test_the_schedule_spans_the_run(settings, trained):
    _, history, _ = trained(
        "training.epochs=3", "optimizer.schedule=linear", "optimizer.warmup=0", "optimizer.final_fraction=0.5"
    )
    steps, peak = 4, settings("model=cnn").optimizer.learning_rate
    # After an epoch the next step's rate is shown; the last step of all has half the peak.
    expected = [peak * (1 - 0.5 * min(step / (3 * steps - 1), 1)) for step in (steps, 2 * steps, 3 * steps)]
    np.testing.assert_allclose([epoch["learning_rate"] for epoch in history], expected, rtol=1e-5)


def test_the_schedule_spans_the_run_where_gradients_are_accumulated(settings, trained):
    straight = ("optimizer.schedule=linear", "optimizer.warmup=0", "optimizer.final_fraction=0.5")
    _, history, _ = trained("training.epochs=3", "training.gradient_accumulation=2", *straight)
    peak = settings("model=cnn").optimizer.learning_rate
    np.testing.assert_allclose([epoch["learning_rate"] for epoch in history][-1], 0.5 * peak, rtol=1e-5)
    assert history[1]["learning_rate"] > 0.6 * peak  # it did not get there half way


@pytest.fixture
def trained(settings, load):
    """trained("training.epochs=3", …): the model, the metrics of each epoch, and the objective; 256 digits."""

    def train(*overrides):
        run_settings = settings("model=cnn", "model.filters=[8,8]", "training.epochs=2", "dataset.limit=256", *overrides)
        data = load("digits")  # first, as in a run: preparing data draws random numbers
        loop.prepare(run_settings)
        task = factory.create(run_settings.task, data, run_settings.dataset.limit)
        model = loop.build(run_settings, task, tf.distribute.get_strategy())
        history = []
        objective = loop.fit(model, run_settings, task, lambda metrics, epoch: history.append(metrics), profile_to=None)
        train.task = task
        return model, history, objective

    yield train
    keras.config.set_dtype_policy("float32")


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "sgd", "rmsprop"])
def test_every_optimizer_reduces_the_loss(trained, optimizer):
    _, history, _ = trained(
        f"optimizer={optimizer}", "training.epochs=5", "model.augmentation=0", "optimizer.learning_rate=2e-3"
    )
    assert history[-1]["epoch/train/loss"] < history[0]["epoch/train/loss"]


@pytest.mark.parametrize(
    "override",
    ["training.precision=mixed_bfloat16", "training.precision=mixed_float16", "training.jit_compile=true", "training.ema=0.9"],
)
def test_every_training_setting_reduces_the_loss(trained, override):
    _, history, _ = trained(override, "training.epochs=5", "model.augmentation=0")
    assert history[-1]["epoch/train/loss"] < history[0]["epoch/train/loss"]
    assert np.isfinite([value for epoch in history for value in epoch.values()]).all()


def test_gradient_norm_is_that_of_the_unscaled_loss(trained):
    """Under mixed_float16 Keras scales the loss by a power of two, so that small gradients do not vanish."""
    common = (
        "model.augmentation=0",
        "model.dropout=0",
        "training.epochs=1",
        "training.restore_best_weights=false",
        "training.gradient_norm=true",
    )
    _, expected, _ = trained(*common)
    _, history, _ = trained(*common, "training.precision=mixed_float16")
    for name in ("epoch/train/gradient_norm", "epoch/train/gradient_norm_max"):
        assert history[0][name] == pytest.approx(expected[0][name], rel=0.05)


@pytest.mark.parametrize("accumulation", [1, 4])
@pytest.mark.parametrize("decay_biases", [False, True])
def test_only_matrices_decay(settings, load, decay_biases, accumulation):
    """One update with gradients of zero, by which Adam moves nothing."""
    run_settings = settings(
        "model=cnn", "model.filters=[4]", "optimizer=adamw", "optimizer.weight_decay=0.1", "optimizer.learning_rate=0.5",
        "optimizer.warmup=0", "optimizer.schedule=constant", f"optimizer.decay_biases={decay_biases}", "dataset.limit=64",
        f"training.gradient_accumulation={accumulation}",
    )  # fmt: skip
    task = factory.create(run_settings.task, load("digits"), run_settings.dataset.limit)
    model = loop.build(run_settings, task, tf.distribute.get_strategy())
    for weight in model.trainable_weights:
        weight.assign(np.ones(weight.shape))
    for _ in range(accumulation):
        model.optimizer.apply([tf.zeros(weight.shape) for weight in model.trainable_weights])
    kept = {"bias", "beta", "gamma"}  # the names that Keras gives to biases and to the parameters of normalization
    assert kept < {weight.name for weight in model.trainable_weights}
    for weight in model.trainable_weights:
        expected = 1.0 if weight.name in kept and not decay_biases else 1 - 0.5 * 0.1
        np.testing.assert_allclose(weight, np.full(weight.shape, expected), rtol=1e-6)


def test_accumulated_gradients_are_those_of_the_large_batch(trained):
    common = ("model.normalization=false", "model.augmentation=0", "model.dropout=0", "optimizer=sgd", "optimizer.momentum=0")
    common = (
        *common,
        "optimizer.nesterov=false",
        "training.restore_best_weights=false",
        "optimizer.schedule=constant",
        "training.epochs=1",
    )
    common = (*common, "optimizer.warmup=0")
    large, _, _ = trained(*common, "training.batch_size=64")
    small, _, _ = trained(*common, "training.batch_size=32", "training.gradient_accumulation=2")
    for one, two in zip(large.get_weights(), small.get_weights()):
        np.testing.assert_allclose(one, two, atol=2e-6)


@pytest.mark.parametrize("accumulation", [1, 3])
@pytest.mark.parametrize("momentum", [0.0, 0.8, 0.999])
def test_ema_moves_once_per_update_and_is_bias_corrected(settings, accumulation, momentum):
    run_settings = settings(
        "model=cnn", "optimizer=sgd", f"training.ema={momentum}", f"training.gradient_accumulation={accumulation}"
    )
    optimizer = optimizers.create(run_settings.optimizer, run_settings.training, 60)
    weight = keras.Variable(np.zeros(5, np.float32))
    optimizer.build([weight])
    draw, updates = np.random.default_rng(0), []
    for step in range(1, 31):
        optimizer.apply([tf.constant(draw.normal(size=5), tf.float32)])
        if step % accumulation == 0:
            updates.append(keras.ops.convert_to_numpy(weight).copy())
            expected = np.average(updates, axis=0, weights=momentum ** np.arange(len(updates))[::-1])
        if step >= accumulation:
            (average,) = optimizer._model_variables_moving_average
            np.testing.assert_allclose(average, expected, rtol=1e-4, atol=1e-6)


def test_ema_weights_are_kept(trained):
    common = (
        "training.restore_best_weights=false",
        "optimizer=sgd",  # Adam would turn rounding errors of a gradient near 0 into steps
        "optimizer.learning_rate=0.1",
        "optimizer.warmup=0",
        "optimizer.schedule=constant",
        "training.epochs=1",
        "training.steps_per_execution=1",  # so that the weights are seen after each step
        "training.gradient_accumulation=2",
        "model.normalization=false",
        "model.augmentation=0",
    )
    averaged, _, _ = trained(*common, "training.ema=0.5")
    seen = []
    original_fit = keras.Model.fit

    def fit(model, *args, callbacks, **more):
        note = keras.callbacks.LambdaCallback(
            on_train_batch_end=lambda batch, logs: seen.append(
                [keras.ops.convert_to_numpy(w).copy() for w in model.trainable_weights]
            )
        )
        return original_fit(model, *args, callbacks=[*callbacks, note], **more)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(keras.Model, "fit", fit)
        trained(*common)
    _, first, _, last = seen
    for kept, one, two in zip(averaged.trainable_weights, first, last):
        assert np.abs(one - two).max() > 1e-4
        np.testing.assert_allclose(keras.ops.convert_to_numpy(kept), (one + 2 * two) / 3, atol=1e-6)


def test_ema_over_the_whole_run_is_warned_of(settings, caplog):
    def check(momentum):
        caplog.clear()
        loop._check_updates(settings("model=cnn", f"training.ema={momentum}", "training.epochs=5").training, steps=8)
        return caplog.text

    assert "over the whole run, which has 40 updates; type training.ema=0.92 or less" in check(0.998)
    assert check(0.92) == ""


def test_best_weights_are_restored(trained):
    wild = ("optimizer.learning_rate=0.2", "optimizer.schedule=constant", "optimizer.warmup=0")
    model, history, objective = trained("training.epochs=5", *wild)
    losses = [epoch["epoch/val/loss"] for epoch in history]
    assert objective == min(losses)
    assert losses[-1] != min(losses)  # else nothing is tested
    result = trained.task.metrics(trained.task.validation, trained.task.predict(model, trained.task.validation, 64))
    np.testing.assert_allclose(result["nll"], min(losses), rtol=1e-4)


def test_last_weights_are_kept_without_restore_best_weights(trained):
    common = (
        "training.epochs=6",
        "optimizer.learning_rate=0.05",
        "optimizer.schedule=constant",
        "training.restore_best_weights=false",
    )
    model, history, objective = trained(*common)
    assert objective == history[-1]["epoch/val/loss"]
    result = trained.task.metrics(trained.task.validation, trained.task.predict(model, trained.task.validation, 64))
    np.testing.assert_allclose(result["nll"], objective, rtol=1e-4)


def test_gradient_norm_is_measured_before_clipping(trained):
    plain = (
        "optimizer=sgd",
        "optimizer.momentum=0",
        "optimizer.nesterov=false",
        "optimizer.schedule=constant",
        "optimizer.warmup=0",
    )
    plain = (*plain, "optimizer.learning_rate=0.1", "model.dropout=0", "model.augmentation=0", "model.normalization=false")
    one_step = (
        *plain,
        "training.epochs=1",
        "training.steps_per_epoch=1",
        "training.restore_best_weights=false",
        "training.gradient_norm=true",
    )
    start, _, _ = trained(
        *plain,
        "training.epochs=1",
        "training.steps_per_epoch=1",
        "training.restore_best_weights=false",
        "optimizer.learning_rate=1e-9",
    )
    model, history, _ = trained(*one_step)
    moved = np.concatenate([(a - b).ravel() for a, b in zip(model.get_weights(), start.get_weights())])
    result = history[0]["epoch/train/gradient_norm"]
    assert result == pytest.approx(np.linalg.norm(moved) / 0.1, rel=1e-3)  # a step of SGD is the gradient times the rate
    assert history[0]["epoch/train/gradient_norm_max"] == pytest.approx(result)
    _, clipped, _ = trained(*one_step, "optimizer.clip_norm=0.001")
    assert clipped[0]["epoch/train/gradient_norm"] == pytest.approx(result, rel=1e-5)


def test_training_stops_early(trained):
    _, history, _ = trained("training.epochs=40", "training.early_stopping=2", "optimizer.learning_rate=0.05")
    losses = [epoch["epoch/val/loss"] for epoch in history]
    assert len(losses) < 40
    assert losses.index(min(losses)) == len(losses) - 3


def test_nan_loss_ends_the_run(trained):
    message = (
        r"The loss became (nan|inf) in epoch 1, step 2; the first layer whose output is not finite is 'block.*_convolution'"
    )
    with pytest.raises(UserError, match=message):
        trained("optimizer=sgd", "optimizer.learning_rate=1e30", "model.normalization=false", "training.epochs=1")


class Rooted(keras.layers.Layer):
    """At 0 its output is finite, its gradient is not."""

    def call(self, x):
        return keras.ops.sqrt(keras.ops.relu(x) * 0)


@pytest.mark.parametrize("more", [(), ("training.gradient_accumulation=2",), ("optimizer=adamw", "optimizer.weight_decay=0.1")])
def test_nan_gradient_ends_the_run_and_leaves_the_weights(settings, more):
    source = keras.Input((3,))
    middle = keras.layers.Dense(2, name="before")(source)
    model = keras.Model(source, keras.layers.Dense(1, name="after")(Rooted(name="root")(middle)))
    run_settings = settings("model=cnn", "optimizer.weight_decay=null", *more)
    model.compile(optimizers.create(run_settings.optimizer, run_settings.training, 10), "mse")
    x, y = np.ones((8, 3), np.float32), np.ones((8, 1), np.float32)
    execution = Execution(model, steps=2)
    execution.size = 2
    watch = callbacks.FailOnNaN(execution, lambda epoch, step: x)
    with pytest.raises(UserError, match=r"The gradient became nan or inf in epoch 1, step 1; .* is 'before'"):
        model.fit(x, y, batch_size=4, steps_per_epoch=execution.per_epoch, verbose=0, callbacks=[execution, watch])
    assert all(np.isfinite(weight).all() for weight in model.get_weights())


def test_nan_gradient_on_one_replica_stops_all_replicas(settings):
    strategy = strategies.create(settings("model=cnn", "strategy=mirrored").strategy)
    run_settings = settings("model=cnn", "optimizer=sgd")
    with strategy.scope():
        weight = keras.Variable([1.0, 2.0], name="weight")
        optimizer = optimizers.create(run_settings.optimizer, run_settings.training, 10)
        optimizer.build([weight])

    @tf.function
    def step():
        def on_replica():
            number = tf.distribute.get_replica_context().replica_id_in_sync_group
            optimizer.apply([tf.where(number == 1, np.nan, tf.ones(2))], [weight])

        strategy.run(on_replica)

    step()
    assert optimizer.non_finite_gradients() == [weight.path]
    for value in strategies.replica_values(weight):
        np.testing.assert_array_equal(value, [1.0, 2.0])


def test_out_of_memory_is_reported_in_one_sentence(trained):
    with pytest.raises(OutOfMemoryError, match=r"Out of memory with training\.batch_size=32; a smaller one may help"):
        trained("training.batch_size=32", "model.filters=[3000000,3000000]")  # 324 TB of weights


def test_steps_per_epoch_can_be_set(trained):
    model, history, _ = trained("training.steps_per_epoch=10", "training.epochs=2")
    assert int(model.optimizer.iterations) == 20
    assert len(history) == 2


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("training.batch_size=257", "more than the 256 training examples; type training.batch_size=256 or less"),
        (
            "training.gradient_accumulation=9",
            "=9 is more than the 8 steps of the run, .* type training.gradient_accumulation=8 or less",
        ),
        (
            "training.monitor=val_accurcy",
            "no metric training.monitor=val_accurcy; available: val_loss, val_accuracy, loss, accuracy",
        ),
    ],
)
def test_errors_are_reported_in_one_sentence(trained, override, message):
    with pytest.raises(UserError, match=message):
        trained(override)


def test_errors_of_recipes_are_reported_in_one_sentence(trained, monkeypatch):
    def build(inputs, outputs, **hyperparameters):
        raise ValueError("depth must be\n6n + 2, not 9")

    monkeypatch.setattr(loop.hydra.utils, "get_method", lambda target: build)
    with pytest.raises(UserError, match=r"model=cnn cannot be built: depth must be 6n \+ 2, not 9"):
        trained()


def test_learning_rate_factor_of_a_layer(settings):
    slow, fast = keras.layers.Dense(2, name="slow"), keras.layers.Dense(2, name="fast")

    class Model(keras.Model, LearningRates):
        def learning_rate_factors(self):
            return [(fast, 4.0)]

    source = keras.Input((3,))
    model = Model(source, fast(slow(source)))
    run_settings = settings("model=cnn", "optimizer=sgd", "optimizer.momentum=0", "optimizer.nesterov=false",
        "optimizer.schedule=constant", "optimizer.warmup=0", "optimizer.learning_rate=0.1")  # fmt: skip
    factors = optimizers.learning_rate_factors(model)
    optimizer = optimizers.create(run_settings.optimizer, run_settings.training, 10, factors)
    before = model.get_weights()
    optimizer.apply([tf.ones_like(weight) for weight in model.trainable_variables], model.trainable_variables)
    for weight, was, step in zip(model.trainable_variables, before, (0.1, 0.1, 0.4, 0.4)):
        np.testing.assert_allclose(keras.ops.convert_to_numpy(weight), was - step, atol=1e-6)


def test_weights_are_transferred_by_name_and_shape(caplog):
    def model(classes, units=4):
        source = keras.Input((3,))
        x = keras.layers.Dense(units, name="same")(source)
        return keras.Model(source, keras.layers.Dense(classes, name="answer")(keras.layers.Dense(5, name="second")(x)))

    source, other = model(2), model(7)
    with caplog.at_level("INFO"):
        loop.transfer_weights(source, other)
    assert "Pretrained layers: same, second." in caplog.text
    for name in ("same", "second"):
        for one, two in zip(source.get_layer(name).get_weights(), other.get_layer(name).get_weights()):
            np.testing.assert_array_equal(one, two)


@pytest.mark.parametrize(("previews", "epochs"), [(0, []), (1, [5]), (2, [2, 5]), (9, [1, 2, 3, 4, 5])])
def test_previews_are_evenly_spaced_and_include_the_last_epoch(settings, monkeypatch, previews, epochs):
    monkeypatch.setattr(ImageClassification, "preview", lambda task, model: ({"seen": 1.0}, lambda: {"seen.txt": "something"}))
    model_settings = settings("model=cnn", "training.epochs=5", f"training.previews={previews}").training
    logged, shown = [], []
    task = ImageClassification.__new__(ImageClassification)
    preview = callbacks.SamplePreview(
        task,
        lambda metrics, step: logged.append((metrics, step)),
        lambda draw, epoch: shown.append((draw(), epoch)),
        model_settings,
    )
    preview.set_model(keras.Sequential())
    monkeypatch.setattr(task, "preview_metrics", ("seen",), raising=False)
    logs = [{} for _ in range(5)]
    for epoch in range(5):
        preview.on_epoch_end(epoch, logs[epoch])
    assert logged == [({"epoch/val/seen": 1.0}, epoch) for epoch in epochs]
    assert [epoch for epoch in range(1, 6) if logs[epoch - 1] == {"val_seen": 1.0}] == epochs
    assert shown == [({"seen.txt": "something"}, epoch) for epoch in epochs]


class AddMetric(keras.callbacks.Callback):
    """Adds a metric to some epochs, and records the weights that it belongs to."""

    def __init__(self, values):
        super().__init__()
        self.values, self.weights = values, {}

    def on_epoch_end(self, epoch, logs=None):
        if epoch in self.values:
            logs["val_frechet_distance"] = self.values[epoch]
            self.weights[epoch] = self.model.get_weights()


def test_metrics_of_some_epochs_can_be_monitored():
    model = keras.Sequential([keras.layers.Dense(1)])
    model.compile(optimizer=keras.optimizers.SGD(0.1), loss="mse")
    adder, reported = AddMetric({1: 3.0, 3: 2.0, 5: 4.0}), []
    best = callbacks.BestWeights(monitor="val_frechet_distance", mode="min", patience=9, restore_best_weights=True)
    reporter = callbacks.MetricReporter("val_frechet_distance", lambda value, epoch: reported.append((epoch, value)))
    model.fit(np.ones((4, 2)), np.ones((4, 1)), epochs=6, callbacks=[adder, best, reporter], verbose=0)
    assert best.best == 2.0
    np.testing.assert_array_equal(model.get_weights()[0], adder.weights[3][0])
    assert reported == [(2, 3.0), (4, 2.0)]  # the last epoch is not reported


def test_preview_metrics_cannot_be_monitored_without_previews(settings):
    class Generative:
        preview_metrics = ("frechet_distance",)

        def training_metrics(self, model):
            return []

    run_settings = settings("model=gan", "training.monitor=val_frechet_distance", "training.previews=0").training
    with pytest.raises(UserError, match=r"type training\.previews=1 or more"):
        loop._check_monitor(run_settings, Generative(), None)
    with pytest.raises(UserError, match="available: val_loss, val_frechet_distance, loss"):
        loop._check_monitor(settings("model=gan", "training.monitor=val_accuracy").training, Generative(), None)
