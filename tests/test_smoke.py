"""What is checked before each commit, within half a minute: that everything can be imported, and that one run works.

Every configuration is composed by what is marked smoke in tests/src/config/test_config.py.
"""

import importlib

import pytest

from tests.commands import ROOT
from tests.stored import runs

pytestmark = pytest.mark.smoke
MODULES = [
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    for folder in ("recipes", "src")
    for path in sorted((ROOT / folder).rglob("*.py"))
]


def test_every_module_can_be_imported():
    for module in MODULES:
        importlib.import_module(module)


def test_a_tiny_run_trains_and_is_recorded(command, here):
    done = command("model=lstm", "model.units=4", "training.epochs=1", "training.steps_per_epoch=5", "tracking.log_model=false")
    assert done.returncode == 0, done.stderr
    (run,) = runs(here, "co2")
    assert run.info.status == "FINISHED"
    assert run.data.metrics["test/mae"] > 0
