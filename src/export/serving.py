"""The served model of a run: a TensorFlow SavedModel, and what `served_model.py` has to know of it.

A copy of that file travels with each model, so that MLflow loads it anywhere. `tf.saved_model.load` loads the SavedModel, graph
and weights, without any code of this project.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from src.export import served_model
from src.export.served_model import INPUT_TOKENIZER_FILE, OUTPUT_TOKENIZER_FILE, SETTINGS_FILE
from src.tasks.serving import Serving
from src.tasks.tokenizers import Tokenizer


def save(serving: Serving, folder: str) -> None:
    """Write the SavedModel of a trained model.

    Args:
        serving: what is served.
        folder: is created.
    """
    module = tf.Module()
    # A SavedModel contains what is reachable from its root; the states of Keras's random seed generators are not.
    module.owners = list(serving.owners)
    module.all_variables = [variable.value for owner in serving.owners for variable in owner.variables]
    inference_only = tf.saved_model.SaveOptions(experimental_custom_gradients=False)
    traced = {
        name: tf.function(function, autograph=False).get_concrete_function(**_named(signature))
        for name, (function, signature) in serving.functions.items()
    }
    tf.saved_model.save(module, folder, signatures=traced, options=inference_only)
    tokenizers = {INPUT_TOKENIZER_FILE: serving.input_tokenizer, OUTPUT_TOKENIZER_FILE: serving.output_tokenizer}
    for name, tokenizer in tokenizers.items():
        if tokenizer is not None:
            (Path(folder) / name).write_text(tokenizer.to_json(), encoding="utf-8")
    settings = {"kind": serving.kind, "params": dict(serving.params), **serving.settings}
    (Path(folder) / SETTINGS_FILE).write_text(json.dumps(settings, ensure_ascii=False), encoding="utf-8")


def _named(signature: dict[str, tf.TensorSpec]) -> dict[str, tf.TensorSpec]:
    """A signature whose specs are named as its arguments."""
    return {name: tf.TensorSpec(spec.shape, spec.dtype, name=name) for name, spec in signature.items()}


def write_code(folder: Path) -> str:
    """Copy the code that travels with a model to a folder, and return the name of the module.

    The name contains a digest, so that one process can load models that were logged by different versions of it.
    """
    code = Path(served_model.__file__).read_bytes()
    name = f"served_model_{hashlib.blake2b(code, digest_size=4).hexdigest()}"
    (folder / f"{name}.py").write_bytes(code)
    return name


# --- models that earlier versions have logged -----------------------------------------------------------------------


class EarlierModel(served_model.ArrayModel):
    """A model that an earlier version has logged: without settings, and some with texts in the graph."""

    def encode(self, inputs: Any) -> np.ndarray:
        if self.inputs.dtype == tf.string:
            return np.array(served_model.as_texts(inputs), dtype=object)
        if self.input_tokenizer is None or self.input_tokenizer.padding:
            return super().encode(inputs)
        tokenizer = Tokenizer(self.input_tokenizer).configure(length=self.inputs.shape[1], start=True)
        return tokenizer.encode(served_model.as_texts(inputs))

    def answer(self, rows: np.ndarray) -> dict[str, Any]:
        arrays = {name: _decode_bytes(values) for name, values in self.compute(rows).items()}
        if self.output_tokenizer is not None:
            arrays["text"] = served_model.decode_texts(self.output_tokenizer, arrays.pop("token_ids"))
        return arrays


def _decode_bytes(values: np.ndarray) -> np.ndarray:
    """Bytes as texts; other types as they are."""
    return np.char.decode(values.astype(bytes), "utf-8").astype(object) if values.dtype == object else values


def _load_pyfunc(folder: str) -> EarlierModel:
    """Load a model that an earlier version has logged; MLflow calls this."""
    return EarlierModel(Path(folder), {})
