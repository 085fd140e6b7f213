"""Repeats a finished run and compares the metrics: `python -m src.reproduce run=last`."""

from collections.abc import Mapping, Sequence

from src import cli, terminal
from src.config.schema import MultiWorker
from src.errors import UserError

TIMING_METRICS = {"seconds", "milliseconds_per_sample", "examples_per_second"}  # never the same twice

USAGE = cli.Usage(
    "python -m src.reproduce run=<run>",
    "Repeat a finished run with the settings that it recorded. Lists what has changed since (code, versions, data, device) and "
    "the metrics that differ at any step; the exit status is 1 if one does.",
    ["python -m src.reproduce run=last", "python -m src.reproduce run=cnn_mnist-seed0"],
    {"run": cli.RUN},
)


def main(arguments: Sequence[str]) -> int:
    """Run the command; the exit status is 1 if a metric differs."""
    return min(reproduce(**cli.parse_key_values(arguments, USAGE.settings, required=["run"])), 1)


def reproduce(run: str) -> int:
    """Print what has changed since a run, repeat it, and print the metrics that differ.

    Args:
        run: a finished run: its id, a prefix of it, its name, or `last`.

    Returns:
        The number of metrics that differ.

    Raises:
        UserError: there is no such run, or its settings are not those of this version.
    """
    from src.tracking.finished_runs import FinishedRun
    from src.tracking.run_lookup import find_run_id

    stored = FinishedRun(find_run_id(run), "run")
    settings = stored.settings
    if isinstance(settings.strategy, MultiWorker):
        raise UserError(
            f"run={run} was trained on several machines; to repeat it, type its command on each of them with resume=never."
        )
    terminal.load_tensorflow()
    from src import datasets
    from src import experiment as runs
    from src.tracking.training_logger import provenance_of
    from src.training import strategies

    strategies.create(settings.strategy)  # before TensorFlow uses a device
    now, then = provenance_of(settings, datasets.load(settings.dataset)), stored.provenance()
    changed = [name for name in sorted(now | then) if then.get(name) != now.get(name)]
    print("Changed since then:" if changed else "Nothing has changed since then: code, versions, data, device.")
    for name in changed:
        print(f"  {name}: {then.get(name)} then, {now.get(name)} now", flush=True)
    run_id = runs.run(settings.model_copy(update={"resume": "never"})).run_id
    if run_id is None:
        raise UserError(
            "MLflow does not answer, so the metrics cannot be compared; what was run is kept for python -m src.sync"
        )
    return compare_histories(stored.metric_history(), FinishedRun(run_id, "run").metric_history())


def compare_histories(then: Mapping[str, list], now: Mapping[str, list]) -> int:
    """Print each metric whose history differs, and by how much its last value does.

    Args:
        then: {metric: [(step, value), …]} of the first run; system metrics and timings are left out.
        now: of the second run.

    Returns:
        The number of metrics that differ.
    """
    different = 0
    for name in sorted(then.keys() | now.keys()):
        if name.startswith("system/") or name.rpartition("/")[2] in TIMING_METRICS or then.get(name) == now.get(name):
            continue
        different += 1
        before, after = (history[name][-1][1] if name in history else None for history in (then, now))
        by = "" if before is None or after is None else f", by {abs(after - before):.3g}"
        print(f"  {name}: {before} then, {after} now{by}")
    print(f"{different} metric(s) differ." if different else f"All {len(then)} metrics are identical, at every step.")
    return different


if __name__ == "__main__":
    cli.run_command(main, USAGE)
