"""What a checkpoint costs: `python -m tests.bench_checkpoints`. It prints, and asserts nothing about time.

Training stops while the state is copied. The file is written, and copied to MLflow's folder, in the background, on a core that
training may want too; so all three count.
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
from src.tasks import registry  # noqa: E402
from src.training import callbacks, checkpoint, loop, strategies  # noqa: E402

ROUNDS = 5


def main() -> None:
    terminal.log_to_terminal()
    strategies.prepare_devices()
    print(f"{'recipe':<12} {'MB':>6} {'copied, ms':>11} {'written, ms':>12} {'told, ms':>9} {'of the default interval':>24}")
    for recipe in sorted(path.stem for path in (config.CONF / "model").glob("*.yaml")):
        with initialize_config_dir(str(config.CONF), version_base="1.3"):
            chosen = config.checked(compose("config", [f"model={recipe}"]))
        *seconds, size = cost(chosen)
        copied, written, told = (1e3 * part for part in seconds)
        share = sum(seconds) / chosen.checkpoint.every
        print(f"{recipe:<12} {size / 1e6:6.1f} {copied:11.1f} {written:12.1f} {told:9.1f} {share:24.2%}", flush=True)


def cost(chosen) -> tuple[float, float, float, int]:
    """Seconds of copying, of writing and of telling MLflow, and bytes, of a checkpoint that holds the best weights too."""
    data = datasets.load(chosen.dataset)
    loop.prepare(chosen)
    task = registry.create(chosen.task, data, 256)
    model = loop.build(chosen, task, strategies.create(chosen.strategy))
    best = callbacks.BestWeights()
    best.on_train_begin()
    best.best_weights = model.get_weights()
    rounds = []
    with tempfile.TemporaryDirectory() as folder:
        for step in range(ROUNDS):
            moments = [time.perf_counter()]
            state = checkpoint.capture(model, [best], 0, step)
            moments.append(time.perf_counter())
            path = checkpoint.write(state, Path(folder))
            moments.append(time.perf_counter())
            shutil.copy2(path, Path(folder, "told"))
            moments.append(time.perf_counter())
            rounds.append([after - before for before, after in itertools.pairwise(moments)])
        size = path.stat().st_size
    return *map(statistics.median, zip(*rounds)), size


if __name__ == "__main__":
    main()
