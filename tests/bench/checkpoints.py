"""Overhead of checkpoints: `python -m tests.bench.checkpoints`. It prints times, and asserts nothing about them.

Training stops while the state is copied. Writing the file and copying it to MLflow's folder happen in the background, but on a
core that training may need, so all three times count.
"""

import itertools
import shutil
import statistics
import tempfile
import time
from pathlib import Path

from src import terminal

terminal.load_tensorflow()

from hydra import compose, initialize_config_dir  # noqa: E402

from src import config, datasets  # noqa: E402
from src.tasks import factory  # noqa: E402
from src.training import callbacks, checkpoint, loop, strategies  # noqa: E402

ROUNDS = 5


def main() -> None:
    """The command line."""
    terminal.log_to_terminal()
    strategies.prepare_devices()
    print(f"{'recipe':<12} {'MB':>6} {'copy, ms':>9} {'write, ms':>10} {'log, ms':>8} {'of the default interval':>24}")
    for recipe in config.option_names("model"):
        with initialize_config_dir(str(config.CONF), version_base="1.3"):
            settings = config.validate(compose("config", [f"model={recipe}"]))
        *seconds, size = measure(settings)
        copy, write, log = (1e3 * each for each in seconds)
        overhead = sum(seconds) / settings.checkpoint.every
        print(f"{recipe:<12} {size / 1e6:6.1f} {copy:9.1f} {write:10.1f} {log:8.1f} {overhead:24.2%}", flush=True)


def measure(settings) -> tuple[float, float, float, int]:
    """Seconds of copying, writing and logging a checkpoint that contains the best weights too, and its size in bytes."""
    data = datasets.load(settings.dataset)
    loop.prepare(settings)
    task = factory.create(settings.task, data, 256)
    model = loop.build(settings, task, strategies.create(settings.strategy))
    best = callbacks.BestWeights()
    best.on_train_begin()
    best.best_weights = model.get_weights()
    rounds = []
    with tempfile.TemporaryDirectory() as folder:
        for step in range(ROUNDS):
            times = [time.perf_counter()]
            state = checkpoint.capture(model, [best], 0, step)
            times.append(time.perf_counter())
            path = checkpoint.write(state, Path(folder))
            times.append(time.perf_counter())
            shutil.copy2(path, Path(folder, "artifact"))
            times.append(time.perf_counter())
            rounds.append([after - before for before, after in itertools.pairwise(times)])
        size = path.stat().st_size
    return *map(statistics.median, zip(*rounds)), size


if __name__ == "__main__":
    main()
