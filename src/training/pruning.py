"""Gradual magnitude pruning: during training the smallest weights are set to 0 and stay there."""

import keras
import numpy as np
from keras import KerasTensor

from src.config import schema
from src.metrics import Logs
from src.training import keras_patches
from src.training.execution import Execution


class PruningMask(keras.constraints.Constraint):
    """Constraint that keeps pruned weights at 0; an optimizer applies it after each step.

    Args:
        kernel: the weights to constrain, of any shape.
    """

    def __init__(self, kernel: keras.Variable):
        self.mask = keras.Variable(np.ones(kernel.shape, np.float32), trainable=False, name="mask")

    def __call__(self, weights: KerasTensor) -> KerasTensor:
        return weights * keras.ops.cast(self.mask, weights.dtype)


class MagnitudePruning(keras.callbacks.Callback):
    """Prunes the smallest weights of each kernel, with increasing sparsity.

    After the fraction t of the pruning phase the sparsity is s_t = s (1 − (1 − t)³), which rises fast at first, while many
    weights are redundant (Zhu & Gupta: To prune, or not to prune. arXiv:1710.01878, 2017).

    Args:
        model: its kernels of convolutions and dense layers are pruned; depthwise ones, which are small, are not.
        settings: target sparsity s, and begin and end of the phase.
        steps: total number of training steps.
        execution: of one step each.
    """

    def __init__(self, model: keras.Model, settings: schema.Compression, steps: int, execution: Execution):
        super().__init__()
        self.settings, self.steps, self.step, self.execution = settings, steps, 0, execution
        self.kernels = prunable_kernels(model)
        for kernel in self.kernels:
            kernel.constraint = PruningMask(kernel)

    def on_train_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        """Increase the sparsity every few steps."""
        if not self.execution.taken:
            return
        self.step += 1
        begin, end = self.settings.begin * self.steps, self.settings.end * self.steps
        if begin <= self.step <= end and (self.step % self.settings.every == 0 or self.step + 1 > end):
            self._prune(self.settings.sparsity * (1 - (1 - (self.step - begin) / max(end - begin, 1)) ** 3))

    def on_train_end(self, logs: Logs | None = None) -> None:
        """Prune once more: averaged weights, or restored ones of an earlier epoch, may be less sparse."""
        self._prune(self.settings.sparsity)

    def get_state(self) -> dict:
        """The number of steps so far, and the masks."""
        return {"done": self.step, "masks": [keras.ops.convert_to_numpy(kernel.constraint.mask) for kernel in self.kernels]}

    def set_state(self, state: dict) -> None:
        """Restore what `get_state` returned."""
        self.step = state["done"]
        for kernel, mask in zip(self.kernels, state["masks"]):
            kernel.constraint.mask.assign(mask)

    def _prune(self, sparsity: float) -> None:
        for kernel in self.kernels:
            magnitudes = np.abs(keras.ops.convert_to_numpy(kernel))
            smallest = np.argsort(magnitudes, axis=None, kind="stable")[: round(sparsity * magnitudes.size)]
            mask = np.ones(magnitudes.size, np.float32)
            mask[smallest] = 0
            kernel.constraint.mask.assign(mask.reshape(magnitudes.shape))
            kernel.assign(kernel.constraint(kernel))


def prunable_kernels(model: keras.Model) -> list[keras.Variable]:
    """The kernels of a model's convolutions and dense layers."""
    layers = [
        layer for layer in keras_patches.all_layers(model) if isinstance(layer, (keras.layers.Dense, keras.layers.Conv2D))
    ]
    return [layer.kernel for layer in layers if not isinstance(layer, keras.layers.DepthwiseConv2D)]


def sparsity(model: keras.Model) -> float:
    """Fraction of zeros in the kernels that can be pruned."""
    kernels = [keras.ops.convert_to_numpy(kernel) for kernel in prunable_kernels(model)]
    return 1 - sum(map(np.count_nonzero, kernels)) / max(sum(kernel.size for kernel in kernels), 1)
