"""Publishes the results of the experiments: in their files, in the recipes, and in the tables and pictures of the pages.

python -m src.run -m experiment=<one or more> seed=0,1,2
python -m src.baselines -m experiment=<one or more>
python -m tests.results

The results of other experiments stay as they are on the pages. Baselines are published as they were computed last, also beside
the results of earlier runs.
"""

import io
import re
from collections.abc import Sequence
from pathlib import Path

import mlflow
from PIL import Image

from src import config, tables
from src.comparison import formats, groups
from src.config.tasks import TASKS
from src.metrics import FEATURE_DISTANCES, FEATURES, format_value, strongest_baseline
from src.tracking import baseline_runs
from src.tracking.client import create_client
from src.tracking.run_summaries import load_summaries
from tests.browser import browser
from tests.commands import ROOT
from tests.golden import EXPERIMENTS, settings_of

SEEDS = 3
HEADING = "Results of experiment=<name> seed=0,1,2 (mean ± sd on the test set, seconds of a run on one CPU core):"
METRICS = {"etth1": "test/standardized_mse", "tiny_shakespeare": "test/nll"}  # where the literature's is not the task's
READMES = ("README.md", "README.zh-CN.md")
TABLES = config.CONF / "experiment" / "README.md"
INTRODUCTION = """# Results of the experiments

A table for each data set and task, the best result first. It shows the mean ± standard deviation on the test set over the
seeds, the best simple method on the same examples (for generated images: real ones), and the cost of one run on one CPU core.
Two runs were made in parallel, some with other work beside them.

`python -m src.run -m experiment=<name> seed=0,1,2` repeats an experiment, and `python -m src.baselines experiment=<name>` shows
all simple methods for its data. `python -m src.compare format=markdown` prints such
tables; for `etth1` and `tiny_shakespeare`, `metric=` selects the metric of the literature. `python -m tests.results` writes
this page.

Distances between features of generated and of real images are compared for equal numbers of images and the same classifier
alone: those of fewer images are larger, also between real images.
"""
NUMBER, VALUE, MEAN = r"\d[\d.,]*", r"\d[\d.,]*( %)?", r"[\d.,]+ ± [\d.,]+( %)?"
BOARD = re.compile(r"^(?P<title>.+(higher|lower) is better):\n\n(?P<table>(\|.*\n)+)", re.MULTILINE)
SHORT_TABLE_ROW = re.compile(r"^\| \[`\w+`\]\(recipes/")
PICTURES = ROOT / ".pictures"
WIDTH, COLORS = 320, 24  # pixels; enough for a thumbnail of a few kilobytes
PAGE = (640, 600)  # pixels of a browser's window
SHOWN = {  # recipe: the experiment, and what its run drew
    "cnn": ("cnn_mnist", "worst_mistakes.png"),
    "resnet": ("resnet_cifar10", "worst_mistakes.png"),
    "lightweight": ("lightweight_fashion_mnist", "confusion_matrix.png"),
    "rnn": ("rnn_mnist", "confusion_matrix.png"),
    "lstm": ("lstm_etth1", "forecast.png"),
    "transformer": ("transformer_multi30k", "alignments.html"),
    "attention": ("attention_mnist", "glimpses.png"),
    "gpt": ("gpt_shakespeare", "samples.txt"),
    "gan": ("gan_mnist", "samples.png"),
    "diffusion": ("diffusion_mnist", "samples.png"),
}


def measured_groups() -> list[groups.Group]:
    """The runs of each experiment with the settings of its file and with all seeds.

    Settings that were added after a run are ignored.
    """
    selected = []
    wanted = {name: {key: str(value) for key, value in settings_of(f"experiment={name}").items()} for name in EXPERIMENTS}
    for group in groups.group_runs(load_summaries()):
        settings = wanted.get(group.settings.get("experiment"), {})
        same = all(
            group.settings.get(name, value) == value
            for name, value in settings.items()
            if not name.startswith(groups.NUISANCE_SETTINGS)
        )
        if settings and same and len(group.runs) == SEEDS:
            selected.append(group)
    return selected


def metric_of(group: groups.Group) -> str:
    """The metric that an experiment is compared by."""
    return METRICS.get(group.settings["dataset.name"]) or groups.metric_of(group)


def measures_distance(group: groups.Group) -> bool:
    """Whether the result of an experiment is a distance between features."""
    return metric_of(group).removeprefix("test/") in FEATURE_DISTANCES


def distances_note(group: groups.Group) -> str:
    """Whose features a distance is of, and of how many images; distances of fewer images are larger."""
    return f"Distances are between {FEATURES}, of {int(group.settings['task.samples']):,} images."


