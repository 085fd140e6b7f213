"""The reasons for uses of private parts of TensorFlow."""

import gc

import tensorflow as tf
from tensorflow.python.framework.ops import gradient_registry

from src.training import tensorflow_patches


def registered():
    return {name for name in gradient_registry._registry if name.startswith("CustomGradient-")}


def test_tensorflow_still_keeps_gradients_of_deleted_graphs():
    @tf.custom_gradient
    def identity(x):
        return tf.identity(x), lambda gradient: gradient

    before = registered()
    tf.function(identity)(tf.constant(1.0))
    del identity
    gc.collect()
    assert registered() - before  # where this fails, TensorFlow has changed and the registry need not be cleared
    tensorflow_patches.clear_gradient_registry()
    assert not registered()


def test_ops_are_observed_only_within_the_context():
    types = []
    with tensorflow_patches.observe_ops(lambda op_type, *_, **__: types.append(op_type)):
        tf.matmul(tf.ones((2, 3)), tf.ones((3, 2)))
    within = len(types)
    assert within
    tf.matmul(tf.ones((2, 3)), tf.ones((3, 2)))
    assert len(types) == within
