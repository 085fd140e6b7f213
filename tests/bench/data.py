"""Speed and memory of reading images and texts: `python -m tests.bench.data`. It prints figures, and asserts nothing.

`--images 20000 --megabytes 1000` says how much is made for it, in a temporary folder, and read as a user's own; 0: nothing.
`--mnist DIR` reads MNIST, too, from a data folder of TFDS (where it is not prepared, it is downloaded).

- JPEG pictures of 256 pixels, dataset=images, at 224 pixels. The share of a training step of the ResNet at 64 pixels that waits
  for data is measured, too.
- Texts of words that are as frequent as those of a language, dataset=corpus, in windows of the GPT. What a first run does until
  it has these windows is timed, too.

The peak of memory is measured in a process that does what a first run does, and reads one epoch from disk, for a sixteenth, a
quarter and all of the data. TFDS has prepared the data before, for which it takes up to 1 GB. Only the process's own memory is
counted: the system takes back pages of a mapped file where memory is short. Then batches are read from disk,
from memory, and, if `pip install grain` was typed, by Grain from the same files with as many threads, in rounds that alternate.
"""

import argparse
import importlib.util
import io
import itertools
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

PICTURES = "model=resnet", "dataset=images", "dataset.image_size=[224,224]"
PIXELS, CLASSES = 256, 10
TEXTS, WORDS, LINE = ("model=gpt", "dataset=corpus"), 50_000, 12  # different words; words in a line
SHARES = (1, 4, 16)  # of the data, in sixteenths
BATCH, ROUNDS, SECONDS = 64, 5, 8.0
THREADS = os.cpu_count() or 1


def start() -> None:
    """Load TensorFlow, and show the log."""
    from src import terminal

    terminal.log_to_terminal()
    terminal.load_tensorflow()


def make_pictures(folder: Path, number: int) -> None:
    """Write pictures: random colors on coarse and on fine grids, so that a JPEG file has about the size of a photograph's."""
    generator = np.random.default_rng(0)
    for index in range(number):
        grids = [generator.integers(0, 256, (size, size, 3), dtype=np.uint8) for size in (4, 16, 64)]
        layers = [np.asarray(Image.fromarray(grid).resize((PIXELS, PIXELS), Image.Resampling.BICUBIC), float) for grid in grids]
        picture = np.average(layers, axis=0, weights=(4, 2, 1)).astype(np.uint8)
        path = folder / f"class{index % CLASSES}" / f"{index}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(path, quality=90)


def make_texts(folder: Path, megabytes: int) -> None:
    """Write text files of a megabyte: lines of words, the n-th of which is as frequent as 1/n (Zipf's law)."""
    generator = np.random.default_rng(0)
    letters, lengths = generator.integers(ord("a"), ord("z") + 1, (WORDS, 10), np.uint8), generator.integers(2, 11, WORDS)
    words = np.array([row[:length].tobytes() for row, length in zip(letters, lengths)], dtype=object)
    frequencies = 1 / np.arange(1, WORDS + 1)
    frequencies /= frequencies.sum()
    lines = round(1e6 / LINE / (frequencies @ lengths + 1))  # a space or the end of the line follows a word
    folder.mkdir()
    for number in range(megabytes):
        drawn = words[generator.choice(WORDS, (lines, LINE), p=frequencies)]
        (folder / f"{number}.txt").write_bytes(b"".join(b" ".join(line) + b"\n" for line in drawn))


def settings_of(*overrides: str) -> Any:
    """The checked settings of a run."""
    from hydra import compose, initialize_config_dir

    from src import config

    with initialize_config_dir(str(config.CONF), version_base="1.3"):
        return config.validate(compose("config", list(overrides)))


def files(path: str) -> tuple[str, str]:
    """The overrides of a run on files, which are prepared beside them."""
    return f"dataset.path={path}", f"dataset.data_dir={Path(path).parent / 'prepared'}"


def training_set(*overrides: str) -> Any:
    """The training set of a run, encoded."""
    from src import datasets
    from src.tasks import factory

    settings = settings_of(*overrides)
    datasets.load.cache_clear()
    return factory.create(settings.task, datasets.load(settings.dataset)).train


def batches(split: Any) -> Iterator:
    """Endless batches of a training set."""
    from src.datasets import pipeline

    return iter(pipeline.training(split, BATCH, seed=0))