def describe(group: groups.Group) -> tuple[str, str]:
    """The result, "accuracy 99.02 ± 0.09 % (logistic regression 92.22 %)", and the cost."""
    metric = metric_of(group)
    name, value = group.baseline(metric) or ("", 0.0)
    beside = f" ({name} {format_value(value, metric)})" if name else ""
    measured = metric.removeprefix("test/")
    title = FEATURE_DISTANCES.get(measured) or re.sub(
        r"\b(bleu|mae|mse|nll)\b", lambda match: match[0].upper(), measured.replace("_", " ")
    )
    cost = f"{group.mean('parameters'):,.0f} parameters, {group.mean('seconds'):,.0f} s"
    return f"{title} {formats.mean_and_sd(group, metric)}{beside}", cost


def write_head(group: groups.Group) -> None:
    """Write the header of the experiment's file: "The LSTM on MNIST: accuracy 99.02 ± 0.09 % …"."""
    file = config.CONF / "experiment" / f"{group.name}.yaml"
    first, line, *rest = file.read_text(encoding="utf-8").splitlines()
    title = re.match(r"# ([^.:]+)", line)[1]
    what, cost = describe(group)
    note = f" {distances_note(group)}" if measures_distance(group) else ""
    line = f"# {title}: {what}, mean ± sd of three seeds; {cost} a run on one CPU core.{note}"
    file.write_text("\n".join([first, line, *rest, ""]), encoding="utf-8")


def write_recipe(recipe: str, selected: Sequence[groups.Group]) -> None:
    """Write the results into the docstring of the recipe."""
    file = ROOT / "recipes" / f"{recipe}.py"
    page = file.read_text(encoding="utf-8")
    docstring, rest = page.split('\n"""\n', maxsplit=1)
    docstring, _, published = docstring.partition(f"\n\n{HEADING}\n")
    results, notes = {}, {}
    for line in published.splitlines():
        name, result = line.split(maxsplit=1)
        if name in EXPERIMENTS:
            results[name] = result
        else:
            notes[line] = None
    results |= {group.name: ", ".join(describe(group)) for group in selected}
    notes |= {f"    {distances_note(group)}": None for group in selected if measures_distance(group)}
    width = max(map(len, results)) + 2
    lines = [f"    {name:<{width}}{result}" for name, result in sorted(results.items())]
    file.write_text("\n".join([f"{docstring}\n", HEADING, *lines, *notes, f'"""\n{rest}']), encoding="utf-8")


def write_tables(selected: Sequence[groups.Group]) -> None:
    """Write the page of the experiments: a leaderboard for each data set and task."""
    names = {group.name for group in selected}  # whose former rows may be in a leaderboard of other conditions
    boards = {
        match["title"]: {name: row for name, row in _rows(match["table"]).items() if name not in names}
        for match in BOARD.finditer(TABLES.read_text(encoding="utf-8"))
    }
    runs = [run for group in selected for run in group.runs]
    for dataset in {group.settings["dataset.name"] for group in selected}:
        of_dataset = [run for run in runs if run.settings["dataset.name"] == dataset]
        for board in groups.leaderboards(of_dataset, METRICS.get(dataset)):
            headings, rows = formats.heading_and_rows(board)
            measured = {row[0]: dict(zip(headings, row, strict=True)) for row in rows}
            boards[formats.title(board)] = boards.get(formats.title(board), {}) | measured
    sections = [INTRODUCTION]
    for title, by_name in sorted(board for board in boards.items() if board[1]):
        headings = list(next(iter(by_name.values())))
        rows = sorted(
            ([row[heading] for heading in headings] for row in by_name.values()),
            key=lambda row: float(row[1].split()[0].replace(",", "")),
            reverse=title.endswith("higher is better"),
        )
        sections.append(f"{title}:\n\n{tables.markdown(headings, rows)}\n")
    TABLES.write_text("\n".join(sections), encoding="utf-8")


def _rows(table: str) -> dict[str, dict[str, str]]:
    """The rows of a table in Markdown, by their first cell, as {heading: cell}."""
    headings, _, *rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()]
    return {row[0]: dict(zip(headings, row, strict=True)) for row in rows}


def write_short_table(selected: Sequence[groups.Group]) -> None:
    """Write the numbers into the tables of both READMEs; their words are written by hand."""
    for name in READMES:
        lines = (ROOT / name).read_text(encoding="utf-8").splitlines(keepends=True)
        for group in selected:
            metric = metric_of(group)
            baseline = group.baseline(metric)
            costs = [f"{group.mean(cost):,.0f}" for cost in ("parameters", "seconds")]
            for number, line in enumerate(lines):
                if SHORT_TABLE_ROW.match(line) and f"`experiment={group.name}`" in line:
                    recipe, data, result, simple, published, cost, command = line.split(" | ")
                    result = re.sub(MEAN, formats.mean_and_sd(group, metric), result)
                    simple = re.sub(VALUE, format_value(baseline[1], metric), simple) if baseline else simple
                    cost = re.sub(NUMBER, "{}", cost).format(*costs)
                    lines[number] = " | ".join([recipe, data, result, simple, published, cost, command])
        (ROOT / name).write_text("".join(lines), encoding="utf-8")


