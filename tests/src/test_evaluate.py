"""Scoring a finished run's model again, and running it again: what comes out is what was logged."""

import re

import pytest
import yaml

from src import evaluate, experiment
from tests import commands, faults
from tests.stored import client, runs

SHORT = ("training.epochs=1", "dataset.limit=256", "tracking.log_model=false")


@pytest.fixture
def ran(here, command):
    """ran("model=cnn", …): the id of a finished run."""

    def id_of(*arguments):
        done = command(*arguments)
        assert done.returncode == 0, done.stderr
        return re.search(r"\((\w{32})\)\. To look at it", done.stdout)[1]

    return id_of


@pytest.mark.parametrize(
    "recipe", [pytest.param(name, marks=[pytest.mark.slow] * (name in ("diffusion", "gan"))) for name in sorted(faults.SMALL)]
)
def test_it_gets_the_very_numbers_that_were_logged(store, settings, recipe):
    done = experiment.run(settings(*faults.arguments(recipe), "training.epochs=1"), quiet=True)
    assert re.search(r"\nAll [2-9] metrics are identical\.$", evaluate.evaluate(done.run_id))


def test_numbers_that_are_not_those_that_were_logged_are_named(store, settings):
    done = experiment.run(settings("model=cnn", *SHORT), quiet=True)
    store.log_metric(done.run_id, "test/nll", 1000.0)
    assert re.search(r"\nDifferent from what was logged: nll by \S+\.$", evaluate.evaluate(done.run_id))


def test_other_data_has_to_be_of_the_same_kind(finished_run):
    arguments = (finished_run.folder, f"run={finished_run.run_id}")
    for other, message in (("co2", "has other classes than digits"), ("nonsense", "dataset")):
        done = commands.run(*arguments, f"dataset={other}", module="src.evaluate")
        assert done.returncode == 2
        assert message in done.stderr
        assert "Traceback" not in done.stderr
    done = commands.run(finished_run.folder, "run=cnn-seed0", "dataset=digits", module="src.evaluate")
    assert done.returncode == 0, done.stderr
    assert "cnn on digits" in done.stdout


def test_a_run_is_reproduced(ran, here, command):
    ran("model=cnn", *SHORT)
    done = command("run=last", module="src.reproduce")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Nothing has changed since then" in done.stdout
    assert re.search(r"All \d+ metrics are identical, at every step\.", done.stdout)
    assert len(runs(here, "digits")) == 2


def test_what_is_not_as_it_was_is_said(ran, here, command):
    finished = ran("model=cnn", *SHORT)
    store = client(here)
    store.set_tag(finished, "version.keras", "3.0.0")
    store.log_metric(finished, "val/loss", 12.5, step=1, timestamp=2**41)
    done = command(f"run={finished}", module="src.reproduce")
    assert done.returncode == 1, done.stderr
    assert re.search(r"Changed since then:\n  version\.keras: 3\.0\.0 then, \S+ now", done.stdout)
    assert re.search(r"val/loss: 12\.5 then, \S+ now, by \S+\n1 metric\(s\) differ\.", done.stdout)


@pytest.mark.parametrize("module", ["evaluate", "generate", "reproduce"])
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "The setting 'run' is missing"),
        (["run=nonsense"], "run=nonsense names no finished run"),
        (["nonsense"], "'nonsense' cannot be read"),
        (["run=1", "runs=1"], "There is no setting 'runs'"),
    ],
)
def test_a_mistake_is_answered_in_one_sentence_before_tensorflow_loads(command, module, arguments, message):
    done = command(*arguments, module=f"src.{module}", fresh=True, PYTHONPROFILEIMPORTTIME="1")
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert not re.search(r"\| +(tensorflow|keras)$", done.stderr, re.MULTILINE)


def test_no_code_that_a_run_names_is_called(ran, here, command):
    finished = ran("model=cnn", *SHORT)
    config = here / "mlruns/1" / finished / "artifacts/config.yaml"
    recorded = yaml.safe_load(config.read_text())
    recorded["model"] = {"name": "evil", "_target_": "os.system", "command": f"touch {here / 'owned'}", "pretrained": None}
    config.write_text(yaml.safe_dump(recorded))
    for module, *arguments in (
        ["evaluate", f"run={finished}"],
        ["reproduce", f"run={finished}"],
        ["run", "model=cnn", f"compression.teacher={finished}"],
    ):
        done = command(*arguments, module=f"src.{module}")
        assert done.returncode == 2, done.stdout
        assert f"={finished} was made by os.system, which is no recipe in conf/model" in done.stderr
    assert not (here / "owned").exists()
