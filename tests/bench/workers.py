"""What training in several processes costs: `python -m tests.bench.workers`. It prints figures, and asserts nothing about them.

The same global batch is trained on by one process with all cores, and by 2 and 4 workers on this machine, which share them: so
the difference is what the exchange of gradients and the waiting cost, and no gain. The second table is computed: how larger
models would scale to several machines with one GPU each, if they exchanged the gradients after each step and computed nothing
meanwhile, at the full bandwidth of the network.
"""

import statistics

from tests import worker

ROUNDS = 3
RUNS = {
    "lstm": ("model=lstm", "training.epochs=4"),
    "cnn": ("model=cnn", "dataset=digits", "training.epochs=4"),
}
# Parameters, and seconds of a step on one A100, as published: 256 images in TF32 at 909 images a second (NVIDIA's
# DeepLearningExamples, TensorFlow/Classification/ConvNets/resnet50v1.5), 64 · 1,024 tokens in bfloat16 (karpathy/llm.c,
# scripts/run_gpt2_124M.sh).
MODELS = {"ResNet-50": (25_557_032, 256 / 909), "GPT-2 small": (124_439_808, 0.3)}
MACHINES, BANDWIDTHS = 8, (10, 100)  # Gb/s


def bytes_per_step(parameters: int, workers: int) -> float:
    """What each worker sends in a step: ring all-reduce of gradients in float32 (Patarasuk & Yuan 2009)."""
    return 2 * (workers - 1) / workers * 4 * parameters


def main() -> None:
    """Print both tables."""
    print("examples per second, median (lowest to highest) of the epochs after the first, in interleaved rounds")
    for name, overrides in RUNS.items():
        speeds: dict[int, list[float]] = {1: [], 2: [], 4: []}
        for _ in range(ROUNDS):
            for count, measured in speeds.items():
                measured += worker.train(overrides, count)[0]["speed"][1:]
        shown = [f"{n}: {statistics.median(s):,.0f} ({min(s):,.0f} to {max(s):,.0f})" for n, s in speeds.items()]
        print(f"{name:8}", "   ".join(shown))
    print_scaling()


def print_scaling() -> None:
    """Print how long the exchange between machines takes beside a step, and which part of the time is left for computing."""
    columns = "".join(f" at {bandwidth} Gb/s | computing |" for bandwidth in BANDWIDTHS)
    print(f"\n| {MACHINES} machines | step | sent in a step |{columns}\n|{'---|' * (3 + 2 * len(BANDWIDTHS))}")
    for name, (parameters, step) in MODELS.items():
        sent = bytes_per_step(parameters, MACHINES)
        exchanges = [8 * sent / bandwidth / 1e9 for bandwidth in BANDWIDTHS]
        cells = [f"{exchange:.3f} s | {100 * step / (step + exchange):.0f} %" for exchange in exchanges]
        print(f"| {name} | {step:.3f} s | {sent / 2**20:,.0f} MiB | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
