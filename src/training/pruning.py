"""Magnitude pruning while a model trains: the smallest weights become 0, and stay there."""

import keras
import numpy as np
from keras import KerasTensor

from src.config import schema
from src.metrics import Logs


class Mask(keras.constraints.Constraint):
    """Keeps the weights that are pruned at 0: an optimizer applies it to the weights after each of its steps.

    Args:
        kernel: the weights (any shape) it will be the constraint of.
    """

    def __init__(self, kernel: keras.Variable):
        self.mask = keras.Variable(np.ones(kernel.shape, np.float32), trainable=False, name="mask")

    def __call__(self, weights: KerasTensor) -> KerasTensor:
        return weights * keras.ops.cast(self.mask, weights.dtype)


class Prune(keras.callbacks.Callback):
    """Magnitude pruning: the smallest weights of each kernel are set to 0, more and more of them, and stay there.

    After the share t of the pruning phase the share s_t = s (1 − (1 − t)³) is pruned (Zhu & Gupta: To prune, or not to prune,
    arXiv:1710.01878, 2017): fast at first, while much can be spared.

    Args:
        model: whose kernels of convolutions and fully connected layers are pruned; depthwise ones, which are few, are not.
        chosen: target sparsity s, and when the phase begins and ends.
        steps: of the whole training.
    """

    def __init__(self, model: keras.Model, chosen: schema.Compression, steps: int):
        super().__init__()
        self.chosen, self.steps, self.done = chosen, steps, 0
        self.kernels = prunable(model)
        for kernel in self.kernels:
            kernel.constraint = Mask(kernel)

    def on_train_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        """Prunes a little more, every few steps."""
        self.done += 1
        begin, end = self.chosen.begin * self.steps, self.chosen.end * self.steps
        if begin <= self.done <= end and (self.done % self.chosen.every == 0 or self.done + 1 > end):
            self._prune(self.chosen.sparsity * (1 - (1 - (self.done - begin) / max(end - begin, 1)) ** 3))

    def on_train_end(self, logs: Logs | None = None) -> None:
        """Prunes what an average of weights, or the weights of an earlier epoch, hold besides."""
        self._prune(self.chosen.sparsity)

    def memory(self) -> dict:
        """How many steps are done, and which weights are pruned; for a checkpoint."""
        return {"done": self.done, "masks": [keras.ops.convert_to_numpy(kernel.constraint.mask) for kernel in self.kernels]}

    def remember(self, memory: dict) -> None:
        """Takes it back."""
        self.done = memory["done"]
        for kernel, mask in zip(self.kernels, memory["masks"]):
            kernel.constraint.mask.assign(mask)

    def _prune(self, sparsity: float) -> None:
        for kernel in self.kernels:
            size = np.abs(keras.ops.convert_to_numpy(kernel))
            smallest = np.argsort(size, axis=None, kind="stable")[: round(sparsity * size.size)]
            mask = np.ones(size.size, np.float32)
            mask[smallest] = 0
            kernel.constraint.mask.assign(mask.reshape(size.shape))
            kernel.assign(kernel.constraint(kernel))


def prunable(model: keras.Model) -> list[keras.Variable]:
    """The kernels of a model's convolutions and fully connected layers."""
    layers = [layer for layer in model._flatten_layers() if isinstance(layer, (keras.layers.Dense, keras.layers.Conv2D))]
    return [layer.kernel for layer in layers if not isinstance(layer, keras.layers.DepthwiseConv2D)]


def sparsity(model: keras.Model) -> float:
    """Share of zeros in the kernels that can be pruned."""
    kernels = [keras.ops.convert_to_numpy(kernel) for kernel in prunable(model)]
    return 1 - sum(map(np.count_nonzero, kernels)) / max(sum(kernel.size for kernel in kernels), 1)
