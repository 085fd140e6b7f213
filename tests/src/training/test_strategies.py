"""Training on several devices gives the results of training on one."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from src import datasets
from src.config import schema as sections
from src.errors import UserError
from src.tasks import factory
from src.training import loop, strategies

SINGLE = sections.Single(name="single", device="auto")
MIRRORED = sections.Mirrored(name="mirrored", replicas=2)
# Float32 rounds differently where a sum is taken in two parts. Adam and a high learning rate make that visible within an epoch,
# on one device too; steps along the gradient do not, small ones in a deep network.
PLAIN = ("optimizer=sgd", "optimizer.momentum=0.0", "optimizer.nesterov=false")
GENTLE = (*PLAIN, "optimizer.learning_rate=0.003")
# Deep networks with batch normalisation round more: its variance over two devices is a difference of large numbers.
TOLERANCE = {"resnet": 2e-3, "lightweight": 2e-3}
CENTER = ("model.kind=hard", "model.glimpse_size=4", "model.policy=center")
RECIPES = {  # recipe: settings without randomness except initial weights and the order of the examples
    "cnn": (
        "model=cnn",
        "dataset=digits",
        "model.dropout=0",
        "model.augmentation=0",
        *PLAIN,
        "optimizer.learning_rate=0.05",
    ),
    "lstm": ("model=lstm", "dataset=co2", "model.dropout=0", "optimizer.learning_rate=1e-3"),
    "rnn": ("model=rnn", "dataset=digits", "model.dropout=0", *GENTLE),
    "resnet": ("model=resnet", "dataset=digits", "model.augmentation=0", "model.depth=8", *GENTLE),
    "lightweight": ("model=lightweight", "dataset=digits", "model.dropout=0", "model.augmentation=0", *GENTLE),
    "transformer": ("model=transformer", "dataset=dates", "model.dropout=0", "dataset.limit=1000", *GENTLE),
    "attention": ("model=attention", "dataset=dates", "model.dropout=0", "dataset.limit=1000", *GENTLE),
    "gpt": (
        "model=gpt",
        "dataset=docstrings",
        "dataset.limit=400",
        "training.steps_per_epoch=null",
        "training.previews=0",
        *GENTLE,
    ),
    "gan": ("model=gan", "dataset=digits", "training.ema=null", "training.previews=0", *GENTLE),
    "diffusion": ("model=diffusion", "dataset=digits", "training.ema=null", "training.previews=0", *GENTLE),
    "hard attention": ("model=attention", "dataset=digits", *CENTER, *GENTLE),
}


def train(run_settings):
    """{metric: [value after each epoch]}, and the weights at the end."""
    strategy = strategies.create(run_settings.strategy)
    data = datasets.load(run_settings.dataset)
    loop.prepare(run_settings)
    task = factory.create(run_settings.task, data, run_settings.dataset.limit)
    model = loop.build(run_settings, task, strategy)
    history = []
    loop.fit(model, run_settings, task, lambda metrics, epoch: history.append(metrics), profile_to=None)
    names = [name for name in history[0] if name != "examples_per_second"]
    return {name: [epoch[name] for epoch in history] for name in names}, model.get_weights()


def draw_equal_noise(monkeypatch):
    """The same noise for every image, on every device."""

    def normal(shape, **options):
        pattern = np.random.default_rng(0).normal(size=tuple(shape[1:])).astype(np.float32)
        return tf.broadcast_to(pattern, shape)

    monkeypatch.setattr(keras.random, "normal", normal)
    monkeypatch.setattr(keras.random, "uniform", lambda shape, **options: tf.fill(shape, 0.4))


@pytest.mark.parametrize(
    "recipe",
    [recipe if recipe in ("cnn", "lstm") else pytest.param(recipe, marks=pytest.mark.slow) for recipe in RECIPES],
)
def test_single_and_mirrored_have_the_same_loss_curve(settings, monkeypatch, recipe):
    if recipe in ("gan", "diffusion"):
        draw_equal_noise(monkeypatch)
    common = (*RECIPES[recipe], "training.epochs=3", "training.restore_best_weights=false")
    single, _ = train(settings(*common, "strategy=single"))
    mirrored, _ = train(settings(*common, "strategy=mirrored", "strategy.replicas=2"))
    if recipe in ("cnn", "lstm"):
        assert single["epoch/train/loss"][-1] < 0.7 * single["epoch/train/loss"][0]  # it does learn
    assert single["epoch/train/loss"][-1] != single["epoch/train/loss"][0]
    for name in ("epoch/train/loss", "epoch/val/loss"):
        np.testing.assert_allclose(mirrored[name], single[name], rtol=TOLERANCE.get(recipe, 1e-4), err_msg=name)


def test_clipping_bounds_the_gradient_of_the_whole_batch(settings):
    """Unpatched, Keras clips the gradient of each replica, which bounds the norm of the sum differently."""
    tight = ("optimizer.clip_norm=0.05", "optimizer=sgd", "optimizer.momentum=0", "optimizer.nesterov=false")
    common = (*RECIPES["lstm"], *tight, "optimizer.learning_rate=1.0", "training.epochs=1", "dataset.limit=256")
    _, single = train(settings(*common, "strategy=single"))
    _, mirrored = train(settings(*common, "strategy=mirrored"))
    for one, two in zip(single, mirrored):
        np.testing.assert_allclose(one, two, atol=1e-5)


@pytest.mark.parametrize(
    ("recipe", "strategy"),
    [
        ("lstm", "mirrored"),
        *(pytest.param(*pair, marks=pytest.mark.slow) for pair in (("cnn", "single"), ("cnn", "mirrored"), ("lstm", "single"))),
    ],
)  # fmt: skip
def test_same_seed_gives_bit_identical_runs(settings, recipe, strategy):
    dataset = RECIPES[recipe][1]
    common = (f"model={recipe}", dataset, "model.dropout=0.2", "training.epochs=2", "dataset.limit=256", f"strategy={strategy}")
    first, first_weights = train(settings(*common))
    second, second_weights = train(settings(*common))
    other, _ = train(settings(*common, "seed=1"))
    assert first == second
    for one, two in zip(first_weights, second_weights):
        np.testing.assert_array_equal(one, two)
    assert first["epoch/train/loss"] != other["epoch/train/loss"]


def run_on_replicas(compute):
    """What `compute` returns on each of two replicas."""
    strategy = strategies.create(MIRRORED)
    run = tf.function(lambda: strategy.run(compute))
    return [tensor.numpy() for tensor in strategy.experimental_local_results(run())]


def test_replicas_draw_different_numbers():
    with strategies.create(MIRRORED).scope():
        generator = keras.random.SeedGenerator(3)
        dropout = keras.layers.Dropout(0.5, seed=3)
        shift = keras.layers.RandomTranslation(0.3, 0.3, seed=3)
    image = tf.reshape(tf.range(64.0), (1, 8, 8, 1))
    for compute in (
        lambda: keras.random.normal((100,), seed=generator),
        lambda: dropout(tf.ones(100), training=True),
        lambda: shift(image, training=True),
    ):
        first, second = run_on_replicas(compute)
        assert not np.array_equal(first, second)
        assert not np.array_equal(first, run_on_replicas(compute)[0])  # and new ones every time


def test_first_replica_draws_the_numbers_of_a_single_device():
    with strategies.create(MIRRORED).scope():
        generator = keras.random.SeedGenerator(3)
    first, _ = run_on_replicas(lambda: keras.random.normal((100,), seed=generator))
    np.testing.assert_array_equal(first, keras.random.normal((100,), seed=keras.random.SeedGenerator(3)))


def test_a_process_has_one_strategy():
    assert strategies.create(MIRRORED) is strategies.create(sections.Mirrored(name="mirrored", replicas=2))
    assert strategies.create(sections.Mirrored(name="mirrored", replicas=None)).num_replicas_in_sync == 2


def test_changing_the_number_of_replicas_is_reported():
    strategies.create(MIRRORED)
    with pytest.raises(UserError, match="cannot mirror over 4 devices in a process that did so over 2"):
        strategies.create(sections.Mirrored(name="mirrored", replicas=4))


def test_missing_devices_are_named():
    if tf.config.list_physical_devices("GPU"):
        pytest.skip("this machine has a GPU")
    with pytest.raises(UserError, match=r"finds no GPU.*type strategy.device=auto or strategy.device=cpu"):
        strategies.create(sections.Single(name="single", device="gpu"))
    with pytest.raises(UserError, match=r"strategy.replicas=99, but there are 8 devices"):
        strategies.create(sections.Mirrored(name="mirrored", replicas=99))
    with pytest.raises(UserError, match=r"type training\.batch_size=62 or 64"):
        strategies.check_batch(63, strategies.create(MIRRORED))


def test_device_and_strategy_are_described_in_one_line(monkeypatch):
    monkeypatch.setenv("TF_NUM_INTRAOP_THREADS", "1")
    monkeypatch.setattr(strategies, "_gpu_names", list)
    assert strategies.describe(SINGLE) == "CPU (1 core), strategy single"
    assert strategies.describe(MIRRORED) == "CPU (1 core), strategy mirrored (2 replicas)"
    monkeypatch.setattr(strategies, "_gpu_names", lambda: ["NVIDIA A100"] * 4)
    assert strategies.describe(SINGLE) == "NVIDIA A100, strategy single"
    assert strategies.describe(SINGLE.model_copy(update={"device": "cpu"})) == "CPU (1 core), strategy single"
    assert strategies.describe(MIRRORED) == "2 × NVIDIA A100, strategy mirrored (2 replicas)"
    monkeypatch.setattr(strategies, "_gpu_names", lambda: [f"NVIDIA with a long name, which is number {n}" for n in range(2)])
    assert len(f"{strategies.describe(MIRRORED)}, mixed_bfloat16") <= 120


@pytest.mark.parametrize(
    ("gpus", "strategy", "device", "replicas"),
    [
        (0, sections.Single(name="single", device="auto"), "CPU", "1"),
        (4, sections.Single(name="single", device="auto"), "A100", "1"),
        (4, sections.Single(name="single", device="cpu"), "CPU", "1"),
        (0, sections.Mirrored(name="mirrored", replicas=None), "CPU", "2"),
        (4, sections.Mirrored(name="mirrored", replicas=None), "A100, A100, A100, A100", "4"),
        (4, sections.Mirrored(name="mirrored", replicas=2), "A100, A100", "2"),
    ],
)
def test_the_devices_in_force_are_recorded(monkeypatch, gpus, strategy, device, replicas):
    monkeypatch.setenv("TF_NUM_INTRAOP_THREADS", "3")
    monkeypatch.setattr(strategies, "_gpu_names", lambda: ["A100"] * gpus)
    tf32 = str(device != "CPU" and tf.config.experimental.tensor_float_32_execution_enabled()).lower()
    assert strategies.in_force(strategy) == {"device": device, "replicas": replicas, "cores": "3", "tf32": tf32}
