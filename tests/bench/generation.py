"""Generation beside PyTorch: `python -m tests.bench.generation`. It prints figures, and asserts nothing about them.

Tokens that `gpt` samples, sentences that `transformer` translates by beam search, and images that `diffusion` generates, per
second, with the networks and options of three experiments and untrained weights, which make every text as long as it may be;
beside the same compiled by XLA (not images), and in PyTorch with a cache of keys and values, where `pip install -r
requirements-bench.txt` has installed it. XLA compiles in the first step, whose seconds are printed. Rounds, ratios and data are
those of `python -m tests.bench.throughput`.
"""

import argparse
import dataclasses

import joblib

from src.errors import UserError
from tests.bench.throughput import table
from tests.bench.throughput.__main__ import machine
from tests.bench.throughput.comparison import compare
from tests.bench.throughput.contenders import REFERENCE, Contender

CONTENDERS = {
    REFERENCE: Contender("this project", "keras_generation:generate"),
    "xla": Contender("with XLA", "keras_generation:generate", ("training.jit_compile=true",), recipes=("gpt", "transformer")),
    "torch": Contender("PyTorch", "torch_generation:generate", packages=("torch",)),
}
WORKLOADS = (  # experiment, number at once, what is counted
    ("gpt_shakespeare", 1, "tokens"),
    ("gpt_shakespeare", 64, "tokens"),
    ("transformer_multi30k", 1, "sentences"),
    ("transformer_multi30k", 64, "sentences"),
    ("diffusion_mnist", 1, "images"),
    ("diffusion_mnist", 100, "images"),
)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench.generation", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    recipes = [experiment.split("_")[0] for experiment, *_ in WORKLOADS]
    parser.add_argument("--recipe", choices=dict.fromkeys(recipes), help="that one alone")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0, help="of each contender in a round")
    parser.add_argument("--threads", type=int, default=joblib.cpu_count(), help="of each contender")
    typed = parser.parse_args()
    print(f"{machine()}\n{typed.threads} threads, {typed.rounds} rounds of {typed.seconds:g} s", flush=True)
    comparisons = []
    for recipe, (experiment, count, unit) in zip(recipes, WORKLOADS):
        if typed.recipe not in (None, recipe):
            continue
        try:
            compared = compare(
                experiment, list(CONTENDERS), rounds=typed.rounds, seconds=typed.seconds, threads=typed.threads,
                overrides=(f"training.batch_size={count}",), contenders=CONTENDERS, unit=unit,
            )  # fmt: skip
        except UserError as error:
            print(f"{experiment}: {error}", flush=True)
            continue
        print(table.report(compared, CONTENDERS), flush=True)
        comparisons.append(dataclasses.replace(compared, experiment=f"`{experiment}`, {unit}, batches of {count}"))
    if comparisons:
        print(f"\n{table.markdown(comparisons, CONTENDERS, 'tokens, sentences, images')}")


if __name__ == "__main__":
    main()
