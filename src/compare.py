"""Compares finished runs, best first: `python -m src.compare dataset=digits`; or two groups: `… a=model=cnn b=model=lstm`."""

import dataclasses
import difflib
import gc
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from src import cli, terminal
from src.errors import UserError

if TYPE_CHECKING:
    from src.comparison.groups import Leaderboard
    from src.tracking.run_summaries import RunSummary

SUFFIXES = {"text": ".txt", "markdown": ".md", "latex": ".tex", "csv": ".csv", "html": ".html"}  # of files, by format
GROUPS = ("model", "dataset", "task", "strategy", "optimizer")  # model=cnn is short for model.name=cnn

USAGE = cli.Usage(
    "python -m src.compare [setting=value …]",
    "Compare finished runs: a leaderboard for each data set and task, runs that differ by their seed alone in one row; or the "
    "difference between two groups of runs, and whether it is significant.",
    [
        "python -m src.compare dataset=digits model=cnn,resnet significance=true",
        "python -m src.compare dataset=digits a=model=cnn b=model=resnet",
    ],
    {
        "<setting>": "only runs with this value, or one of these values: model=cnn,lstm optimizer.learning_rate=1e-3",
        "metric": "metric to compare by, as MLflow names it: test/nll (that of the task)",
        "format": f"{', '.join(SUFFIXES)} (text, or by the ending of the file)",
        "to": "file to write to",
        "a": "settings of the first group: a=model=cnn, or a='model=cnn seed=0,1'",
        "b": "settings of the second group",
        "significance": "true: test each row of a leaderboard against the best one, on the same test examples (false)",
    },
)
OPTIONS = ("metric", "format", "to", "a", "b", "significance")  # what does not select runs


def main(arguments: Sequence[str]) -> int:
    """Run the command."""
    gc.disable()  # looking for garbage among the objects of a thousand runs, which live to the end, took a third of the time
    print(compare(arguments))
    return 0


def compare(arguments: Sequence[str]) -> str:
    """Return the leaderboards of the selected runs, or the difference between the groups `a` and `b`.

    Args:
        arguments: of the command; see `USAGE`.

    Returns:
        What is printed; if `to` names a file, a line that says so.

    Raises:
        UserError: no run is selected, or there is no such metric, setting or format.
    """
    typed = cli.parse_key_values(arguments, example="dataset=digits")
    options = {name: value for name, value in typed.items() if name in OPTIONS}
    selection = _full_names({name: value for name, value in typed.items() if name not in OPTIONS})
    output_format = _output_format(options)
    tested = cli.parse_bool("significance", options.get("significance", "false"))
    if len({"a", "b"} & options.keys()) == 1:
        raise UserError("To compare two groups write both, like a=model=cnn b=model=lstm.")
    sides = {side: _parse_side(side, options[side]) for side in "ab" if side in options}
    from src import metrics  # what takes long to load is loaded where it is needed, here and below
    from src.comparison import groups
    from src.tracking.run_summaries import load_summaries

    if "metric" in options:
        options["metric"] = metrics.current_name(options["metric"])
    with terminal.phase("Reading runs from MLflow", announce=False):  # the output may be read by a program
        runs = load_summaries()
    available = {name for run in runs for name in run.settings}
    for settings in (selection, *sides.values()):
        for name in settings:
            _check_setting(name, available)
    selected = _select(runs, selection)
    if sides:
        return _difference(selected, options, sides)
    boards = groups.leaderboards(selected, options.get("metric"))
    if tested:
        from src.comparison import paired

        with terminal.phase("Testing differences", announce=False):
            boards = [dataclasses.replace(board, p_values=paired.p_values(board)) for board in boards]
    page = _formatted(boards, output_format)
    if "to" not in options:
        return page
    try:
        Path(options["to"]).write_text(page, encoding="utf-8")
    except OSError as error:
        raise UserError(f"to={options['to']} cannot be written: {error.strerror}.") from None
    return f"Written: {options['to']}"


def _full_names(settings: Mapping[str, str]) -> dict[str, str]:
    """{"model": "cnn"} → {"model.name": "cnn"}, as runs record it."""
    return {f"{name}.name" if name in GROUPS else name: value for name, value in settings.items()}


