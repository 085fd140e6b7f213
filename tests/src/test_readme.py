"""The examples of all pages work, and both READMEs have the same contents."""

import re
import shlex
import shutil
import subprocess
import sys

import pytest

from src import config
from src.errors import UserError
from tests.commands import ROOT, environment

README, CHINESE, *PAGES = (
    (ROOT / name).read_text(encoding="utf-8")
    for name in ("README.md", "README.zh-CN.md", "recipes/README.md", "conf/README.md", "src/README.md")
)


def blocks(page):
    """(language, text) of each code block."""
    return re.findall(r"^```(\w+)\n(.*?)^```", page, re.MULTILINE | re.DOTALL)


COMMANDS = list(dict.fromkeys(
    match[1].replace("<run id>", "0123").strip()
    for page in (README, *PAGES)
    for kind, block in blocks(page)
    if kind == "bash"
    for match in re.finditer(r"python -m src\.run(.*?)(?:#.*)?$", block, re.M)
))  # fmt: skip
FILES = dict(re.findall(r"`((?:conf|recipes)/\S+\.\w+)`:\n\n```\w+\n(.*?)^```", README, re.MULTILINE | re.DOTALL))


@pytest.mark.parametrize("arguments", [shlex.split(line) for line in COMMANDS], ids=" ".join)
def test_every_command_is_accepted(arguments, own_data, monkeypatch):
    monkeypatch.chdir(own_data)  # where the files are that some of them name
    config.parse(arguments)


def test_the_python_example_runs_what_is_typed_and_returns_the_result(store, data_dir, capsys):
    code = next(text for kind, text in blocks(README) if kind == "python" and "config.parse" in text)
    quick = ["training.epochs=1", "dataset.limit=64", "tracking.log_model=false", "tracking.log_figures=false"]
    shorter = ", ".join(map(repr, [*quick, f"dataset.data_dir={data_dir}"]))
    names = {}
    exec(code.replace('"training.epochs=2"', shorter), names)
    result = names["result"]
    assert store.get_run(result.run_id).data.metrics["test/accuracy"] == result.metrics["test/accuracy"]
    assert capsys.readouterr().out.splitlines()[-1] == f"{result.metrics['test/accuracy']} {result.run_id}"


def test_there_are_commands_and_files():
    assert len(COMMANDS) >= 7
    assert set(FILES) == {"conf/dataset/kmnist.yaml", "recipes/perceptron.py", "conf/model/perceptron.yaml"}


def test_the_example_error_is_reported_as_shown():
    arguments, answer = re.search(r"^\$ python -m src\.run (.*)\n(.*)\n", README, re.MULTILINE).groups()
    with pytest.raises(UserError) as raised:
        config.parse(arguments.split())
    assert str(raised.value) == answer


def test_the_example_recipe_and_data_set_work(tmp_path):
    for folder in ("recipes", "src", "conf"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for name, text in FILES.items():
        assert not (tmp_path / name).exists()
        (tmp_path / name).write_text(text, encoding="utf-8")

    def run(*arguments):
        command = [sys.executable, "-m", "src.run", *arguments]
        env = environment(PYTHONPATH=str(tmp_path))
        return subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=120, check=False)

    done = run("model=perceptron", "training.epochs=3")
    assert done.returncode == 0, done.stderr
    assert re.search(r"^perceptron +0\.\d+", done.stdout, re.MULTILINE)
    done = run("model=perceptron", "dataset=kmnist", "--cfg", "job")
    assert "builder: kmnist" in done.stdout
    done = run("model=perceptron", "model.units=0")
    assert done.stderr == "model.units must be greater than or equal to 1, not 0.\n"


def test_every_option_is_named():
    page = (config.CONF / "README.md").read_text(encoding="utf-8")
    for group in ("model", "dataset", "strategy", "optimizer", "compression", "experiment", "sweep", "debug"):
        row = page if group == "experiment" else re.search(rf"^\| `{group}` \|(.*)$", page, re.MULTILINE)[1]
        assert set(config.option_names(group)) <= set(re.findall(r"`(\w+)`", row)), group


def test_links_and_pictures_are_there():
    for name in ("README.md", "README.zh-CN.md", "recipes/README.md", "conf/README.md", "src/README.md"):
        page = (ROOT / name).read_text(encoding="utf-8")
        targets = re.findall(r"\]\(([^)#:]+)\)", page) + re.findall(r'src="([^":]+)"', page)
        assert [target for target in targets if not ((ROOT / name).parent / target).exists()] == [], name


def test_the_readme_says_the_same_in_chinese():
    def commands_and_numbers(page):
        code = [
            (kind, re.sub(r" *#.*$", "", text, flags=re.MULTILINE) if kind == "bash" else text) for kind, text in blocks(page)
        ]
        prose = re.sub(r"^```.*?^```", "", page, flags=re.MULTILINE | re.DOTALL)
        rows = [re.findall(r"\d+(?:[.,]\d+)*", line) for line in prose.splitlines() if line.startswith("|")]
        headings = [len(marks) for marks in re.findall(r"^(#+) ", prose, re.MULTILINE)]
        return {"code": code, "names": sorted(re.findall(r"`([^`\n]+)`", prose)), "rows": rows, "headings": headings}

    english, chinese = commands_and_numbers(README), commands_and_numbers(CHINESE)
    for what, wanted in english.items():
        assert chinese[what] == wanted, what
