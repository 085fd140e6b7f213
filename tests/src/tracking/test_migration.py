"""Weights that earlier versions saved are loaded by the recipes of today."""

import h5py
import keras
import numpy as np
import pytest

from recipes import attention, gpt
from recipes.specs import Classes, Image, NextTokenLogits, Tokens
from src.tracking.migration import RENAMED, migrate_weights


def language_model():
    model = gpt.build(Tokens(5, 9), NextTokenLogits(5, 9), dimension=8, heads=2, blocks=1)
    model(np.ones((1, 5), np.int32))
    return model


def text_classifier():
    return gpt.build(Tokens(5, 9), Classes(2), dimension=8, heads=2, blocks=1)


def hard_attention():
    return attention.build(Image(8, 8, 1), Classes(4), kind="hard", glimpse_size=4, units=2)


def as_earlier_versions_saved(model, path):
    """The model's weights, under the old names of its layers."""
    model.save_weights(path)
    old = {new: name for name, new in RENAMED.items()}
    names = []
    with h5py.File(path, "r+") as file:
        file.visit(names.append)
        for name in sorted(names, key=len, reverse=True):
            parent, _, last = name.rpartition("/")
            if last in old:
                file.move(name, f"{parent}/{old[last]}")
            elif name.endswith("glimpses/vars"):
                file[name]["1"] = np.int32(0)


@pytest.mark.parametrize("build", [language_model, text_classifier, hard_attention])
def test_old_weights_are_loaded_under_the_new_names(build, tmp_path):
    old, copy = str(tmp_path / "old.weights.h5"), str(tmp_path / "copy.weights.h5")
    keras.utils.set_random_seed(0)
    model = build()
    as_earlier_versions_saved(model, old)
    before = (tmp_path / "old.weights.h5").read_bytes()
    again = build()
    with pytest.raises(ValueError):
        again.load_weights(old)
    again.load_weights(migrate_weights(old, copy))
    for one, other in zip(model.get_weights(), again.get_weights()):
        np.testing.assert_array_equal(one, other)
    assert (tmp_path / "old.weights.h5").read_bytes() == before


def test_weights_of_this_version_stay_where_they_are(tmp_path):
    path = str(tmp_path / "model.weights.h5")
    hard_attention().save_weights(path)
    assert migrate_weights(path, str(tmp_path / "copy.weights.h5")) == path
    assert not (tmp_path / "copy.weights.h5").exists()
