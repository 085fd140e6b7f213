"""Compares finished runs, best first: `python -m src.compare dataset=digits`; or two: `… a=model=cnn b=model=lstm`."""

import difflib
import gc
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from src import cli
from src.errors import UserError

OPTIONS = ("metric", "format", "to", "a", "b")
FORMATS = {"text": ".txt", "markdown": ".md", "csv": ".csv", "html": ".html"}
SHORT = ("model", "dataset", "task", "strategy", "optimizer")  # model=cnn is short for model.name=cnn


def main() -> int:
    """The command line."""
    gc.disable()  # looking for it among the objects of a thousand runs, which live to the end, took a third of the time
    print(compare(sys.argv[1:]))
    return 0


def compare(words: Sequence[str]) -> str:
    """The leaderboards of what is selected, or what is written of them; or the difference between `a` and `b`.

    Args:
        words: of the command line. metric=<as in MLflow>; format=text, markdown, csv or html; to=<file>; a=<setting=value …>
            and b=<…>; every other one selects the runs with that value of a setting, or one of several: model=cnn,lstm.

    Raises:
        UserError: nothing is selected, or there is no such metric, setting or format.
    """
    options, wanted = _read(words)
    chosen = _format(options)
    if len({"a", "b"} & options.keys()) == 1:
        raise UserError("To compare two groups write both, like a=model=cnn b=model=lstm.")
    from src.comparison import groups  # what takes long to load is loaded where it is needed, here and below
    from src.tracking.run_summaries import load_summaries

    runs = load_summaries()
    known = {name for run in runs for name in run.settings}
    for name in [*wanted, *(name for side in "ab" for name in _side(options, side))]:
        _check(name, known)
    selected = _select(runs, wanted)
    if "a" in options:
        return _difference(selected, options)
    page = _written(groups.boards(selected, options.get("metric")), chosen)
    if "to" not in options:
        return page
    try:
        Path(options["to"]).write_text(page, encoding="utf-8")
    except OSError as error:
        raise UserError(f"to={options['to']} cannot be written: {error.strerror}.") from None
    return f"Written: {options['to']}"


def _read(words: Sequence[str]) -> tuple[dict[str, str], dict[str, str]]:
    """The options, and the values of settings that are asked for."""
    options: dict[str, str] = {}
    wanted: dict[str, str] = {}
    for word in words:
        name, is_pair, value = word.partition("=")
        if not is_pair or not value:
            raise UserError(f"'{word}' cannot be read; write setting=value, like dataset=digits.")
        (options if name in OPTIONS else wanted)[name] = value
    return options, _in_full(wanted)


def _in_full(wanted: Mapping[str, str]) -> dict[str, str]:
    return {f"{name}.name" if name in SHORT else name: value for name, value in wanted.items()}


def _side(options: Mapping[str, str], side: str) -> dict[str, str]:
    """The settings that `a` or `b` names."""
    wanted = {}
    for word in options.get(side, "").split():
        name, is_pair, value = word.partition("=")
        if not is_pair:
            raise UserError(f"{side}={options[side]} cannot be read; write {side}=model=cnn, or {side}='model=cnn seed=0,1'.")
        wanted[name] = value
    return _in_full(wanted)


def _format(options: Mapping[str, str]) -> str:
    by_name = next((name for name, suffix in FORMATS.items() if options.get("to", "").endswith(suffix)), None)
    chosen = options.get("format") or by_name or "text"
    if "to" in options and not ("format" in options or by_name):
        raise UserError(f"to={options['to']} has none of the endings {', '.join(FORMATS.values())}; add one, or format=….")
    if chosen not in FORMATS:
        raise UserError(f"There is no format={chosen}; known: {', '.join(FORMATS)}.")
    return chosen


def _check(name: str, known: set[str]) -> None:
    if known and name not in known:
        near = difflib.get_close_matches(name, [*known, *OPTIONS], n=1, cutoff=0.6)
        last = [other for other in sorted(known) if other.endswith(f".{name}")]
        hint = f"; did you mean {(last or near)[0]}?" if last or near else f"; known: {', '.join(sorted(known))}."
        raise UserError(f"No run has a setting '{name}'{hint}")


def _select(runs: Sequence, wanted: Mapping[str, str]) -> list:
    """Those with all the values that are asked for."""
    selected = [run for run in runs if all(_is(run.settings.get(name), values) for name, values in wanted.items())]
    if not selected:
        asked = " ".join(f"{name}={value}" for name, value in wanted.items())
        counts: dict[str, int] = {}
        for run in runs:
            counts[run.settings["dataset.name"]] = counts.get(run.settings["dataset.name"], 0) + 1
        there = ", ".join(f"{name} ({count})" for name, count in sorted(counts.items()))
        raise UserError(
            f"No finished run has {asked or 'been made yet'}; "
            + (f"there are runs on {there}." if there else "make one: python -m src.run model=lstm")
        )
    return selected


def _is(value: str | None, wanted: str) -> bool:
    return value is not None and any(value == one or _number(value) == _number(one) for one in wanted.split(","))


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan  # equal to nothing


# --- two groups -----------------------------------------------------------------------------------------------------


def _difference(runs: Sequence, options: Mapping[str, str]) -> str:
    from src.comparison import groups, significance

    pair = []
    for side in "ab":
        found = groups.grouped(_select(runs, _side(options, side)))
        if len(found) > 1:
            apart = groups.differing(found)
            raise UserError(
                f"{side}={options[side]} selects {len(found)} groups of runs with other settings; they differ by "
                f"{', '.join(apart)}: add one of them, like {side}='{options[side]} {apart[0]}=…'."
            )
        pair += found
    metric = options.get("metric") or groups.metric_of(pair[0])
    for side, group in zip("ab", pair):
        if not len(group.values(metric)):
            known = ", ".join(sorted(group.runs[0].metrics))
            raise UserError(f"{side}={options[side]} has no metric '{metric}'; known: {known}.")
    return significance.told(metric, *pair)


def _written(boards: Sequence, form: str) -> str:
    from src.comparison import tables

    if form == "html":
        from src.comparison import html as page

        return page.page(boards)
    return {"text": tables.text, "markdown": tables.markdown, "csv": tables.comma_separated}[form](boards)


if __name__ == "__main__":
    cli.command(main)
