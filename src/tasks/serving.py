"""What is served of a trained model: the part of it that a task knows. `src.export.serving` stores it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from src.datasets import Array
from src.tasks.tokenizers import Tokenizer

DEFAULT_FUNCTION = "serving_default"  # as TensorFlow calls the function of a SavedModel that is meant if none is named

Signature = dict[str, tf.TensorSpec]  # the arguments of a function; `inputs` is a batch of any size

# Sampling of tokens, as `recipes.decoding.sample` does it: what a user may set (top_k=0: all tokens), and what a graph takes.
SAMPLING_PARAMS: dict[str, Any] = {"temperature": 1.0, "top_k": 0, "top_p": 1.0}
SAMPLING_SIGNATURE: Signature = {
    "temperature": tf.TensorSpec((), tf.float32), "top_k": tf.TensorSpec((), tf.int32), "top_p": tf.TensorSpec((), tf.float32),
}  # fmt: skip
STATE = tf.TensorSpec((2,), tf.int64)  # of random numbers


@dataclass(frozen=True)
class Serving:
    """What answers for a trained model where this project is not.

    Attributes:
        kind: name of the class in `src.export.served_model` between what a user types and reads, and the tensors.
        functions: {name: function from tensors to named tensors, and its signature}, `DEFAULT_FUNCTION` among them.
        owners: the models whose variables the functions use.
        example: one input as a user types it: an array (1, …), or a list of one text.
        outputs: {name: NumPy type and shape of an answer to one input}; object stands for texts and for probabilities by name.
        settings: what the class has to know, as JSON.
        params: {name: default} of what a user may set besides the input.
        example_params: values of some of them that go with the example.
        input_tokenizer: turns texts into the token ids that the functions take; None: they take arrays.
        output_tokenizer: turns the `token_ids` of a translation into texts; None: there are none.
    """

    kind: str
    functions: Mapping[str, tuple[Callable[..., dict[str, tf.Tensor]], Signature]]
    owners: Sequence[Any]
    example: np.ndarray | list[str]
    outputs: Mapping[str, tuple[str, tuple[int, ...]]]
    settings: Mapping[str, Any] = field(default_factory=dict)
    params: Mapping[str, Any] = field(default_factory=dict)
    example_params: Mapping[str, Any] = field(default_factory=dict)
    input_tokenizer: Tokenizer | None = None
    output_tokenizer: Tokenizer | None = None


def batch_spec(array: Array) -> tf.TensorSpec:
    """The type of a batch of any size of the rows of an array."""
    return tf.TensorSpec((None, *array.shape[1:]), array.dtype)


class RandomState(keras.layers.Layer):
    """A seed generator of a graph whose caller keeps the state: it comes in with each call, and goes out with the answer.

    It is a layer since a layer keeps its state among its variables, which a SavedModel stores.
    """

    def __init__(self) -> None:
        super().__init__(name="random_state")
        self.seed = keras.random.SeedGenerator(0)

    def set(self, state: tf.Tensor) -> None:
        """Set the state, as `STATE` specifies it."""
        self.seed.state.assign(ops.cast(state, self.seed.state.dtype))

    def get(self) -> tf.Tensor:
        """The state after all that has been drawn."""
        return ops.cast(self.seed.state.value * 1, "int64")  # a copy