def read_epoch(split: Any) -> None:
    """Read one epoch of a training set."""
    for _ in itertools.islice(batches(split), len(split) // BATCH):
        pass


def grain_images(*overrides: str, size: tuple[int, int] | None = None) -> Any:
    """What Grain reads images from: records of the same files, decoded and, to a width and height, resized with Pillow."""
    import grain
    import tensorflow_datasets as tfds
    from array_record.python.array_record_data_source import ArrayRecordDataSource

    from src import datasets
    from src.datasets import array_records

    builder = datasets.prepare(settings_of(*overrides).dataset)
    features = tfds.decode.PartialDecoding({"image": True, "label": True}).extract_features(builder.info.features)
    undecoded = {"image": tfds.decode.SkipDecoding()}

    def example(record: bytes) -> tuple[np.ndarray, object]:
        values = features.deserialize_example_np(record, decoders=undecoded)
        image = Image.open(io.BytesIO(values["image"]))
        return np.asarray(image.resize(size, Image.Resampling.BILINEAR) if size else image), values["label"]

    return grain.MapDataset.source(ArrayRecordDataSource(array_records.files(builder, "train"))).map(example)


def grain_windows(split: Any) -> Any:
    """What Grain reads windows from: the same views of the file of tokens."""
    import grain

    return grain.MapDataset.range(len(split)).map(lambda row: (split.inputs[row], split.targets[row]))


def grain_batches(source: Any) -> Iterator:
    """Endless batches by Grain, each epoch in another order."""
    import grain

    shuffled = source.seed(0).shuffle().repeat().batch(BATCH, drop_remainder=True)
    # Of batches, few: a large buffer would be filled in the rounds of other sources, and slow them down.
    return iter(shuffled.to_iter_dataset(grain.ReadOptions(num_threads=THREADS, prefetch_buffer_size=2 * THREADS)))


def rate(source: Iterator) -> float:
    """Examples a second, after the first batches."""
    for _ in itertools.islice(source, 3):
        pass
    start, count = time.perf_counter(), 0
    while time.perf_counter() - start < SECONDS:
        next(source)
        count += BATCH
    return count / (time.perf_counter() - start)


def compare(sources: dict[str, Iterator]) -> None:
    """Print the median of the examples a second of each source over alternating rounds, and the ratio to the first."""
    rates: dict[str, list[float]] = {name: [] for name in sources}
    for _ in range(ROUNDS):
        for name, source in sources.items():
            rates[name].append(rate(source))
    first = next(iter(rates))
    for name, values in rates.items():
        ratio = statistics.median(value / other for value, other in zip(values, rates[first]))
        print(f"  {name:12} {statistics.median(values):8,.0f} examples/s ({min(values):,.0f} to {max(values):,.0f}), "
              f"{ratio:.2f} × {first}", flush=True)  # fmt: skip


def peak_memory(function: str, path: str) -> None:
    """Print the peak of the memory of a process that calls a function of this module with a path."""
    program = f"from tests.bench import data; data.start(); data.{function}({path!r})"
    process, peak = subprocess.Popen([sys.executable, "-c", program]), 0.0
    while process.poll() is None:
        own = re.search(r"RssAnon:\s*(\d+)", Path(f"/proc/{process.pid}/status").read_text())  # none once it has ended
        peak = max(peak, int(own[1]) / 2**10 if own else 0)
        time.sleep(0.01)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, function)
    print(f"    peak of memory {peak:,.0f} MiB", flush=True)


def read_pictures(pictures: str) -> None:
    """Read an epoch of pictures from disk."""
    split = training_set(*PICTURES, *files(pictures), "dataset.storage=disk")
    print(f"  {len(split):,} pictures", flush=True)
    read_epoch(split)


def read_texts(texts: str) -> None:
    """Do what a first run does with texts on disk, print how long it takes, and read an epoch."""
    from src import datasets
    from src.tasks.language_modeling import LanguageModeling
    from src.tasks.tokenizers import Tokenizer, training_texts

    settings, times = settings_of(*TEXTS, *files(texts), "dataset.storage=disk"), [time.perf_counter()]
    data = datasets.load(settings.dataset)
    times.append(time.perf_counter())
    learned_from = training_texts(data.train.raw_inputs, settings.task.tokenizer)
    tokenizer = Tokenizer.train(learned_from, settings.task.tokenizer, settings.task.vocabulary_size)
    times.append(time.perf_counter())
    split = LanguageModeling(settings.task, data, tokenizer).train
    times.append(time.perf_counter())
    read_epoch(split)
    times.append(time.perf_counter())
    checking, learning, encoding, reading = np.diff(times)
    print(
        f"  {len(split):,} windows: texts checked in {checking:.1f} s, vocabulary learned in {learning:.1f} s, "
        f"tokens written in {encoding:.1f} s, an epoch read in {reading:.1f} s", flush=True,
    )  # fmt: skip


