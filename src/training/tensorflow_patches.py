"""All uses of private parts of TensorFlow in training, each with its reason.

Tests hold the reasons against the installed TensorFlow: tests/src/training/test_tensorflow_patches.py.
"""

import contextlib
from collections.abc import Callable, Iterator

from tensorflow.python.eager import context
from tensorflow.python.framework import op_callbacks
from tensorflow.python.framework.ops import gradient_registry
from tensorflow.tsl.profiler.protobuf.xplane_pb2 import XSpace  # the format of traces, which has no public reader

__all__ = ["XSpace", "abort_collectives", "clear_gradient_registry", "observe_ops"]
UNAVAILABLE = 14  # the status of the error that it raises


def clear_gradient_registry() -> None:
    """Free the graphs of earlier models in this process.

    TensorFlow registers the gradient of every all-reduce that it traces, as in Keras's optimizers and batch normalization, and
    never removes it; a gradient refers to its graph, which leaks megabytes with each job.
    """
    registry = gradient_registry._registry
    for name in [name for name in registry if name.startswith("CustomGradient-")]:
        del registry[name]


def abort_collectives(reason: str) -> None:
    """Let the all-reduces that wait for other workers fail, in this process, for good.

    TensorFlow notices by itself that a worker is lost, but later: after 8 s instead of 1 where its process was killed, and 22 s
    instead of 11 where it hung, with strategy.timeout=10.
    """
    context.context().abort_collective_ops(UNAVAILABLE, reason)


@contextlib.contextmanager
def observe_ops(observe: Callable[..., None]) -> Iterator[None]:
    """Call `observe` with the type, inputs, attributes and outputs of each op that runs eagerly.

    TensorFlow's public counter of operations (`tf.compat.v1.profiler`) counts the body of a loop once, however often it runs.
    """
    op_callbacks.add_op_callback(observe)
    try:
        yield
    finally:
        op_callbacks.remove_op_callback(observe)
