"""What the machinery costs over bare Keras: `python -m tests.bench_overhead`. It prints, and asserts nothing about time.

The same model, pipeline and data are trained by `model.fit` alone and by a whole run: MNIST, if CATALOGUE_DATA_DIR names a
folder that holds it, else random images of the same shape and number.
"""

import os
import statistics
import tempfile
import time

import keras
import numpy as np

from src import terminal

terminal.load_tensorflow()

from hydra import compose, initialize_config_dir  # noqa: E402

from src import config, datasets, experiment  # noqa: E402
from src.datasets import Data, Split, pipeline  # noqa: E402
from src.tasks import registry  # noqa: E402
from src.training import loop, strategies  # noqa: E402


def random_images(chosen) -> Data:
    draw = np.random.default_rng(0)
    counts = {"train": 54_000, "validation": 6_000, "test": 10_000}
    parts = {
        name: Split(draw.integers(0, 256, (count, 28, 28, 1), np.uint8), draw.integers(0, 10, count))
        for name, count in counts.items()
    }
    return Data("mnist", "random images", "", **parts, classes=tuple("0123456789"))


def bare(chosen) -> tuple[float, float]:
    """Seconds of the second epoch, and of everything, with nothing but Keras: build, fit, predict."""
    began = time.perf_counter()
    data = datasets.load(chosen.dataset)
    loop.prepare(chosen)
    task = registry.create(chosen.task, data)
    model = loop.build(chosen, task, strategies.create(chosen.strategy))
    epochs = EpochTimes()
    model.fit(
        pipeline.training(task.train, chosen.training.batch_size, chosen.seed),
        validation_data=pipeline.evaluation(task.validation, chosen.training.batch_size),
        epochs=chosen.training.epochs,
        steps_per_epoch=loop.steps_per_epoch(chosen.training, task.train),
        shuffle=False,
        verbose=0,
        callbacks=[epochs],
    )
    model.predict(pipeline.prediction(task.test, chosen.training.batch_size), verbose=0)
    return epochs.seconds[-1], time.perf_counter() - began


def whole(chosen) -> tuple[float, float]:
    """The same, as `python -m src.run` does it."""
    epochs = EpochTimes()
    fit = keras.Model.fit
    keras.Model.fit = lambda model, *args, callbacks, **more: fit(model, *args, callbacks=[epochs, *callbacks], **more)
    began = time.perf_counter()
    try:
        experiment.run(chosen, quiet=True)
    finally:
        keras.Model.fit = fit
    return epochs.seconds[-1], time.perf_counter() - began


class EpochTimes(keras.callbacks.Callback):
    """Seconds of each epoch, from its beginning to the next one's."""

    def __init__(self):
        super().__init__()
        self.seconds = []

    def on_epoch_begin(self, epoch, logs=None):
        self.began = time.perf_counter()
        if epoch:
            self.seconds.append(self.began - self.previous)
        self.previous = self.began

    def on_train_end(self, logs=None):
        self.seconds.append(time.perf_counter() - self.previous)


def main() -> None:
    os.chdir(tempfile.mkdtemp())
    strategies.prepare_devices()
    with initialize_config_dir(str(config.CONF), version_base="1.3"):
        overrides = ["model=cnn", "dataset=mnist", "training.epochs=2"]
        if folder := os.environ.get("CATALOGUE_DATA_DIR"):
            overrides.append(f"dataset.data_dir={folder}")
        chosen = config.checked(compose("config", overrides))
        short = config.checked(compose("config", [*overrides, "training.steps_per_epoch=5"]))
    if not folder:
        datasets.load = random_images
    datasets.load(chosen.dataset)
    whole(short)  # imports, MLflow's database, caches

    print("a run of two epochs of 5 steps: build, train, validate, test; and what a run adds to that")
    _, bare_run, _, run_seconds = in_turns(short, rounds=5)
    print(f"bare {bare_run:.2f} s, whole run {run_seconds:.2f} s: {run_seconds - bare_run:+.2f} s a run\n")
    print("the second epoch of two, over all 54,000 images")
    bare_epoch, _, epoch, _ = in_turns(chosen, rounds=2)
    print(f"bare {bare_epoch:.2f} s, in a run {epoch:.2f} s: {epoch / bare_epoch - 1:+.1%} an epoch")


def in_turns(chosen, rounds: int) -> list[float]:
    """Median seconds of an epoch and of everything, bare and whole: in turns, so that a slow minute hits both."""
    found = []
    for _ in range(rounds):
        found.append((*bare(chosen), *whole(chosen)))
        print(
            "  bare: epoch {:6.2f} s, all {:6.2f} s   whole run: epoch {:6.2f} s, all {:6.2f} s".format(*found[-1]), flush=True
        )
    return [statistics.median(column) for column in zip(*found)]


if __name__ == "__main__":
    main()
