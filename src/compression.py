"""What makes a model small: pruning and distillation while it trains; quantization and LiteRT files, measured, afterwards."""

import gzip
import time
from collections.abc import Iterable
from pathlib import Path

import hydra.utils
import keras
import numpy as np
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter
from keras import KerasTensor
from tensorflow.lite.tools import flatbuffer_utils

from src import settings, startup
from src.datasets import Part
from src.errors import UserError
from src.metrics import Logs
from src.tasks import ImageClassification, Task
from src.tasks.task import Metrics

WARM_UP, CALLS = 20, 200  # of the interpreter, when latency is measured
BATCH = 50  # images at once, when accuracy is measured


def check(model: keras.Model, chosen: settings.Compression) -> None:
    """Raises a UserError if a model cannot be taught by another one or become a file, though that is asked for."""
    asked = [name for name in ("teacher", "export") if getattr(chosen, name)]
    if asked and isinstance(model.input, dict):
        raise UserError(f"compression.{asked[0]} does not work for a recipe that learns by reward; type compression=none.")


def _of_images(task: Task) -> ImageClassification:
    """The task as the one that checked settings say it is."""
    if not isinstance(task, ImageClassification):
        raise TypeError(f"Only ImageClassification has a teacher or becomes a file, not {type(task).__name__}.")
    return task


# --- pruning --------------------------------------------------------------------------------------------------------


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

    def __init__(self, model: keras.Model, chosen: settings.Compression, steps: int):
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


# --- distillation ---------------------------------------------------------------------------------------------------


class Distiller(keras.distillation.Distiller):
    """Keras's distiller; but it is validated with the student's own loss: what the teacher thinks is no measure."""

    def compute_loss(
        self,
        x: KerasTensor | None = None,
        y: KerasTensor | None = None,
        y_pred: KerasTensor | None = None,
        sample_weight: KerasTensor | None = None,
        training: bool = True,
    ) -> KerasTensor:
        if training:
            return super().compute_loss(x, y, y_pred, sample_weight, training)
        return self._student_loss(y, y_pred, sample_weight)


def distiller(student: keras.Model, teacher: keras.Model, chosen: settings.Compression) -> keras.Model:
    """A model that trains the student on the teacher's answers too (Hinton, Vinyals, Dean: Distilling the knowledge in a neural
    network, arXiv:1503.02531, 2015); to be compiled as the student would be.
    """
    # Named by a string, as it is by default, Keras takes the divergence of the logits, which are no distributions.
    learned = keras.distillation.LogitsDistillation(temperature=chosen.temperature, loss=keras.losses.KLDivergence())
    return Distiller(teacher, student, learned, student_loss_weight=1 - chosen.teacher_weight, name="distiller")


def teacher(recorded: dict, weights: str, chosen: settings.Settings, task: Task) -> keras.Model:
    """A finished run's model, from its recorded settings and weights.

    Raises:
        UserError: it was trained on other data, by reward, or by a recipe that is another one now.
    """
    theirs = recorded["dataset"]
    if (theirs["builder"], theirs["config"]) != (chosen.dataset.builder, chosen.dataset.config):
        raise UserError(
            f"compression.teacher={chosen.compression.teacher} was trained on dataset={theirs['name']}, not on "
            f"dataset={chosen.dataset.name}; choose a run on the same data."
        )
    model = settings.Model.model_validate(recorded["model"])
    task = _of_images(task)
    made = task.model(hydra.utils.get_method(model.target), model.hyperparameters)
    if task.label_goes_in:
        raise UserError(f"compression.teacher={chosen.compression.teacher} learned by reward; choose a run of another recipe.")
    try:
        made.load_weights(weights)
    except ValueError as error:
        raise UserError(
            f"The weights of compression.teacher={chosen.compression.teacher} do not fit its recipe, which has changed since; "
            "choose a run that was made with this version."
        ) from error
    return made


# --- files ----------------------------------------------------------------------------------------------------------


def export(model: keras.Model, task: Task, chosen: settings.Compression, folder: str) -> dict[str, Metrics]:
    """Writes model_float.tflite and model_int8.tflite, and measures both on the test part: {"float": …, "int8": …}.

    The float file takes an image (1, H, W, C) of 0..1; the int8 file, whose weights and activations are 8-bit integers, takes
    its bytes, 0..255. Both give logits (1, classes).
    """
    task = _of_images(task)
    network = next(layer for layer in model.layers if isinstance(layer, keras.Model))
    Path(folder).mkdir()
    calibration = task.train.first(chosen.calibration).raw
    found = {}
    for kind, make in (("float", to_float), ("int8", lambda function: to_int8(function, calibration, chosen.per_channel))):
        path = Path(folder) / f"model_{kind}.tflite"
        with startup.quiet():  # converter and interpreter tell of their own settings
            path.write_bytes(_without_names(make(_function(network, task.test.raw.shape[1:]))))
            found[kind] = measure(path, task, chosen.threads)
    return found


