"""The served model of a run: a TensorFlow SavedModel that maps raw inputs to named outputs.

It consists of a graph and weights: loading it runs no stored Python, and needs no recipe. `tf.saved_model.load` loads it
anywhere; MLflow loads it through `_load_pyfunc`.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import tensorflow as tf
from absl import logging

from src.tasks.tokenizers import Tokenizer

if TYPE_CHECKING:  # at run time a served model needs `SERVING_PACKAGES` of training_logger.py only
    from src.tasks.base import ServingFunction

BATCH_SIZE = 256
# In the folder of a SavedModel that takes token ids but is called with texts, and of one that returns token ids of texts.
INPUT_TOKENIZER_FILE, OUTPUT_TOKENIZER_FILE = "vocabulary.json", "output_vocabulary.json"


def save(
    function: "ServingFunction", owners: list[Any], example: np.ndarray, folder: str,
    input_tokenizer: Tokenizer | None = None, output_tokenizer: Tokenizer | None = None,
) -> dict[str, np.ndarray]:  # fmt: skip
    """Write a SavedModel, and return its outputs for the example.

    Args:
        function: a batch of inputs to named outputs.
        owners: the models whose variables `function` uses.
        example: raw inputs (n, …); later inputs have the same type and the same shape except for n.
        folder: the SavedModel's.
        input_tokenizer: turns texts into the inputs of `function`; None: it takes raw inputs.
        output_tokenizer: turns the output `token_ids` of `function` into `text`; None: it has no such output.
    """
    inputs = example if input_tokenizer is None else input_tokenizer.encode(example)
    signature = tf.TensorSpec((None, *inputs.shape[1:]), inputs.dtype, name="inputs")
    traced = tf.function(function, input_signature=[signature])
    module = tf.Module()
    # A SavedModel contains what is reachable from its root; the states of Keras's random seed generators are not.
    module.owners = owners
    module.all_variables = [variable.value for owner in owners for variable in owner.variables]
    inference_only = tf.saved_model.SaveOptions(experimental_custom_gradients=False)
    tf.saved_model.save(module, folder, signatures=traced.get_concrete_function(), options=inference_only)
    for tokenizer, name in ((input_tokenizer, INPUT_TOKENIZER_FILE), (output_tokenizer, OUTPUT_TOKENIZER_FILE)):
        if tokenizer is not None:
            (Path(folder) / name).write_text(tokenizer.to_json(), encoding="utf-8")
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
        self.input_tokenizer = _read_tokenizer(Path(folder) / INPUT_TOKENIZER_FILE)
        self.output_tokenizer = _read_tokenizer(Path(folder) / OUTPUT_TOKENIZER_FILE)
        if self.input_tokenizer is not None and self.input_tokenizer.length is None:  # logged by an earlier version
            self.input_tokenizer = self.input_tokenizer.configure(length=self.inputs.shape[1], start=True)

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
        expected = self.inputs.shape if self.input_tokenizer is None else tf.TensorShape([None])
        if not expected.is_compatible_with(rows.shape):
            raise ValueError(f"The model takes inputs of shape {expected}, not {rows.shape}; None stands for any number.")
        rows = rows if self.input_tokenizer is None else self.input_tokenizer.encode(rows)
        if not len(rows):  # some TensorFlow kernels return a wrong shape for an empty batch
            blank = tf.zeros((1, *self.inputs.shape[1:]), self.inputs.dtype).numpy()
            return {name: values[:0] for name, values in self._predict_batch(blank).items()}
        batches = [self._predict_batch(rows[start : start + BATCH_SIZE]) for start in range(0, len(rows), BATCH_SIZE)]
        return {name: np.concatenate([batch[name] for batch in batches]) for name in batches[0]}

    def _predict_batch(self, rows: np.ndarray) -> dict[str, np.ndarray]:
        outputs = self.function(inputs=tf.constant(rows, self.inputs.dtype))
        arrays = {name: _decode_bytes(tensor.numpy()) for name, tensor in outputs.items()}
        if self.output_tokenizer is not None:
            arrays["text"] = np.array(self.output_tokenizer.decode(arrays.pop("token_ids")), dtype=object)
        return arrays


def _read_tokenizer(path: Path) -> Tokenizer | None:
    return Tokenizer.from_json(path.read_text(encoding="utf-8")) if path.exists() else None


def _decode_bytes(values: np.ndarray) -> np.ndarray:
    """Bytes as texts; other types as they are."""
    return np.char.decode(values.astype(bytes), "utf-8").astype(object) if values.dtype == object else values


def _load_pyfunc(folder: str) -> ServedModel:
    """Load a logged model; MLflow calls this."""
    return ServedModel(folder)
