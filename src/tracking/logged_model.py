"""The served model in MLflow's format: signature, example, requirements, and the code that travels with it."""

import importlib.metadata
import shutil
from pathlib import Path

import keras
import mlflow
import numpy as np
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema, TensorSpec

from src.export import serving
from src.tasks.serving import Serving
from src.tracking.descriptions import KERAS_FILE
from src.tracking.mlflow_patches import requirements_as_installed

# Requirements of a logged model besides MLflow; without this list MLflow infers them by loading the model, which takes seconds.
PACKAGES, TEXT_PACKAGES = ("tensorflow", "keras", "numpy"), ("tokenizers",)
# The only type that MLflow does not compare with what comes in: with any other, an array of floats is no array of bytes.
ANY_ARRAY = TensorSpec(np.dtype(object), (-1,))
PARAM_TYPES = {bool: DataType.boolean, int: DataType.long, float: DataType.double}


def save(served: Serving, model: keras.Model, folder: Path) -> None:
    """Write a model in MLflow's format, and beside it `KERAS_FILE`.

    Args:
        served: what is served of the model.
        model: trained.
        folder: is created.
    """
    scratch = folder.with_suffix(".parts")
    scratch.mkdir()
    serving.save(served, str(scratch / "saved_model"))
    module = serving.write_code(scratch)
    packages = PACKAGES + (TEXT_PACKAGES if served.input_tokenizer else ())
    with requirements_as_installed():  # as they are: the versions of this process
        mlflow.pyfunc.save_model(
            str(folder), loader_module=module, code_paths=[str(scratch / f"{module}.py")],
            data_path=str(scratch / "saved_model"),
            signature=signature(served), metadata=dict(served.settings) or None,
            input_example=(served.example, dict(served.example_params)) if served.example_params else served.example,
            pip_requirements=[f"{package}=={importlib.metadata.version(package)}" for package in packages],
        )  # fmt: skip
    save_keras(model, folder / KERAS_FILE)
    shutil.rmtree(scratch)


def signature(served: Serving) -> ModelSignature:
    """What MLflow shows of inputs, parameters and outputs, and checks."""
    inputs = Schema([ColSpec(DataType.string) if isinstance(served.example, list) else ANY_ARRAY])
    outputs = Schema([TensorSpec(np.dtype(dtype), (-1, *shape), name) for name, (dtype, shape) in served.outputs.items()])
    params = [ParamSpec(name, PARAM_TYPES[type(default)], default) for name, default in served.params.items()]
    return ModelSignature(inputs=inputs, outputs=outputs, params=ParamSchema(params))


def save_keras(model: keras.Model, path: Path) -> None:
    """Write the model for `keras.saving.load_model`: without loss and optimizer, which only this project could load."""
    config = keras.saving.serialize_keras_object(model)
    config.pop("compile_config", None)
    copy = keras.saving.deserialize_keras_object(config)
    copy.set_weights(model.get_weights())
    copy.save(path)
