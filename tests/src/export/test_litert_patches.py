"""The reasons for uses of undocumented parts of the converter to LiteRT: where one fails, a public part may do."""

import numpy as np
import pytest
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter

from src.export import litert_patches

KERNEL = np.array([[1.0, 100.0], [-1.0, -100.0]], np.float32)  # two channels of different ranges


def converter():
    function = tf.function(lambda x: tf.linalg.matmul(x, KERNEL), input_signature=[tf.TensorSpec((1, 2), name="input_name")])
    return tf.lite.TFLiteConverter.from_concrete_functions([function.get_concrete_function()])


def test_no_public_option_of_the_converter_concerns_channels_or_names():
    public = [name for name in dir(converter()) if not name.startswith("_")]
    assert not [name for name in public if "channel" in name or "strip" in name]


@pytest.mark.parametrize(("enabled", "scales"), [(True, 2), (False, 1)])
def test_scales_of_a_kernel(enabled, scales):
    quantized = converter()
    quantized.optimizations = [tf.lite.Optimize.DEFAULT]
    quantized.representative_dataset = lambda: ([np.full((1, 2), value, np.float32)] for value in (-1.0, 1.0))
    quantized.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    litert_patches.set_per_channel(quantized, enabled)
    interpreter = Interpreter(model_content=quantized.convert())
    (kernel,) = (tensor for tensor in interpreter.get_tensor_details() if list(tensor["shape"]) == [2, 2])
    assert len(kernel["quantization_parameters"]["scales"]) == scales


def test_names_of_tensors_are_stripped_and_outputs_are_the_same():
    named = converter().convert()
    stripped = litert_patches.strip_names(named)
    assert b"input_name" in named
    assert b"input_name" not in stripped
    assert len(stripped) < len(named)
    for content in (named, stripped):
        interpreter = Interpreter(model_content=content)
        interpreter.allocate_tensors()
        interpreter.set_tensor(interpreter.get_input_details()[0]["index"], np.array([[2.0, 1.0]], np.float32))
        interpreter.invoke()
        np.testing.assert_allclose(interpreter.get_tensor(interpreter.get_output_details()[0]["index"]), [[1.0, 100.0]])
