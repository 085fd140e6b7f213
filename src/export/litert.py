"""A trained model as LiteRT files, of floats and of 8-bit integers, and what they cost and reach."""

import gzip
import time
from collections.abc import Iterable, Mapping
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter
from tensorflow.lite.tools import flatbuffer_utils

from src import terminal
from src.config import schema
from src.datasets import Part
from src.tasks.base import Metrics, Task
from src.tasks.image_classification import ImageClassification, of_images

WARM_UP, CALLS = 20, 200  # of the interpreter, when latency is measured
BATCH = 50  # images at once, when accuracy is measured


def export(model: keras.Model, task: Task, chosen: schema.Compression, folder: str) -> dict[str, Metrics]:
    """Writes model_float.tflite and model_int8.tflite, and measures both on the test part: {"float": …, "int8": …}.

    The float file takes an image (1, H, W, C) of 0..1; the int8 file, whose weights and activations are 8-bit integers, takes
    its bytes, 0..255. Both give logits (1, classes).
    """
    task = of_images(task)
    network = next(layer for layer in model.layers if isinstance(layer, keras.Model))
    Path(folder).mkdir()
    calibration = task.train.first(chosen.calibration).raw
    found = {}
    for kind, make in (("float", to_float), ("int8", lambda function: to_int8(function, calibration, chosen.per_channel))):
        path = Path(folder) / f"model_{kind}.tflite"
        with terminal.capture_stderr():  # converter and interpreter tell of their own settings
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


def table(measured: Mapping[str, Metrics], threads: int) -> str:
    """What LiteRT files were found to be."""
    lines = [f"LiteRT file  accuracy    raw bytes  compressed  p50 (ms)  p95 (ms)   one image, {threads} thread(s)"]
    for kind, found in measured.items():
        lines.append(
            f"{kind:<11}  {found['accuracy']:8.4f}  {found['bytes']:11,}  {found['bytes_compressed']:10,}  "
            f"{found['latency_p50']:8.3f}  {found['latency_p95']:8.3f}"
        )
    return "\n".join(lines)
