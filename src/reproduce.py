"""Runs again what a run recorded, and compares: `python -m src.reproduce run=<id>`."""

import sys
from collections.abc import Mapping

from src import cli, terminal
from src.errors import UserError

COSTS = {"seconds", "milliseconds_per_sample", "examples_per_second"}  # say nothing about what was learned


def main() -> int:
    """The command line. The status is 1 if a metric differs."""
    return min(reproduce(**cli.pairs(sys.argv[1:], ("run",))), 1)


def reproduce(run: str) -> int:
    """Says what is not as it was, runs, and says which metrics differ; returns how many do.

    Raises:
        UserError: there is no such run, or its settings are not those of this version.
    """
    from src.tracking.finished_runs import FinishedRun

    stored = FinishedRun(run, "run")
    chosen = stored.settings
    terminal.load_tensorflow()
    from src import datasets
    from src import experiment as runs
    from src.tracking.training_logger import provenance_of
    from src.training import strategies

    strategies.create(chosen.strategy)  # before TensorFlow uses a device
    here, there = provenance_of(datasets.load(chosen.dataset)), stored.provenance()
    changed = {name: (there.get(name), here.get(name)) for name in sorted(here | there) if there.get(name) != here.get(name)}
    print("Nothing has changed since: code, versions, data, device." if not changed else "Not as it was:")
    for name, (then, now) in changed.items():
        print(f"  {name}: {then} then, {now} now", flush=True)
    found = runs.run(chosen.model_copy(update={"resume": "never"}), quiet=True).run_id
    if found is None:
        raise UserError(
            "MLflow does not answer, so the metrics cannot be compared; what was run is kept for python -m src.sync"
        )
    return compare(stored.metric_history(), FinishedRun(found, "run").metric_history())


def compare(then: Mapping[str, list], now: Mapping[str, list]) -> int:
    """Prints, of every metric, whether its history is the same, or by how much it is not."""
    different = 0
    for name in sorted(then.keys() | now.keys()):
        if name.startswith("system/") or name.rpartition("/")[2] in COSTS or then.get(name) == now.get(name):
            continue
        different += 1
        before, after = (history[name][-1][1] if name in history else None for history in (then, now))
        by = "" if before is None or after is None else f", by {abs(after - before):.3g}"
        print(f"  {name}: {before} then, {after} now{by}")
    print(f"{different} metric(s) differ." if different else f"All {len(then)} metrics are identical, at every step.")
    return different


if __name__ == "__main__":
    cli.command(main)