def waiting_share(pictures: str) -> None:
    """Print how much longer a training step of the ResNet at 64 pixels takes from disk than with a batch that is there."""
    import keras
    import tensorflow as tf

    from src import datasets
    from src.datasets import pipeline
    from src.tasks import factory
    from src.training import loop, strategies

    overrides = "dataset.image_size=[64,64]", "dataset.storage=disk", f"training.batch_size={BATCH}"
    run_settings = settings_of(*PICTURES, *files(pictures), *overrides)
    loop.prepare(run_settings)
    task = factory.create(run_settings.task, datasets.load(run_settings.dataset))
    model: keras.Model = loop.build(run_settings, task, strategies.create(run_settings.strategy))
    from_disk = pipeline.training(task.train, BATCH, seed=0)
    one = next(iter(from_disk))
    there = tf.data.Dataset.from_tensors(one).repeat()
    times: dict[str, list[float]] = {"disk": [], "there": []}
    for _ in range(ROUNDS + 1):
        for name, source in (("disk", from_disk), ("there", there)):
            start = time.perf_counter()
            model.fit(source, steps_per_epoch=20, epochs=1, verbose=0)
            times[name].append((time.perf_counter() - start) / 20)
    disk, ready = (statistics.median(values[1:]) for values in times.values())  # the first round traces
    print(f"  step of the ResNet at 64 pixels: {1e3 * disk:.0f} ms from disk, {1e3 * ready:.0f} ms with a batch that is there: "
          f"{100 * (1 - ready / disk):.1f} % waiting", flush=True)  # fmt: skip


def measure_mnist(data_dir: str, has_grain: bool) -> None:
    """Print the figures of MNIST."""
    mnist = "model=cnn", "dataset=mnist", f"dataset.data_dir={data_dir}"
    print(f"MNIST, {THREADS} threads:", flush=True)
    sources = {storage: batches(training_set(*mnist, f"dataset.storage={storage}")) for storage in ("disk", "memory")}
    compare(sources | ({"Grain": grain_batches(grain_images(*mnist))} if has_grain else {}))


def measure_pictures(scratch: Path, number: int, has_grain: bool) -> None:
    """Make pictures, and print their figures."""
    from src import datasets

    print(f"{number:,} JPEG pictures of {PIXELS} pixels, at 224, {THREADS} threads:", flush=True)
    for share in SHARES:
        pictures = str(scratch / f"pictures{share}")
        make_pictures(Path(pictures), number * share // 16)
        datasets.prepare(settings_of(*PICTURES, *files(pictures), "dataset.storage=disk").dataset)
        peak_memory("read_pictures", pictures)
    sources = {}
    for storage in ("disk", "memory"):
        sources[storage] = batches(training_set(*PICTURES, *files(pictures), f"dataset.storage={storage}"))
    if has_grain:
        sources["Grain"] = grain_batches(grain_images(*PICTURES, *files(pictures), size=(224, 224)))
    compare(sources)
    waiting_share(pictures)


def measure_texts(scratch: Path, megabytes: int, has_grain: bool) -> None:
    """Make texts, and print their figures."""
    from src import datasets
    from src.tasks.language_modeling import LanguageModeling

    print(f"{megabytes:,} MB of text, {THREADS} threads:", flush=True)
    for share in SHARES:
        folder = scratch / f"texts{share}"
        make_texts(folder, megabytes * share // 16)
        texts, begin = f"{folder}/*.txt", time.perf_counter()
        datasets.prepare(settings_of(*TEXTS, *files(texts), "dataset.storage=disk").dataset)
        print(f"  {megabytes * share // 16:,} MB, prepared by TFDS in {time.perf_counter() - begin:.1f} s", flush=True)
        peak_memory("read_texts", texts)
    tasks: dict[str, LanguageModeling] = {}
    for storage in ("disk", "memory"):
        settings = settings_of(*TEXTS, *files(texts), f"dataset.storage={storage}")
        tokenizer = tasks["disk"].tokenizer if tasks else None  # is learned once
        tasks[storage] = LanguageModeling(settings.task, datasets.load(settings.dataset), tokenizer)
    sources = {storage: batches(task.train) for storage, task in tasks.items()}
    compare(sources | ({"Grain": grain_batches(grain_windows(tasks["disk"].train))} if has_grain else {}))


def main() -> None:
    """Print all figures."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--images", type=int, default=20_000)
    parser.add_argument("--megabytes", type=int, default=1_000)
    parser.add_argument("--mnist", metavar="DIR")
    typed = parser.parse_args()
    start()
    from src.training import strategies

    strategies.prepare_devices()
    has_grain = importlib.util.find_spec("grain") is not None
    if not has_grain:
        print("(pip install grain compares with it)")
    if typed.mnist:
        measure_mnist(typed.mnist, has_grain)
    for measure, size in ((measure_pictures, typed.images), (measure_texts, typed.megabytes)):
        if size:
            with tempfile.TemporaryDirectory() as scratch:
                measure(Path(scratch), size, has_grain)


if __name__ == "__main__":
    main()
