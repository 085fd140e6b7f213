"""Reading what a recipe accepts without importing it."""

import pydantic
import pytest

from recipes.specs import Classes, Forecast, Image, NextTokenLogits, Series, Tokens
from src.config import signature
from src.errors import UserError


@pytest.fixture
def recipe(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)

    def write(source):
        (tmp_path / "some_recipe.py").write_text(f"raise ImportError('imported')\n{source}", encoding="utf-8")
        return "some_recipe.build"

    return write


def test_signature_has_specs_types_ranges_and_defaults(recipe):
    own = "units: Count, dropout: Rate = 0.5, sizes: list[Count] = (1, 2)"
    read = signature.read(recipe(f"def build(inputs: Image | Tokens, outputs: Classes, *, {own}): ..."))
    assert read.inputs == {Image, Tokens}
    assert read.outputs == (Classes,)
    assert read.hyperparameters(units=3).model_dump() == {"units": 3, "dropout": 0.5, "sizes": [1, 2]}
    for wrong in ({}, {"units": 0}, {"units": 1, "dropout": 1.0}, {"units": 1, "sizes": [0]}, {"units": 1, "unit": 1}):
        with pytest.raises(pydantic.ValidationError):
            read.hyperparameters(**wrong)


def test_signatures_of_all_recipes():
    read = signature.read("recipes.lstm.build")
    assert (read.inputs, read.outputs) == ({Image, Tokens, Series}, (Classes, Forecast, NextTokenLogits))


@pytest.mark.parametrize(
    ("source", "answer"),
    [
        ("def build(inputs, outputs: Classes): ...", "must annotate its argument 'inputs'"),
        ("def build(inputs: Picture, outputs: Classes): ...", "annotates 'inputs' with Picture"),
        (
            "def build(inputs: Image, outputs: Classes, *, units: int = size()): ...",
            "the default of 'units' must be a plain value",
        ),
        ("class build: ...", "has no function 'build'"),
    ],
)
def test_invalid_recipes_are_reported(recipe, source, answer):
    with pytest.raises(UserError, match=answer):
        signature.read(recipe(source))