def _parse_side(side: str, value: str) -> dict[str, str]:
    """Parse the settings that `a` or `b` names."""
    try:
        return _full_names(cli.parse_key_values(value.split()))
    except UserError:
        raise UserError(f"{side}={value} cannot be read; write {side}=model=cnn, or {side}='model=cnn seed=0,1'.") from None


def _output_format(options: Mapping[str, str]) -> str:
    by_suffix = next((name for name, suffix in SUFFIXES.items() if options.get("to", "").endswith(suffix)), None)
    output_format = options.get("format") or by_suffix or "text"
    if "to" in options and not ("format" in options or by_suffix):
        raise UserError(f"to={options['to']} has none of the endings {', '.join(SUFFIXES.values())}; add one, or format=….")
    if output_format not in SUFFIXES:
        raise UserError(f"There is no format={output_format}; available: {', '.join(SUFFIXES)}.")
    return output_format


def _check_setting(name: str, available: set[str]) -> None:
    """Raise a UserError unless a run has the setting."""
    if available and name not in available:
        similar = difflib.get_close_matches(name, [*available, *OPTIONS], n=1, cutoff=0.6)
        same_ending = [other for other in sorted(available) if other.endswith(f".{name}")]
        suggestions = same_ending or similar
        hint = f"did you mean {suggestions[0]}?" if suggestions else f"available: {', '.join(sorted(available))}."
        raise UserError(f"No run has a setting '{name}'; {hint}")


def _select(runs: Sequence["RunSummary"], selection: Mapping[str, str]) -> list["RunSummary"]:
    """Return the runs with all the values that are selected.

    Raises:
        UserError: there are none.
    """
    selected = [run for run in runs if all(_matches(run.settings.get(name), value) for name, value in selection.items())]
    if selected:
        return selected
    if not runs:
        raise UserError("No finished run has been made yet; make one: python -m src.run model=lstm")
    settings = " ".join(f"{name}={value}" for name, value in selection.items())
    counts = Counter(run.settings["dataset.name"] for run in runs)
    datasets = ", ".join(f"{name} ({count})" for name, count in sorted(counts.items()))
    raise UserError(f"No finished run has {settings}; there are runs on {datasets}.")


def _matches(value: str | None, alternatives: str) -> bool:
    """Whether a recorded value is one of those that are typed, separated by commas; numbers match by value."""
    return value is not None and any(value == one or _number(value) == _number(one) for one in alternatives.split(","))


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan  # equal to nothing


def _difference(runs: Sequence["RunSummary"], options: Mapping[str, str], sides: Mapping[str, Mapping[str, str]]) -> str:
    """The difference between two groups of runs, in sentences."""
    from src.comparison import groups, paired, significance

    pair = []
    for side, settings in sides.items():
        selected = groups.group_runs(_select(runs, settings))
        if len(selected) > 1:
            differing = groups.differing_settings(selected)
            example = f"{differing[0].removesuffix('.name')}={selected[0].settings.get(differing[0], 'None')}"
            raise UserError(
                f"{side}={options[side]} selects {len(selected)} groups of runs with other settings; they differ by "
                f"{', '.join(name.removesuffix('.name') for name in differing)}: add one of them, like "
                f"{side}='{options[side]} {example}'."
            )
        pair += selected
    groups.check_comparable(*pair)
    metric = options.get("metric") or groups.metric_of(pair[0])
    for side, group in zip("ab", pair):
        if not len(group.values(metric)):
            available = ", ".join(sorted(group.runs[0].metrics))
            raise UserError(f"{side}={options[side]} has no metric '{metric}'; available: {available}.")
    over_seeds = significance.describe_difference(metric, *pair)
    with terminal.phase("Testing the difference", announce=False):
        return f"{over_seeds}\n{paired.describe_paired_test(metric, *pair)}"


def _formatted(boards: Sequence["Leaderboard"], output_format: str) -> str:
    if output_format == "html":
        from src.comparison import html  # which takes long to load

        return html.page(boards)
    from src.comparison import formats

    write = {"text": formats.text, "markdown": formats.markdown, "latex": formats.latex, "csv": formats.csv_text}
    return write[output_format](boards)


if __name__ == "__main__":
    cli.run_command(main, USAGE)
