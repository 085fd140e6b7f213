"""Uses of undocumented parts of TensorFlow's converter to LiteRT, each with its reason.

Tests hold the reasons against the installed TensorFlow: tests/src/export/test_litert_patches.py.
"""

import tensorflow as tf
from tensorflow.lite.tools import flatbuffer_utils


def set_per_channel(converter: tf.lite.TFLiteConverter, enabled: bool) -> None:
    """Set whether each channel of a kernel has a scale of its own; no public option of the converter does."""
    converter._experimental_disable_per_channel = not enabled


def strip_names(flatbuffer: bytes) -> bytes:
    """Remove the names of tensors from a file: a tenth of a small one, and for debugging only. No option omits them."""
    model = flatbuffer_utils.convert_bytearray_to_object(flatbuffer)
    flatbuffer_utils.strip_strings(model)
    return bytes(flatbuffer_utils.convert_object_to_bytearray(model))
