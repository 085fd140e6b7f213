"""Costs of a model: parameters, and multiply–accumulate operations (MACs) for one example."""

import math
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from src.datasets.data import Arrays
from src.training import keras_patches, tensorflow_patches


def count_parameters(model: keras.Model) -> int:
    """Number of trainable parameters."""
    return int(sum(np.prod(weight.shape) for weight in model.trainable_weights))


def count_macs(model: keras.Model, example: Arrays) -> int:
    """Multiply–accumulate operations of matrix products and convolutions, for one example.

    The model runs eagerly, and ops are counted as they run: in nested layers too, and in each step of a recurrent layer.

    Args:
        model: the model.
        example: its inputs, a batch of one.
    """
    total = 0

    def count(
        op_type: str | bytes,
        inputs: Sequence[tf.Tensor],
        attrs: Sequence[Any],
        outputs: Sequence[tf.Tensor],
        op_name: str | None = None,
        graph: tf.Graph | None = None,
    ) -> None:
        nonlocal total
        total += _op_macs(op_type.decode() if isinstance(op_type, bytes) else op_type, inputs, attrs, outputs)

    recurrent = [layer for layer in keras_patches.all_layers(model) if isinstance(layer, keras.layers.RNN)]
    unroll_before = [layer.unroll for layer in recurrent]
    try:
        for layer in recurrent:
            layer.unroll = True  # a loop runs one additional step, from which Keras infers shapes
        with tensorflow_patches.observe_ops(count):
            model(keras.tree.map_structure(tf.convert_to_tensor, example), training=False)
    finally:
        for layer, before in zip(recurrent, unroll_before):
            layer.unroll = before
    return total


def _op_macs(op_type: str, inputs: Sequence[tf.Tensor], attrs: Sequence[Any], outputs: Sequence[tf.Tensor]) -> int:
    match op_type:
        case "MatMul" | "BatchMatMul" | "BatchMatMulV2" | "BatchMatMulV3":
            transposed = _attribute(attrs, "transpose_a") or _attribute(attrs, "adj_x")
            inner = inputs[0].shape[-2 if transposed else -1]
            return math.prod(outputs[0].shape) * inner
        case "Conv2D" | "Conv3D" | "_FusedConv2D":  # kernel (…, channels of a group, filters)
            return math.prod(outputs[0].shape) * math.prod(inputs[1].shape[:-1])
        case "DepthwiseConv2dNative":  # kernel (height, width, channels, multiplier): each output depends on one channel
            return math.prod(outputs[0].shape) * math.prod(inputs[1].shape[:2])
        case "Conv2DBackpropInput":  # a transposed convolution: kernel (height, width, filters, channels), then the input
            return math.prod(inputs[2].shape) * math.prod(inputs[1].shape[:-1])
        case "Einsum":
            equation = _attribute(attrs, "equation")
            equation = equation.decode() if isinstance(equation, bytes) else equation
            extents: dict[str, int] = {}
            for labels, tensor in zip(equation.split("->")[0].split(","), inputs):
                extents |= dict(zip(labels, tensor.shape))
            return math.prod(extents.values())
    return 0


def _attribute(attrs: Sequence[Any], name: str) -> Any:
    """An attribute of an eager op, whose attributes are a flat sequence name, value, name, value, …"""
    return dict(zip(attrs[::2], attrs[1::2])).get(name)
