"""How cost grows with batches, data and sequences: `python -m tests.bench.growth`. It prints tables, and asserts nothing.

batches    training examples per second over the size of a batch
data       seconds of an epoch and peak memory over the number of examples
lengths    tokens per second of training over the length of sequences, as many tokens in each step
attention  the attention of `gpt` beside keras.ops.dot_product_attention, its gradients included: time, and largest difference

Random data replaces what is not prepared, as in `python -m tests.bench.throughput`; medians, lowest and highest in brackets.
"""

import argparse
import multiprocessing
import resource
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import joblib

from src import tables, terminal
from tests.bench.throughput import table
from tests.bench.throughput.comparison import compare, settings_of
from tests.bench.throughput.contenders import REFERENCE

ROUNDS, SECONDS = 3, 1.5
BATCHES, BATCH_SIZES = ("cnn_mnist", "lstm_mnist"), (16, 32, 64, 128, 256, 512, 1024)
DATA, EXAMPLES = "rnn_mnist", (10_000, 40_000, 160_000, 640_000)
LENGTHS = {"gpt_shakespeare": "context", "transformer_imdb_reviews": "length"}  # what their settings call it
TOKENS, NUMBERS = 4096, (64, 128, 256, 512, 1024)  # tokens of a step; of a sequence
HEADS, ENTRIES = 4, 32  # of the attention of gpt_shakespeare


def rates(experiment: str, *overrides: str, factor: int = 1) -> str:
    """Examples per second of training, or as many times as many tokens."""
    compared = compare(experiment, [], rounds=ROUNDS, seconds=SECONDS, threads=joblib.cpu_count(), overrides=overrides)
    busy = max(compared.disturbance)
    print(f"{experiment} {' '.join(overrides)}: other processes used up to {busy:.1%} of the cores", flush=True)
    return spread([factor * rate for rate in compared.results[REFERENCE].rates], ",.0f")


def spread(values: Iterable[float], form: str) -> str:
    """Median, lowest and highest."""
    return "{0:{3}} ({1:{3}}–{2:{3}})".format(*table.spread(list(values)), form)


def batches() -> str:
    """Examples per second over batch sizes."""
    rows = [[size, *(rates(experiment, f"training.batch_size={size}") for experiment in BATCHES)] for size in BATCH_SIZES]
    return tables.markdown(["batch size", *(f"{experiment}, examples/s" for experiment in BATCHES)], rows)


def data() -> str:
    """Seconds of an epoch and peak memory over numbers of examples."""
    rows = []
    for count in EXAMPLES:
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(1, context) as pool:  # a process of its own for each
            seconds, peak = pool.submit(train, count).result()
        rows.append([f"{count:,}", f"{count * 28 * 28 / 2**20:,.0f} MiB", f"{seconds:.2f} s", f"{peak:,.0f} MiB"])
    return tables.markdown([f"examples ({DATA})", "pixels", "epoch", "peak memory of the process"], rows)


def train(examples: int) -> tuple[float, float]:
    """Seconds of the second epoch on random data, and the peak of this process's memory in MiB."""
    terminal.load_tensorflow()
    from src.tasks import factory
    from src.training import loop, strategies
    from src.training.checkpoint import CheckpointManager
    from tests.bench.throughput.problem import random_data

    settings = settings_of(DATA, "training.epochs=2", "training.steps_per_epoch=null")
    loop.prepare(settings)
    task = factory.create(settings.task, random_data(settings.dataset, examples))
    model = loop.build(settings, task, strategies.create(settings.strategy))
    ends: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        checkpoints = CheckpointManager(Path(folder))
        loop.fit(model, settings, task, lambda metrics, epoch: ends.append(time.perf_counter()), checkpoints=checkpoints)
    return ends[1] - ends[0], resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def lengths() -> str:
    """Tokens per second over the length of sequences."""
    rows = []
    for length in NUMBERS:
        batch = f"training.batch_size={TOKENS // length}"
        cells = [rates(name, f"task.{key}={length}", batch, factor=length) for name, key in LENGTHS.items()]
        rows.append([length, TOKENS // length, *cells])
    return tables.markdown(["tokens in a sequence", "sequences in a step", *(f"{name}, tokens/s" for name in LENGTHS)], rows)


def attention() -> str:
    """The attention of `gpt` beside that of Keras."""
    terminal.load_tensorflow()
    import keras
    import tensorflow as tf
    from keras import ops

    from recipes.gpt import CausalSelfAttention

    layer = CausalSelfAttention(HEADS * ENTRIES, HEADS, 0.0, False, 0.02)
    layer.query = layer.output_projection = keras.layers.Identity()

    def by_recipe(queries: Any, keys: Any, values: Any, mask: Any) -> Any:
        keys, values = (ops.transpose(x, (0, 2, 1, 3)) for x in (keys, values))  # heads before positions
        return layer.attend(ops.reshape(queries, (*queries.shape[:2], -1)), keys, values, mask)

    def by_keras(queries: Any, keys: Any, values: Any, mask: Any) -> Any:
        heads = ops.dot_product_attention(queries, keys, values, mask=mask)
        return ops.reshape(heads, (*heads.shape[:2], -1))

    def with_gradients(attend: Callable) -> Callable:
        @tf.function
        def compute(queries: Any, keys: Any, values: Any, mask: Any) -> list[Any]:
            with tf.GradientTape() as tape:
                tape.watch([queries, keys, values])
                heads = attend(queries, keys, values, mask)
                loss = tf.reduce_sum(heads**2)
            return [heads, *tape.gradient(loss, [queries, keys, values])]

        return compute

    rows = []
    for length in NUMBERS:
        inputs = [tf.random.stateless_normal((TOKENS // length, length, HEADS, ENTRIES), (0, n)) for n in range(3)]
        steps = tf.range(length)
        inputs.append((steps[:, None] >= steps)[None, None])
        computed = [with_gradients(by_recipe), with_gradients(by_keras)]
        results = [compute(*inputs) for compute in computed]
        difference = max(float(tf.reduce_max(abs(a - b) / (1 + abs(a)))) for a, b in zip(*results))
        times: list[list[float]] = [[], []]
        for _ in range(ROUNDS):
            for compute, measured in zip(computed, times):
                measured.append(milliseconds(compute, *inputs))
        medians = [f"{statistics.median(each):.1f} ms" for each in times]
        ratio = spread((recipe / keras for recipe, keras in zip(*times)), ".2f")
        rows.append([length, *medians, ratio, f"{difference:.0e}"])
    return tables.markdown(["tokens", "the recipe's", "Keras's", "speed of Keras's by the recipe's", "difference"], rows)


def milliseconds(compute: Callable, *inputs: Any) -> float:
    """Mean time of a call."""
    start, calls = time.perf_counter(), 0
    while time.perf_counter() - start < SECONDS:
        compute(*inputs)[0].numpy()
        calls += 1
    return 1e3 * (time.perf_counter() - start) / calls


PARTS = {part.__name__: part for part in (batches, data, lengths, attention)}


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench.growth", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("parts", nargs="*", metavar="part", help=f"{', '.join(PARTS)}; none: all")
    for name in parser.parse_args().parts or PARTS:
        print(f"\n{PARTS[name]()}", flush=True)


if __name__ == "__main__":
    main()
