"""An ONNX file of a trained image classifier, compared with the original.

Keras converts it with tf2onnx; what is compared is computed by ONNX Runtime, which needs neither.
"""

from pathlib import Path

import keras
import numpy as np

from src import terminal
from src.datasets import Array
from src.export.labels import save_thresholds
from src.tasks.base import Metrics, Task
from src.tasks.image_classification import as_image_classification

BATCH_SIZE = 50


def export(model: keras.Model, task: Task, folder: Path) -> Metrics:
    """Write model.onnx, which takes images (batch, H, W, C) as they are in the data, and returns logits (batch, classes).

    Of several labels see `save_thresholds`.

    Args:
        model: a trained image classifier.
        task: its task.
        folder: is created.

    Returns:
        Its metrics on the test set, its size in `bytes`, and the largest absolute `difference` of its logits from the model's.
    """
    task = as_image_classification(task)
    folder.mkdir()
    path, images = folder / "model.onnx", task.test.raw_inputs
    image = keras.Input(images.shape[1:], dtype=images.dtype.name, name="image")
    inference = keras.Model(image, model(image, training=False))  # otherwise the augmentation of images would be converted, too
    signature = [keras.InputSpec(shape=image.shape, dtype=image.dtype, name=image.name)]
    with terminal.capture_stderr():  # the converter reports what it removes
        inference.export(str(path), format="onnx", verbose=False, input_signature=signature)
    save_thresholds(model, task, folder)
    predictions = task.of_logits(model, predict(path, images))
    difference = float(np.abs(predictions - task.predict(model, task.test, BATCH_SIZE)).max())
    return {**task.metrics(task.test, predictions), "bytes": path.stat().st_size, "difference": difference}


def predict(path: Path, images: Array) -> np.ndarray:
    """The logits (n, classes) that ONNX Runtime computes for images (n, H, W, C)."""
    import onnxruntime  # optional: requirements-onnx.txt

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (image,) = session.get_inputs()
    starts = range(0, len(images), BATCH_SIZE)
    return np.concatenate([session.run(None, {image.name: images[start : start + BATCH_SIZE]})[0] for start in starts])
