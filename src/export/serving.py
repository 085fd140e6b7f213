"""The model that a run leaves to others: a TensorFlow SavedModel from raw inputs to named answers.

It is a graph with its weights: loading it runs no Python that is stored in it, and needs no recipe. `tf.saved_model.load`
loads it anywhere; MLflow loads it through `_load_pyfunc` here.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import tensorflow as tf
from absl import logging

from src.tasks.tokenizers import Encoder, Vocabulary

if TYPE_CHECKING:
    from src.tasks.base import ServingFunction  # what is served needs no more than `SERVING` in src/tracking/training_logger.py

ROWS = 256  # answered at once
VOCABULARY_FILE = "vocabulary.json"  # lies in the folder of a SavedModel that takes numbers and is asked with texts


def save(
    answer: "ServingFunction", owners: list[Any], example: np.ndarray, folder: str, encoder: Encoder | None = None
) -> dict[str, np.ndarray]:
    """Writes a SavedModel; returns what it answers to the example.

    Args:
        answer: what it computes.
        owners: the models, layers and tables whose variables `answer` uses.
        example: raw inputs; their shape, but for the first axis, and type are those of all later inputs.
        folder: where it is written.
        encoder: turns the raw inputs into what `answer` takes, where TensorFlow cannot.
    """
    inputs = example if encoder is None else encoder(example)
    kind = tf.string if inputs.dtype.kind in "OSU" else tf.as_dtype(inputs.dtype)
    spec = tf.TensorSpec((None, *inputs.shape[1:]), kind, name="inputs")
    function = tf.function(answer, input_signature=[spec])
    module = tf.Module()
    # A SavedModel holds what is reachable from its root; the state of random numbers, which Keras keeps aside, is not.
    module.owners = owners
    module.all_variables = [variable.value for owner in owners for variable in owner.variables]
    inference_alone = tf.saved_model.SaveOptions(experimental_custom_gradients=False)
    tf.saved_model.save(module, folder, signatures=function.get_concrete_function(), options=inference_alone)
    if encoder is not None:
        (Path(folder) / VOCABULARY_FILE).write_text(encoder.vocabulary.to_json(), encoding="utf-8")
    return Served(folder).predict(example)


class Served:
    """A SavedModel that takes and gives NumPy arrays."""

    def __init__(self, folder: str):
        logging.set_verbosity(logging.ERROR)  # it would warn that there are no gradients, function by function
        self.model = tf.saved_model.load(folder)
        self.answer = self.model.signatures["serving_default"]
        self.inputs = self.answer.structured_input_signature[1]["inputs"]
        vocabulary = Path(folder) / VOCABULARY_FILE
        self.encoder = None
        if vocabulary.exists():
            self.encoder = Encoder(Vocabulary.from_json(vocabulary.read_text(encoding="utf-8")), self.inputs.shape[1])

    def predict(self, inputs: Any, params: dict[str, Any] | None = None) -> dict[str, np.ndarray]:
        """Named answers to raw inputs: an array, or texts in a list or in the first column of a DataFrame.

        Raises:
            ValueError: the inputs are not of the shape that the model was trained on.
        """
        rows = inputs.iloc[:, 0].to_numpy() if hasattr(inputs, "iloc") else np.asarray(inputs)
        rows = rows.astype(object) if rows.dtype.kind in "SU" else rows
        rows = rows if self.encoder is None else self.encoder(rows)
        wanted = self.inputs
        if not wanted.shape.is_compatible_with(rows.shape):
            raise ValueError(f"The model takes inputs of shape {wanted.shape}, not {rows.shape}; None stands for any number.")
        if not len(rows):  # some of TensorFlow's kernels give a wrong shape where there is no row
            blank = tf.zeros((1, *wanted.shape[1:]), wanted.dtype).numpy()
            return {name: values[:0] for name, values in self._answer(blank).items()}
        answers = [self._answer(rows[at : at + ROWS]) for at in range(0, len(rows), ROWS)]
        return {name: np.concatenate([answer[name] for answer in answers]) for name in answers[0]}

    def _answer(self, rows: np.ndarray) -> dict[str, np.ndarray]:
        found = self.answer(inputs=tf.constant(rows, self.inputs.dtype))
        return {name: _readable(tensor.numpy()) for name, tensor in found.items()}


def _readable(values: np.ndarray) -> np.ndarray:
    return np.char.decode(values.astype(bytes), "utf-8").astype(object) if values.dtype == object else values


def _load_pyfunc(folder: str) -> Served:
    """What MLflow calls to load a logged model."""
    return Served(folder)
