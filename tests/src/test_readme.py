"""What the README shows works as it stands."""

import re
import shlex
import shutil
import subprocess
import sys

import pytest

from src import config
from tests.conftest import ROOT, environment

README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
COMMANDS = [
    found[1].replace("<run id>", "0123")
    for kind, block in BLOCKS
    if kind == "bash"
    for found in re.finditer(r"python -m src\.run(.*?)(?:#.*)?$", block, re.M)
]
FILES = dict(re.findall(r"`((?:conf|recipes)/\S+\.\w+)`:\n\n```\w+\n(.*?)^```", README, re.MULTILINE | re.DOTALL))


@pytest.mark.parametrize("arguments", [shlex.split(line) for line in COMMANDS], ids=" ".join)
def test_every_command_is_accepted(arguments):
    config.check(arguments)


def test_there_are_commands_and_files():
    assert len(COMMANDS) >= 7
    assert set(FILES) == {"conf/dataset/kmnist.yaml", "recipes/perceptron.py", "conf/model/perceptron.yaml"}


def test_the_example_of_a_mistake_is_answered_as_shown():
    arguments, answer = re.search(r"^\$ python -m src\.run (.*)\n(.*)\n", README, re.MULTILINE).groups()
    with pytest.raises(config.UserError) as raised:
        config.check(arguments.split())
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


def test_the_readme_names_every_option():
    for group in ("model", "dataset", "strategy", "optimizer", "compression", "experiment", "sweep", "debug"):
        row = re.search(rf"^\| `{group}` \|(.*)$", README, re.MULTILINE)[1]
        assert {path.stem for path in (config.CONF / group).glob("*.yaml")} <= set(re.findall(r"`(\w+)`", row)), group
