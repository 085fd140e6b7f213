"""Training throughput beside other frameworks: `python -m tests.bench.throughput`. It prints figures, and asserts nothing.

Training examples per second of this project's `fit`, of the same model in bare Keras, and of the same network in other
frameworks, where `pip install -r requirements-bench.txt` has installed them: for each experiment with its own batches,
optimizer, clipping, average of the weights and augmentation. Networks whose numbers of parameters differ are not compared.
Each contender has a process of its own; in every round all of them train for some seconds, one after the other, so that a slow
minute affects all. A ratio above 1 says that a contender is faster than this project.

Data that is not prepared is replaced by random data of the same shapes, which the output says: the speed does not depend on
the values. Where TensorFlow sees a GPU, it is used.
"""

import argparse
import importlib.metadata
import platform
import re
from pathlib import Path

import joblib

from src.errors import UserError
from tests.bench.throughput import table
from tests.bench.throughput.comparison import Comparison, compare
from tests.bench.throughput.contenders import CONTENDERS

EXPERIMENTS = (
    "lstm_mnist", "rnn_mnist", "gpt_shakespeare", "cnn_mnist", "transformer_imdb_reviews", "transformer_multi30k",
    "attention_mnist", "attention_sst2", "resnet_cifar10", "lightweight_cifar10", "gan_mnist", "diffusion_mnist",
)  # fmt: skip
LIBRARIES = ("keras", "tensorflow", "torch", "jax", "flax")
BF16 = ("avx512_bf16", "amx_bf16")  # what a processor needs for 16-bit arithmetic to be faster


def names(text: str) -> list[str]:
    """The contenders of a list with commas."""
    chosen = text.split(",")
    if unknown := [name for name in chosen if name not in CONTENDERS]:
        raise argparse.ArgumentTypeError(f"{', '.join(unknown)}; available: {', '.join(CONTENDERS)}")
    return chosen


def experiments(text: str) -> list[str]:
    """The experiments of a list of recipes and experiments with commas."""
    chosen = []
    for word in text.split(","):
        found = [name for name in EXPERIMENTS if word in (name, name.split("_")[0])]
        if not found:
            raise argparse.ArgumentTypeError(f"{word}; available: {', '.join(EXPERIMENTS)}, or their recipes")
        chosen += found
    return chosen


def machine() -> str:
    """Processor and versions."""
    cpuinfo = Path("/proc/cpuinfo")
    text = cpuinfo.read_text() if cpuinfo.exists() else ""
    found = re.search(r"model name\s*: (.*)", text)
    flags = [flag for flag in BF16 if f" {flag} " in text]
    versions = [f"{package.metadata['Name']} {package.version}" for package in _installed(LIBRARIES)]
    processor = found[1] if found else platform.processor()
    return f"{processor} ({', '.join(flags) or 'no bfloat16'}); {', '.join(versions)}"


def _installed(packages: tuple[str, ...]) -> list[importlib.metadata.Distribution]:
    available = []
    for package in packages:
        try:
            available.append(importlib.metadata.distribution(package))
        except importlib.metadata.PackageNotFoundError:
            continue
    return available


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench.throughput", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--recipe", type=experiments, default=list(EXPERIMENTS), help="recipes or experiments: lstm,gpt")
    parser.add_argument("--contenders", type=names, default=list(CONTENDERS), help=", ".join(CONTENDERS))
    parser.add_argument("--precision", choices=("float32", "mixed_bfloat16"), default="float32")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0, help="of training of each contender in a round")
    parser.add_argument("--threads", type=int, default=joblib.cpu_count(), help="of each contender")
    typed = parser.parse_args()
    print(f"{machine()}\n{typed.threads} threads, {typed.precision}, {typed.rounds} rounds of {typed.seconds:g} s", flush=True)
    comparisons: list[Comparison] = []
    for experiment in typed.recipe:
        try:
            compared = compare(
                experiment, typed.contenders, rounds=typed.rounds, seconds=typed.seconds, threads=typed.threads,
                overrides=(f"training.precision={typed.precision}",),
            )  # fmt: skip
        except UserError as error:
            print(f"{experiment}: {error}", flush=True)
            continue
        comparisons.append(compared)
        print(table.report(compared), flush=True)
    if comparisons:
        print(f"\n{table.markdown(comparisons)}")


if __name__ == "__main__":
    main()
