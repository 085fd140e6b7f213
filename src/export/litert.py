"""LiteRT files of a trained model, with float or 8-bit integer weights: conversion, accuracy, size and latency."""

import gzip
import time
from collections.abc import Iterable, Mapping
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter

from src import tables, terminal
from src.config import schema
from src.export import litert_patches
from src.export.labels import save_thresholds
from src.tasks.base import Metrics, Task
from src.tasks.image_classification import ImageClassification, as_image_classification

WARM_UP_CALLS, TIMED_CALLS = 20, 200  # of the interpreter, when latency is measured
BATCH_SIZE = 50  # when accuracy is measured


def export(model: keras.Model, task: Task, settings: schema.Compression, folder: str) -> dict[str, Metrics]:
    """Write model_float.tflite and model_int8.tflite, and measure both on the test set.

    The float file takes an image (1, H, W, C) float32 in 0..1; the int8 file, whose weights and activations are 8-bit integers,
    takes one of uint8 in 0..255. Both return logits (1, classes); of several labels see `save_thresholds`.

    Args:
        model: a trained image classifier.
        task: its task.
        settings: `compression`.
        folder: is created.

    Returns:
        {"float": metrics, "int8": metrics}, see `measure`.
    """
    task = as_image_classification(task)
    network = next(layer for layer in model.layers if isinstance(layer, keras.Model))
    Path(folder).mkdir()
    function = _function(network, task.test.raw_inputs.shape[1:])
    calibration = task.pixels.normalize(np.asarray(task.train.take(settings.calibration).raw_inputs))
    metrics = {}
    for kind in ("float", "int8"):
        path = Path(folder) / f"model_{kind}.tflite"
        with terminal.capture_stderr():  # converter and interpreter print their own settings
            flatbuffer = to_float(function) if kind == "float" else to_int8(function, calibration, settings.per_channel)
            path.write_bytes(litert_patches.strip_names(flatbuffer))
            metrics[kind] = measure(path, model, task, settings.threads)
    save_thresholds(model, task, Path(folder))
    return metrics


def _function(network: keras.Model, shape: tuple[int, ...]) -> tf.types.experimental.PolymorphicFunction:
    """The network as a function of an image (1, H, W, C) in 0..1."""
    image = tf.TensorSpec((1, *shape), tf.float32, name="image")
    function = tf.function(lambda image: {"logits": network(image, training=False)}, input_signature=[image])
    function.network = network  # the converter finds the variables through weak references
    return function


def to_float(function: tf.types.experimental.PolymorphicFunction) -> bytes:
    """Convert a function to a LiteRT file with 32-bit float weights and activations."""
    return _converter(function).convert()


def to_int8(function: tf.types.experimental.PolymorphicFunction, calibration: np.ndarray, per_channel: bool) -> bytes:
    """Convert a function to a LiteRT file with 8-bit integer weights and activations (post-training quantization).

    Args:
        function: of an image in 0..1.
        calibration: images float32 (n, H, W, C) in 0..1 from which the ranges of the activations are estimated.
        per_channel: one scale for each channel of a kernel instead of one for all of it: more accurate, but the scales of
            a small network take more than half as much space as its weights.
    """
    converter = _converter(function)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: ([image[None]] for image in calibration)
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = tf.uint8
    litert_patches.set_per_channel(converter, per_channel)
    return converter.convert()


def _converter(function: tf.types.experimental.PolymorphicFunction) -> tf.lite.TFLiteConverter:
    converter = tf.lite.TFLiteConverter.from_concrete_functions([function.get_concrete_function()], function.network)
    converter.experimental_lower_to_saved_model = False  # otherwise variables are not frozen, and are empty during calibration
    return converter


def measure(path: Path, model: keras.Model, task: ImageClassification, threads: int) -> Metrics:
    """Measure a model's LiteRT file: metrics on the test set, bytes raw and compressed by gzip, milliseconds of one image."""
    file = path.read_bytes()
    images = task.pixels.normalize(np.asarray(task.test.raw_inputs))
    logits = np.concatenate(list(predict(path, images, BATCH_SIZE, threads)))[: len(images)]
    milliseconds = [seconds * 1e3 for seconds in latencies(path, images, threads)]
    return {
        **task.metrics(task.test, task.of_logits(model, logits)),
        "bytes": len(file),
        "bytes_compressed": len(gzip.compress(file, mtime=0)),
        "latency_p50": float(np.percentile(milliseconds, 50)),
        "latency_p95": float(np.percentile(milliseconds, 95)),
    }


class LiteRTModel:
    """A LiteRT file in an interpreter, for batches of a fixed size."""

    def __init__(self, path: Path, batch_size: int, threads: int):
        self.interpreter = Interpreter(model_path=str(path), num_threads=threads)
        self.input = self.interpreter.get_input_details()[0]
        self.interpreter.resize_tensor_input(self.input["index"], [batch_size, *self.input["shape"][1:]])
        self.interpreter.allocate_tensors()
        self.output = self.interpreter.get_output_details()[0]

    def set_input(self, images: np.ndarray) -> None:
        """Set the input from images (batch, H, W, C) in 0..1, scaled to 0..255 if the file takes bytes."""
        as_bytes = self.input["dtype"] == np.uint8
        inputs = np.rint(255 * np.clip(images, 0, 1)).astype(np.uint8) if as_bytes else images
        self.interpreter.set_tensor(self.input["index"], inputs)

    def invoke(self) -> np.ndarray:
        """Compute the logits (batch, classes)."""
        self.interpreter.invoke()
        return self.interpreter.get_tensor(self.output["index"])


def predict(path: Path, images: np.ndarray, batch_size: int, threads: int) -> Iterable[np.ndarray]:
    """Logits (batch, classes) of a file, batch by batch; the last batch is filled up with the first examples."""
    model = LiteRTModel(path, batch_size, threads)
    for start in range(0, len(images), batch_size):
        rows = np.arange(start, start + batch_size) % len(images)
        model.set_input(images[rows])
        yield model.invoke()


def latencies(path: Path, images: np.ndarray, threads: int) -> list[float]:
    """Seconds of each of `TIMED_CALLS` calls with a single image, after a warm-up."""
    model = LiteRTModel(path, 1, threads)
    seconds = []
    for call in range(WARM_UP_CALLS + TIMED_CALLS):
        model.set_input(images[[call % len(images)]])
        start = time.perf_counter()
        model.invoke()
        seconds.append(time.perf_counter() - start)
    return seconds[WARM_UP_CALLS:]


def table(metrics: Mapping[str, Metrics], leading: str, threads: int) -> str:
    """The metrics of several files, {kind: metrics of `measure`}, as a table; of those of the task, the `leading` one."""
    headings = ["LiteRT file", leading.replace("_", " "), "bytes", "bytes compressed", "latency p50 (ms)", "latency p95 (ms)"]
    rows = [
        [kind, f"{values[leading]:.4f}", f"{values['bytes']:,}", f"{values['bytes_compressed']:,}",
         f"{values['latency_p50']:.3f}", f"{values['latency_p95']:.3f}"]
        for kind, values in metrics.items()
    ]  # fmt: skip
    return f"{tables.text(headings, rows)}\n(latency of a single image with {threads} thread(s))"
