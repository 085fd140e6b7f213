"""The served model of a run: a TensorFlow SavedModel that maps raw inputs to named outputs.

It consists of a graph and weights: loading it runs no stored Python, and needs no recipe. `tf.saved_model.load` loads it
anywhere; MLflow loads it through `_load_pyfunc`.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import tensorflow as tf
from absl import logging

from src.tasks.tokenizers import Encoder, Vocabulary

if TYPE_CHECKING:  # at run time a served model needs `SERVING_PACKAGES` of training_logger.py only
    from src.tasks.base import ServingFunction

BATCH_SIZE = 256
VOCABULARY_FILE = "vocabulary.json"  # in the folder of a SavedModel that takes token ids, but is called with texts


def save(
    function: "ServingFunction", owners: list[Any], example: np.ndarray, folder: str, encoder: Encoder | None = None
) -> dict[str, np.ndarray]:
    """Write a SavedModel, and return its outputs for the example.

    Args:
        function: a batch of inputs to named outputs.
        owners: the models, layers and tables whose variables `function` uses.
        example: raw inputs (n, …); later inputs have the same type and the same shape except for n.
        folder: the SavedModel's.
        encoder: turns raw inputs into those of `function`, where TensorFlow cannot.
    """
    inputs = example if encoder is None else encoder(example)
    dtype = tf.string if inputs.dtype.kind in "OSU" else tf.as_dtype(inputs.dtype)
    signature = tf.TensorSpec((None, *inputs.shape[1:]), dtype, name="inputs")
    traced = tf.function(function, input_signature=[signature])
    module = tf.Module()
    # A SavedModel contains what is reachable from its root; the states of Keras's random seed generators are not.
    module.owners = owners
    module.all_variables = [variable.value for owner in owners for variable in owner.variables]
    inference_only = tf.saved_model.SaveOptions(experimental_custom_gradients=False)
    tf.saved_model.save(module, folder, signatures=traced.get_concrete_function(), options=inference_only)
    if encoder is not None:
        (Path(folder) / VOCABULARY_FILE).write_text(encoder.vocabulary.to_json(), encoding="utf-8")
    return ServedModel(folder).predict(example)


class ServedModel:
    """A SavedModel with NumPy arrays as inputs and outputs.

    Args:
        folder: the SavedModel's, see `save`.
    """

    def __init__(self, folder: str):
        logging.set_verbosity(logging.ERROR)  # without this it warns for each function that it has no gradients
        self.model = tf.saved_model.load(folder)
        self.function = self.model.signatures["serving_default"]
        self.inputs = self.function.structured_input_signature[1]["inputs"]
        vocabulary = Path(folder) / VOCABULARY_FILE
        self.encoder = None
        if vocabulary.exists():
            self.encoder = Encoder(Vocabulary.from_json(vocabulary.read_text(encoding="utf-8")), self.inputs.shape[1])

    def predict(self, inputs: Any, params: dict[str, Any] | None = None) -> dict[str, np.ndarray]:
        """Named outputs for raw inputs: {name: (n, …)}.

        Args:
            inputs: an array (n, …), or n texts in a list or in the first column of a DataFrame.
            params: unused; MLflow's interface has it.

        Raises:
            ValueError: the inputs do not have the shape that the model was trained on.
        """
        rows = inputs.iloc[:, 0].to_numpy() if hasattr(inputs, "iloc") else np.asarray(inputs)
        rows = rows.astype(object) if rows.dtype.kind in "SU" else rows
        rows = rows if self.encoder is None else self.encoder(rows)
        expected = self.inputs
        if not expected.shape.is_compatible_with(rows.shape):
            raise ValueError(f"The model takes inputs of shape {expected.shape}, not {rows.shape}; None stands for any number.")
        if not len(rows):  # some TensorFlow kernels return a wrong shape for an empty batch
            blank = tf.zeros((1, *expected.shape[1:]), expected.dtype).numpy()
            return {name: values[:0] for name, values in self._predict_batch(blank).items()}
        batches = [self._predict_batch(rows[start : start + BATCH_SIZE]) for start in range(0, len(rows), BATCH_SIZE)]
        return {name: np.concatenate([batch[name] for batch in batches]) for name in batches[0]}

    def _predict_batch(self, rows: np.ndarray) -> dict[str, np.ndarray]:
        outputs = self.function(inputs=tf.constant(rows, self.inputs.dtype))
        return {name: _decode(tensor.numpy()) for name, tensor in outputs.items()}


def _decode(values: np.ndarray) -> np.ndarray:
    """Bytes as texts; other types as they are."""
    return np.char.decode(values.astype(bytes), "utf-8").astype(object) if values.dtype == object else values


def _load_pyfunc(folder: str) -> ServedModel:
    """Load a logged model; MLflow calls this."""
    return ServedModel(folder)
