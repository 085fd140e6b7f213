"""Speed and memory of reading images: `python -m tests.bench_data [number of images]`. It prints figures, and asserts nothing.

JPEG pictures of 256 pixels are made, in a folder for each class, and read as a user's own: dataset=images, at 224 pixels. In
rounds that alternate, batches are read from disk, from memory, and, if `pip install grain` was typed, by Grain from the same
ArrayRecord files with as many threads. Then the peak of memory for 1, 4 and 16 times the pictures, and the share of a training
step of the ResNet at 64 pixels that waits for data, are measured from disk.
"""

import io
import itertools
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image

NUMBER = int(sys.argv[1]) if len(sys.argv) > 1 else 20_000
PIXELS, CLASSES, BATCH, ROUNDS, SECONDS = 256, 10, 64, 5, 8.0
THREADS = os.cpu_count() or 1


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


def settings_of(pictures: Path, *overrides: str):
    """The checked settings of a run of the ResNet on the pictures."""
    from hydra import compose, initialize_config_dir

    from src import config

    line = ["model=resnet", "dataset=images", f"dataset.path={pictures}", f"dataset.data_dir={pictures.parent / 'prepared'}"]
    with initialize_config_dir(str(config.CONF), version_base="1.3"):
        return config.validate(compose("config", [*line, *overrides]))


def batches(pictures: Path, size: int, storage: str) -> Iterator:
    """Endless batches of the training set."""
    from src import datasets
    from src.datasets import pipeline

    datasets.load.cache_clear()
    data = datasets.load(settings_of(pictures, f"dataset.image_size=[{size},{size}]", f"dataset.storage={storage}").dataset)
    return iter(pipeline.training(data.train, BATCH, seed=0))


def grain_batches(pictures: Path, size: int) -> Iterator:
    """The same by Grain: the examples of the same files, decoded and resized with Pillow in threads."""
    import grain
    import tensorflow_datasets as tfds
    from array_record.python.array_record_data_source import ArrayRecordDataSource

    from src import datasets
    from src.datasets import array_records

    builder = datasets.prepare(settings_of(pictures).dataset)
    features = tfds.decode.PartialDecoding({"image": True, "label": True}).extract_features(builder.info.features)
    undecoded = {"image": tfds.decode.SkipDecoding()}

    def example(record: bytes) -> tuple[np.ndarray, object]:
        values = features.deserialize_example_np(record, decoders=undecoded)
        image = Image.open(io.BytesIO(values["image"]))
        return np.asarray(image.resize((size, size), Image.Resampling.BILINEAR)), values["label"]

    source = grain.MapDataset.source(ArrayRecordDataSource(array_records.files(builder, "train")))
    shuffled = source.seed(0).shuffle().repeat().map(example).batch(BATCH, drop_remainder=True)
    return iter(shuffled.to_iter_dataset(grain.ReadOptions(num_threads=THREADS, prefetch_buffer_size=2 * BATCH)))


def rate(source: Iterator) -> float:
    """Examples a second, after the first batches."""
    for _ in itertools.islice(source, 3):
        pass
    start, count = time.perf_counter(), 0
    while time.perf_counter() - start < SECONDS:
        next(source)
        count += BATCH
    return count / (time.perf_counter() - start)


def compare(sources: dict[str, Callable[[], Iterator]]) -> None:
    """Print the median of the examples a second of each source over alternating rounds, and the ratio to the first."""
    opened = {name: make() for name, make in sources.items()}
    rates: dict[str, list[float]] = {name: [] for name in opened}
    for _ in range(ROUNDS):
        for name, source in opened.items():
            rates[name].append(rate(source))
    first = next(iter(rates))
    for name, values in rates.items():
        ratio = statistics.median(value / other for value, other in zip(values, rates[first]))
        print(f"  {name:12} {statistics.median(values):8,.0f} examples/s ({min(values):,.0f} to {max(values):,.0f}), "
              f"{ratio:.2f} × {first}", flush=True)  # fmt: skip


def peak_memory(pictures: Path, number: int) -> float:
    """Peak of the memory of a process that reads one epoch from disk, MiB."""
    program = f"from tests import bench_data; bench_data.read_epoch({str(pictures)!r}, {number})"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return float(done.stdout.split()[-1])


def read_epoch(pictures: str, number: int) -> None:
    """Read `number` images from disk, and print the peak of this process's memory in MiB."""
    from src import terminal

    terminal.load_tensorflow()
    for _ in itertools.islice(batches(Path(pictures), 224, "disk"), number // BATCH):
        pass
    peak = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    print(int(peak.split()[1]) / 2**10)  # of this process; that of getrusage is inherited from the one that started it


def waiting_share(pictures: Path) -> None:
    """Print how much longer a training step of the ResNet at 64 pixels takes from disk than with a batch that is there."""
    import keras
    import tensorflow as tf

    from src import datasets
    from src.datasets import pipeline
    from src.tasks import factory
    from src.training import loop, strategies

    size = "dataset.image_size=[64,64]"
    run_settings = settings_of(pictures, size, "dataset.storage=disk", f"training.batch_size={BATCH}")
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


def main() -> None:
    """Make the pictures, and print all figures."""
    from src import terminal

    terminal.load_tensorflow()
    from src.training import strategies

    strategies.prepare_devices()
    with tempfile.TemporaryDirectory() as scratch:
        folders = {share: Path(scratch) / f"pictures{share}" for share in (16, 4, 1)}
        for share, folder in folders.items():
            make_pictures(folder, NUMBER * share // 16)
        pictures = folders[16]
        print(f"{NUMBER:,} JPEG pictures of {PIXELS} pixels, at 224, {THREADS} threads:")
        sources = {"disk": lambda: batches(pictures, 224, "disk"), "memory": lambda: batches(pictures, 224, "memory")}
        try:
            import grain  # noqa: F401

            sources["Grain"] = lambda: grain_batches(pictures, 224)
        except ImportError:
            print("  (pip install grain compares with it)")
        compare(sources)
        for share in (1, 4, 16):
            number = NUMBER * share // 16
            print(f"  {number:6,} pictures: peak of memory {peak_memory(folders[share], number):,.0f} MiB", flush=True)
        waiting_share(pictures)


if __name__ == "__main__":
    main()
