"""The settings of models and experiments are those in tests/golden: of experiments, those with which results were measured.

If a difference is meant, measure again the experiments that it concerns, and:

python -m pytest tests/src/test_golden.py --update-golden
"""

import pytest

from tests import golden

FILES = {f"{name}.txt" for name in golden.MODELS} | {f"experiments/{name}.txt" for name in golden.EXPERIMENTS}


@pytest.fixture
def update(request) -> bool:
    return request.config.getoption("update_golden")


def compare(file, settings, update):
    if update:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(settings, encoding="utf-8")
    assert file.read_text(encoding="utf-8") == settings


@pytest.mark.parametrize("model", golden.MODELS)
def test_golden_settings_of_models(model, update):
    compare(golden.GOLDEN / f"{model}.txt", golden.of_model(model), update)


@pytest.mark.parametrize("experiment", golden.EXPERIMENTS)
def test_golden_differences_of_experiments(experiment, update):
    compare(golden.GOLDEN / "experiments" / f"{experiment}.txt", golden.of_experiment(experiment), update)


def test_no_golden_file_is_left_over(update):
    for file in golden.GOLDEN.rglob("*.txt"):
        if str(file.relative_to(golden.GOLDEN)) not in FILES:
            assert update, file
            file.unlink()


def test_new_common_settings_change_only_the_model_files(monkeypatch):
    before = golden.of_experiment("lstm_mnist")
    more = {option: golden.settings_of(option) | {"training.new": 1} for option in ("model=lstm", "experiment=lstm_mnist")}
    monkeypatch.setattr(golden, "settings_of", more.__getitem__)
    assert "training.new: 1\n" in golden.of_model("lstm")
    assert golden.of_experiment("lstm_mnist") == before
