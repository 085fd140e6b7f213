"""Writes down what the experiments reached: in their files, in the recipes, and in the tables and pictures of the READMEs.

python -m src.run -m experiment=<one or more> seed=0,1,2
python -m tests.results
"""

import io
import re
from collections.abc import Sequence
from pathlib import Path

import mlflow
from PIL import Image

from src import config
from src.comparison import groups, tables
from src.metrics import format_value
from src.tracking.run_summaries import load_summaries
from tests.browser import browser
from tests.commands import ROOT
from tests.golden import EXPERIMENTS, settings_of

SEEDS = 3
HEADING = "Results of experiment=<name> seed=0,1,2 (mean ± sd on the test set, seconds of a run on one CPU core):"
METRICS = {"etth1": "test/standardized_mse", "tiny_shakespeare": "test/nll"}  # where the literature's is not the task's
READMES = ("README.md", "README.zh-CN.md")
CHINESE = {  # words of the tables
    "recipe": "配方",
    "seeds": "种子数",
    "baseline": "基线",
    "parameters": "参数量",
    "MACs": "乘加运算数",
    "seconds": "耗时（秒）",
    "joules": "能耗（焦耳）",
    "examples/s": "样本/秒",
    "lower is better": "越低越好",
    "higher is better": "越高越好",
    "image classification": "图像分类",
    "text classification": "文本分类",
    "language modeling": "语言建模",
    "translation": "翻译",
    "forecasting": "时间序列预测",
    "image generation": "图像生成",
    "Fréchet distance (features of this project's classifier)": "Fréchet 距离（以本项目分类器的特征计算）",
    "majority class": "多数类",
    "logistic regression": "逻辑回归",
    "bag of words": "词袋",
    "seasonal naive": "季节性朴素预测",
    "exponential smoothing": "指数平滑",
    "bigram": "二元语法",
    "copy": "照抄原文",
    "training images": "训练图像",
}
NUMBER, MEAN = r"\d[\d.,]*", r"[\d.,]+ ± [\d.,]+( %)?"
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


def reached() -> list[groups.Group]:
    """The runs of each experiment with the settings that its file has, of those that were run with all seeds.

    A setting that is younger than a run does not part them.
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
    """What an experiment is judged by."""
    return METRICS.get(group.settings["dataset.name"]) or groups.metric_of(group)


def describe(group: groups.Group) -> tuple[str, str]:
    """What was reached, "accuracy 99.02 ± 0.09 % (logistic regression 92.22 %)", and what it cost."""
    metric = metric_of(group)
    name, value = group.baseline(metric) or ("", 0.0)
    beside = f" ({name} {format_value(value, metric)})" if name else ""
    measured = metric.removeprefix("test/").replace("_", " ")
    measured = measured.upper() if measured in ("bleu", "fid", "mae", "nll") else measured
    cost = f"{group.mean('parameters'):,.0f} parameters, {group.mean('seconds'):,.0f} s"
    return f"{measured} {tables.mean_and_sd(group, metric)}{beside}", cost


def write_head(group: groups.Group) -> None:
    """Into the file of the experiment: "The LSTM on MNIST: accuracy 99.02 ± 0.09 % …"."""
    file = config.CONF / "experiment" / f"{group.name}.yaml"
    first, line, *rest = file.read_text(encoding="utf-8").splitlines()
    title = re.match(r"# ([^.:]+)", line)[1]
    what, cost = describe(group)
    line = f"# {title}: {what}, mean ± sd of three seeds; {cost} a run on one CPU core."
    file.write_text("\n".join([first, line, *rest, ""]), encoding="utf-8")


def write_recipe(recipe: str, selected: Sequence[groups.Group]) -> None:
    """Into the docstring of the recipe."""
    file = ROOT / "recipes" / f"{recipe}.py"
    width = max(len(group.name) for group in selected) + 2
    lines = [
        f"    {group.name:<{width}}{', '.join(describe(group))}" for group in sorted(selected, key=lambda group: group.name)
    ]
    page = file.read_text(encoding="utf-8")
    docstring, rest = page.split('\n"""\n', maxsplit=1)
    docstring = re.sub(rf"\n\n{re.escape(HEADING)}(\n    .*)*\Z", "", docstring)
    file.write_text("\n".join([f"{docstring}\n", HEADING, *lines, f'"""\n{rest}']), encoding="utf-8")


def in_chinese(page: str) -> str:
    """Translate the titles, the headings and the names of the baselines of Markdown tables."""
    words = "|".join(map(re.escape, CHINESE))
    page = re.sub(rf"(?<![\w/])({words})(?![\w/])", lambda match: CHINESE[match[0]], page)
    page = re.sub(r" \((.+?)\)", r"（\1）", page)
    titles = re.compile(r"^\w.*:$", re.MULTILINE)
    return titles.sub(lambda match: re.sub(": ?", "：", match[0].replace(", ", "，")), page)


def write_tables(selected: Sequence[groups.Group]) -> None:
    """Into both READMEs, as `python -m src.compare format=markdown` prints them."""
    runs = [run for group in selected for run in group.runs]
    boards = [
        board
        for dataset in sorted({group.settings["dataset.name"] for group in selected})
        for board in groups.leaderboards([run for run in runs if run.settings["dataset.name"] == dataset], METRICS.get(dataset))
    ]
    for name in READMES:
        page = (ROOT / name).read_text(encoding="utf-8")
        before, opening, after = re.split(r"(<details>.*?</summary>\n)", page, maxsplit=1)
        after = after[after.index("</details>") :]
        results = tables.markdown(boards)
        results = in_chinese(results) if name == "README.zh-CN.md" else results
        (ROOT / name).write_text(f"{before}{opening}\n{results}\n{after}", encoding="utf-8")


def write_ten(selected: Sequence[groups.Group]) -> None:
    """Into the table of the ten recipes of both READMEs, whose words are written by hand: numbers alone."""
    for name in READMES:
        lines = (ROOT / name).read_text(encoding="utf-8").splitlines(keepends=True)
        for group in selected:
            metric = metric_of(group)
            costs = [f"{group.mean(cost):,.0f}" for cost in ("parameters", "seconds")]
            for number, line in enumerate(lines):
                if line.startswith("| <img") and f"`{group.name}`" in line:
                    *rest, reached, cost, beside = line.split(" | ")
                    reached = re.sub(MEAN, tables.mean_and_sd(group, metric), reached)
                    cost = re.sub(NUMBER, "{}", cost).format(*costs)
                    if metric == "test/fid":  # whose floor is measured too
                        beside = re.sub(NUMBER, format_value(group.baseline(metric)[1], metric), beside)
                    lines[number] = " | ".join([*rest, reached, cost, beside])
        (ROOT / name).write_text("".join(lines), encoding="utf-8")


def draw(recipe: str, group: groups.Group, figure: str) -> None:
    """A thumbnail of what the newest run drew, or of the top of the page that it wrote, in a browser."""
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
    measured = reached()
    for one in measured:
        write_head(one)
        print(one.name, *describe(one))
    for recipe in {group.recipe for group in measured}:
        write_recipe(recipe, [group for group in measured if group.recipe == recipe])
    write_tables(measured)
    write_ten(measured)
    by_name = {group.name: group for group in measured}
    for recipe, (experiment, figure) in SHOWN.items():
        if experiment in by_name:
            draw(recipe, by_name[experiment], figure)
