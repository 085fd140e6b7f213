"""Overhead of a run over bare Keras: `python -m tests.bench.overhead`. It prints times, and asserts nothing about them.

The same model is trained on the same data by `model.fit` alone and by a whole run: on MNIST, if CATALOGUE_DATA_DIR names a
folder that contains it, otherwise on random images of the same shape and number.
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
from src.tasks import factory  # noqa: E402
from src.training import loop, strategies  # noqa: E402


def random_images(settings) -> Data:
    """A data set of the size of MNIST, in place of `datasets.load`."""
    generator = np.random.default_rng(0)
    counts = {"train": 54_000, "validation": 6_000, "test": 10_000}
    splits = {
        name: Split(generator.integers(0, 256, (count, 28, 28, 1), np.uint8), generator.integers(0, 10, count))
        for name, count in counts.items()
    }
    return Data("mnist", "random images", "", **splits, classes=tuple("0123456789"))


def bare_keras(settings) -> tuple[float, float]:
    """Seconds of the second epoch, and of everything (build, fit, predict), with Keras alone."""
    start = time.perf_counter()
    data = datasets.load(settings.dataset)
    loop.prepare(settings)
    task = factory.create(settings.task, data)
    model = loop.build(settings, task, strategies.create(settings.strategy))
    epochs = EpochTimes()
    model.fit(
        pipeline.training(task.train, settings.training.batch_size, settings.seed),
        validation_data=pipeline.evaluation(task.validation, settings.training.batch_size),
        epochs=settings.training.epochs,
        steps_per_epoch=loop.steps_per_epoch(settings.training, task.train),
        shuffle=False,
        verbose=0,
        callbacks=[epochs],
    )
    model.predict(pipeline.prediction(task.test, settings.training.batch_size), verbose=0)
    return epochs.seconds[-1], time.perf_counter() - start


def whole_run(settings) -> tuple[float, float]:
    """The same of `python -m src.run`."""
    epochs = EpochTimes()
    fit = keras.Model.fit
    keras.Model.fit = lambda model, *args, callbacks, **kwargs: fit(model, *args, callbacks=[epochs, *callbacks], **kwargs)
    start = time.perf_counter()
    try:
        experiment.run(settings)
    finally:
        keras.Model.fit = fit
    return epochs.seconds[-1], time.perf_counter() - start


class EpochTimes(keras.callbacks.Callback):
    """Seconds of each epoch, from its start to that of the next one."""

    def __init__(self):
        super().__init__()
        self.seconds = []

    def on_epoch_begin(self, epoch, logs=None):
        now = time.perf_counter()
        if epoch:
            self.seconds.append(now - self.start)
        self.start = now

    def on_train_end(self, logs=None):
        self.seconds.append(time.perf_counter() - self.start)


def main() -> None:
    """The command line."""
    os.chdir(tempfile.mkdtemp())
    strategies.prepare_devices()
    with initialize_config_dir(str(config.CONF), version_base="1.3"):
        overrides = ["model=cnn", "dataset=mnist", "training.epochs=2"]
        if folder := os.environ.get("CATALOGUE_DATA_DIR"):
            overrides.append(f"dataset.data_dir={folder}")
        settings = config.validate(compose("config", overrides))
        short = config.validate(compose("config", [*overrides, "training.steps_per_epoch=5"]))
    if not folder:
        datasets.load = random_images
    datasets.load(settings.dataset)
    whole_run(short)  # imports, MLflow's database, caches

    print("two epochs of 5 steps: build, train, validate and test with bare Keras, and in a whole run")
    _, bare_run, _, run_seconds = alternate(short, rounds=5)
    print(f"bare {bare_run:.2f} s, whole run {run_seconds:.2f} s: {run_seconds - bare_run:+.2f} s a run\n")
    print("the second epoch of two, over all 54,000 images")
    bare_epoch, _, epoch, _ = alternate(settings, rounds=2)
    print(f"bare {bare_epoch:.2f} s, in a run {epoch:.2f} s: {epoch / bare_epoch - 1:+.1%} an epoch")


def alternate(settings, rounds: int) -> list[float]:
    """Median seconds of an epoch and of everything, bare and whole; alternating, so that a slow minute affects both."""
    results = []
    for _ in range(rounds):
        results.append((*bare_keras(settings), *whole_run(settings)))
        print(
            "  bare: epoch {:6.2f} s, all {:6.2f} s   whole run: epoch {:6.2f} s, all {:6.2f} s".format(*results[-1]),
            flush=True,
        )
    return [statistics.median(column) for column in zip(*results)]


if __name__ == "__main__":
    main()