def recorded_baselines() -> dict[str, tuple[str, str]]:
    """{experiment: name and result of the best simple method} of those for which `src.baselines` has made a run in MLflow."""
    client = create_client()
    experiments = [each.experiment_id for each in client.search_experiments()]
    query = f"tags.kind = '{baseline_runs.KIND}' and attributes.status = 'FINISHED'"
    recorded = client.search_runs(experiments, query, order_by=["attributes.end_time DESC"])
    found = {}
    for name in EXPERIMENTS:
        settings = {key: str(value) for key, value in settings_of(f"experiment={name}").items()}
        metric = METRICS.get(settings["dataset.name"]) or f"test/{TASKS[settings['task.name']].leading_metric}"
        for run in recorded:
            params = {key: value for key, value in run.data.params.items() if key not in baseline_runs.UNRELATED}
            best = strongest_baseline(run.data.metrics, metric.removeprefix("test/"))
            if params.items() <= settings.items() and best:
                found[name] = best[0], format_value(best[1], metric)
                break
    return found


def write_baseline(experiment: str, name: str, value: str) -> None:
    """Write the best simple method beside the results of an experiment on all pages; in the READMEs its value alone."""
    settings = settings_of(f"experiment={experiment}")
    head = config.CONF / "experiment" / f"{experiment}.yaml"
    recipe = ROOT / "recipes" / f"{settings['model.name']}.py"
    _replace(head, r"\([^()]*\)(?=, mean ± sd)", f"({name} {value})")
    _replace(recipe, rf"(?<=\n)(    {experiment} +[^()\n]*)\([^()]*\)(?=, [\d,]+ parameters)", rf"\1({name} {value})")
    _replace(TABLES, rf"(?<=\n)(\| {experiment} +(?:\|[^|\n]*){{2}}\|)[^|\n]*(?=\|)", rf"\1 {value} ({name}) ")
    for page in READMES:
        before, after = r"\| \[`\w+`\](?:[^|\n]*\|){3}[^|\d\n]*?", rf"[^|\n]*(?:\|[^|\n]*){{2}}\| `experiment={experiment}` \|"
        row = rf"(?<=\n)({before}){VALUE}(?={after})"
        _replace(ROOT / page, row, rf"\g<1>{value}")


def _replace(file: Path, pattern: str, replacement: str) -> None:
    file.write_text(re.sub(pattern, replacement, file.read_text(encoding="utf-8")), encoding="utf-8")


def align_tables() -> None:
    """Redraw the tables of the page of the experiments, whose columns may have become wider or narrower."""

    def redraw(match: re.Match) -> str:
        headings, marks, *rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in match[0].splitlines()]
        return tables.markdown(headings, rows, [column for column, mark in enumerate(marks) if mark.startswith(":")])

    page = TABLES.read_text(encoding="utf-8")
    TABLES.write_text(re.sub(r"^\|.*\|$(?:\n\|.*\|$)+", redraw, page, flags=re.MULTILINE), encoding="utf-8")


def draw(recipe: str, group: groups.Group, figure: str) -> None:
    """Make a thumbnail of a figure of the newest run; an HTML page is rendered in a browser."""
    path = Path(mlflow.artifacts.download_artifacts(run_id=group.runs[0].run_id, artifact_path=f"figures/{figure}"))
    if path.suffix == ".png":
        picture = path.read_bytes()
    else:
        with browser(*PAGE) as window:
            window.get(path.as_uri())
            picture = window.get_screenshot_as_png()
    image = Image.open(io.BytesIO(picture)).convert("RGB")
    image = image.resize((WIDTH, round(image.height * WIDTH / image.width)), Image.Resampling.LANCZOS)
    PICTURES.mkdir(exist_ok=True)
    image.quantize(COLORS, dither=Image.Dither.NONE).save(PICTURES / f"{recipe}.png", optimize=True)


if __name__ == "__main__":
    measured, baselines = measured_groups(), recorded_baselines()
    if not measured and not baselines:
        raise SystemExit("MLflow has no finished runs of an experiment with all seeds, and no baselines; nothing is written.")
    for one in measured:
        write_head(one)
        print(one.name, *describe(one))
    for recipe in {group.recipe for group in measured}:
        write_recipe(recipe, [group for group in measured if group.recipe == recipe])
    if measured:
        write_tables(measured)
        write_short_table(measured)
    for experiment, best in baselines.items():
        write_baseline(experiment, *best)
        print(experiment, *best)
    align_tables()
    by_name = {group.name: group for group in measured}
    for recipe, (experiment, figure) in SHOWN.items():
        if experiment in by_name:
            draw(recipe, by_name[experiment], figure)