def _function(network: keras.Model, shape: tuple[int, ...]) -> tf.types.experimental.PolymorphicFunction:
    specification = tf.TensorSpec((1, *shape), tf.float32, name="image")
    function = tf.function(lambda image: {"logits": network(image, training=False)}, input_signature=[specification])
    function.network = network  # the converter finds its variables through weak references
    return function


def to_float(function: tf.types.experimental.PolymorphicFunction) -> bytes:
    """A LiteRT file of 32-bit floating-point numbers."""
    return _converter(function).convert()


def to_int8(function: tf.types.experimental.PolymorphicFunction, calibration: np.ndarray, per_channel: bool) -> bytes:
    """A LiteRT file of 8-bit integers, weights and activations.

    Args:
        function: of images of 0..1.
        calibration: images of 0..255, which show how large activations become.
        per_channel: one scale for each channel of a kernel, not one for all of it: finer, but the scales of a small network
            weigh more than half of what its weights do.
    """
    converter = _converter(function)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: ([image[None] / np.float32(255)] for image in calibration)
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = tf.uint8
    converter._experimental_disable_per_channel = not per_channel
    return converter.convert()


def _converter(function: tf.types.experimental.PolymorphicFunction) -> tf.lite.TFLiteConverter:
    converter = tf.lite.TFLiteConverter.from_concrete_functions([function.get_concrete_function()], function.network)
    converter.experimental_lower_to_saved_model = False  # else variables stay variables, and are empty when it calibrates
    return converter


def _without_names(file: bytes) -> bytes:
    """Leaves out the names of tensors, a tenth of a small file, which nothing needs."""
    contents = flatbuffer_utils.convert_bytearray_to_object(file)
    flatbuffer_utils.strip_strings(contents)
    return bytes(flatbuffer_utils.convert_object_to_bytearray(contents))


def measure(path: Path, task: ImageClassification, threads: int) -> Metrics:
    """What a LiteRT file is: its metrics on the test part, bytes raw and compressed, milliseconds for an image."""
    file = path.read_bytes()
    answers = np.concatenate(list(answer(path, task.test, BATCH, threads)))[: len(task.test)]
    spent = [seconds * 1e3 for seconds in latencies(path, task.test, threads)]
    return {
        **task.metrics(task.test, answers),
        "bytes": len(file),
        "bytes_compressed": len(gzip.compress(file, mtime=0)),
        "latency_p50": float(np.percentile(spent, 50)),
        "latency_p95": float(np.percentile(spent, 95)),
    }


class Lite:
    """A LiteRT file, loaded."""

    def __init__(self, path: Path, batch: int, threads: int):
        self.interpreter = Interpreter(model_path=str(path), num_threads=threads)
        self.input = self.interpreter.get_input_details()[0]
        self.interpreter.resize_tensor_input(self.input["index"], [batch, *self.input["shape"][1:]])
        self.interpreter.allocate_tensors()
        self.output = self.interpreter.get_output_details()[0]

    def give(self, images: np.ndarray) -> None:
        """Images (batch, H, W, C) of 0..255, as the file takes them."""
        taken = images if self.input["dtype"] == np.uint8 else images / np.float32(255)
        self.interpreter.set_tensor(self.input["index"], taken)

    def answer(self) -> np.ndarray:
        """Computes the logits (batch, classes)."""
        self.interpreter.invoke()
        return self.interpreter.get_tensor(self.output["index"])


def answer(path: Path, part: Part, batch: int, threads: int) -> Iterable[np.ndarray]:
    """The logits of a file, batch by batch; the last one is filled up."""
    lite = Lite(path, batch, threads)
    for at in range(0, len(part), batch):
        rows = np.arange(at, at + batch) % len(part)
        lite.give(part.raw[rows])
        yield lite.answer()


def latencies(path: Path, part: Part, threads: int) -> list[float]:
    """Seconds that the file takes for one image, call by call."""
    lite = Lite(path, 1, threads)
    spent = []
    for call in range(WARM_UP + CALLS):
        lite.give(part.raw[[call % len(part)]])
        began = time.perf_counter()
        lite.answer()
        spent.append(time.perf_counter() - began)
    return spent[WARM_UP:]
