"""Experiments are what they were when their results were measured, and say what these were."""

import re

import pytest

from src import config
from tests.pin import EXPERIMENTS, PINNED, resolved, settings_of

HEADS = {name: (config.CONF / "experiment" / f"{name}.yaml").read_text(encoding="utf-8") for name in EXPERIMENTS}
MEASURED = re.compile(r"^# .+: .*\d.*\(.*seed.*\).*\d s\b", re.MULTILINE)


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_the_settings_are_those_that_were_measured(experiment):
    """If this is meant to change, measure it again, and: python -m tests.pin"""
    assert (PINNED / f"{experiment}.txt").read_text(encoding="utf-8") == resolved(experiment)


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_it_has_the_name_of_its_file(experiment):
    assert settings_of(experiment)["experiment"] == experiment


def test_nothing_else_is_pinned():
    assert {path.stem for path in PINNED.glob("*.txt")} == set(EXPERIMENTS)


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_its_head_says_what_it_costs_and_reaches_or_that_it_was_not_run(experiment):
    assert MEASURED.search(HEADS[experiment]) or re.search(r"Not (run here|measured yet)", HEADS[experiment])
