"""What training in several processes costs: `python -m tests.bench.workers`. It prints figures, and asserts nothing about them.

The same global batch is trained on by one process with all cores, and by 2 and 4 workers on this machine, which share them: so
the difference is what the exchange of gradients and the waiting cost, and no gain. Below stands how long an all-reduce takes
for larger models in a network, by the size of their gradients alone.
"""

import statistics

from tests import worker

ROUNDS = 3
RUNS = {
    "lstm": ("model=lstm", "training.epochs=4"),
    "cnn": ("model=cnn", "dataset=digits", "training.epochs=4"),
}
PARAMETERS = {"ResNet-50": 25_557_032, "GPT-2 small": 124_439_808}
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
    print(f"\ngradients of {MACHINES} machines, each with one replica: bytes that each sends, seconds for them in a step")
    for name, parameters in PARAMETERS.items():
        sent = bytes_per_step(parameters, MACHINES)
        times = [f"{bandwidth} Gb/s: {8 * sent / bandwidth / 1e9:.3f} s" for bandwidth in BANDWIDTHS]
        print(f"{name:12} {sent / 2**20:,.0f} MiB", "   ".join(times))


if __name__ == "__main__":
    main()
