"""How commands read their arguments, and what they print with --help."""

import importlib
import re
import shlex
import subprocess
import sys

import pytest

from src import cli, config
from src.errors import UserError
from tests.commands import environment

COMMANDS = ("baselines", "evaluate", "generate", "reproduce", "compare", "sync")  # besides run, whose help is Hydra's


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run"], "'run' cannot be read; write setting=value, like run=last."),
        (["=3"], "'=3' cannot be read"),
        (["run=last", "rnu=last"], "There is no setting 'rnu'; available: run, seed."),
        (["seed=1"], "The setting 'run' is missing; write it like run=last."),
    ],
)
def test_mistakes_in_arguments_are_reported_in_one_sentence(arguments, message):
    with pytest.raises(UserError) as raised:
        cli.parse_key_values(arguments, valid=("run", "seed"), required=["run"])
    assert str(raised.value).startswith(message)


def test_values_are_parsed_as_typed_and_the_last_one_wins():
    assert cli.parse_key_values(["a=b=c d", "e=", "a=1"]) == {"a": "1", "e": ""}
    assert cli.parse_key_values(["a=b=c d"]) == {"a": "b=c d"}


def test_command_without_settings_rejects_arguments():
    with pytest.raises(UserError, match="There is no setting 'a'; available: none"):
        importlib.import_module("src.sync").main(["a=1"])


@pytest.mark.parametrize("name", COMMANDS)
def test_help_describes_each_setting_and_has_two_examples_that_work(name):
    usage = importlib.import_module(f"src.{name}").USAGE
    text = str(usage)
    assert max(map(len, text.splitlines())) <= cli.WIDTH
    assert all(re.search(rf"^  {setting} +\S", text, re.MULTILINE) for setting in usage.settings)
    assert len(usage.examples) == 2
    for example in usage.examples:
        assert example in text
        _, _, arguments = example.partition(f"python -m src.{name}")
        valid = None if "<setting>" in usage.settings else usage.settings
        required = ["run"] if "run" in usage.settings else []
        cli.parse_key_values(shlex.split(arguments), valid, required)


@pytest.mark.parametrize(
    ("name", "option"), [("run", "--help"), ("run", "-h"), *((name, "--help") for name in COMMANDS), ("compare", "-h")]
)
def test_help_imports_neither_tensorflow_nor_mlflow(here, name, option):
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", f"src.{name}", option],
        env=environment(), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert f"Usage: python -m src.{name}" in done.stdout
    assert "Examples:" in done.stdout
    assert not re.search(r"\| +(tensorflow|keras|mlflow)$", done.stderr, re.MULTILINE)
    assert not list(here.iterdir())


def test_help_of_run_describes_each_group():
    text = (config.CONF / "hydra/help/run.yaml").read_text(encoding="utf-8")
    groups = {path.name for path in config.CONF.iterdir() if path.is_dir()} - {"hydra"}
    assert set(re.findall(r"^    (\w+)  +\S", text, re.MULTILINE)) == groups
    for arguments in re.findall(r"^    python -m src\.run (.*)$", text, re.MULTILINE):
        config.parse(shlex.split(arguments))
