"""This project's `fit`, and the same model in bare Keras, on TensorFlow or JAX."""

import math
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hydra.utils

from src import terminal
from src.config.schema import Settings
from tests.bench.throughput.problem import create_task, problem_of
from tests.bench.throughput.processes import Pace


def train_project(settings: Settings, problem: None, pace: Pace) -> None:
    """Train as `python -m src.run` does: its optimizer, its callbacks, its pipeline."""
    terminal.load_tensorflow()
    import keras

    from src.training import loop, strategies
    from src.training.checkpoint import CheckpointManager

    strategy = strategies.create(settings.strategy)
    loop.prepare(settings)
    task, source = create_task(settings)
    model = loop.build(settings, task, strategy)
    inputs = task.model_inputs(model, task.train, training=True).inputs
    pace.ready(count_trainable(model), device(), problem_of(task, inputs, source))
    fit = keras.Model.fit

    def fit_on_the_clock(model: Any, *args: Any, callbacks: list[Any], **kwargs: Any) -> Any:
        execution = callbacks[0]
        return fit(model, *args, callbacks=[*callbacks, step_clock(pace, lambda _: execution.step)], **kwargs)

    keras.Model.fit = fit_on_the_clock
    with tempfile.TemporaryDirectory() as folder:
        checkpoints = CheckpointManager(Path(folder))
        loop.fit(model, settings, task, lambda metrics, step: None, checkpoints=checkpoints)


def train_bare(settings: Settings, problem: Any, pace: Pace) -> None:
    """Train the recipe's model as a user of Keras would, on the same batches: one device, Keras's optimizer, no callbacks."""
    terminal.load_tensorflow()
    import keras
    import tensorflow as tf

    from src.datasets import pipeline

    on_jax = keras.config.backend() == "jax"
    if on_jax:
        tf.config.set_visible_devices([], "GPU")  # reads data alone
    keras.utils.set_random_seed(settings.seed)
    keras.config.set_dtype_policy(settings.training.precision)
    task, _ = create_task(settings)
    model = task.build_model(hydra.utils.get_method(settings.model.target), settings.model.hyperparameters)
    split = task.model_inputs(model, task.train, training=True)
    model(keras.tree.map_structure(keras.ops.convert_to_tensor, split.take(1).inputs))  # creates the weights
    model.compile(
        optimizer(settings, model),
        loss=task.loss(),
        weighted_metrics=task.training_metrics(model),
        jit_compile=on_jax,  # on TensorFlow it makes most of the recipes slower
    )
    pace.ready(count_trainable(model), device())
    training = settings.training
    model.fit(
        pipeline.training(split, training.batch_size, settings.seed),
        epochs=1,
        steps_per_epoch=training.steps_per_epoch,
        shuffle=False,
        verbose=0,
        callbacks=[step_clock(pace)],
    )


def optimizer(settings: Settings, model: Any) -> Any:
    """Keras's own optimizer with the settings of an experiment."""
    import keras

    made, ema = settings.optimizer, settings.training.ema
    optimizer = {"adam": keras.optimizers.Adam, "adamw": keras.optimizers.AdamW}[made.name](
        learning_rate=keras.optimizers.schedules.CosineDecay(made.learning_rate, settings.training.steps_per_epoch),
        weight_decay=made.weight_decay,
        beta_1=made.beta_1,
        beta_2=made.beta_2,
        epsilon=made.epsilon,
        global_clipnorm=made.clip_norm,
        use_ema=ema is not None,
        ema_momentum=0.99 if ema is None else ema,
    )
    if made.weight_decay and not made.decay_biases:
        optimizer.exclude_from_weight_decay(var_list=[weight for weight in model.trainable_weights if len(weight.shape) < 2])
    return optimizer


def step_clock(pace: Pace, completed: Callable[[int], int] = lambda batch: batch + 1) -> Any:
    """A callback that lets Keras train while it is measured.

    Args:
        pace: of the measurement.
        completed: from Keras's number of a batch to the number of completed steps.
    """
    import keras

    class StepClock(keras.callbacks.Callback):
        def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
            pace.completed(completed(batch), _wait_for(logs))

    return StepClock()


def _wait_for(logs: dict[str, Any] | None) -> Callable[[], float]:
    return lambda: float((logs or {})["loss"])


def count_trainable(model: Any) -> int:
    """The number of trainable parameters of a Keras model."""
    return sum(math.prod(weight.shape) for weight in model.trainable_weights)


def device() -> str:
    """What Keras trains on: CPU or GPU."""
    import keras

    if keras.config.backend() == "jax":
        import jax

        return jax.default_backend().upper()
    import tensorflow as tf

    return "GPU" if tf.config.list_physical_devices("GPU") else "CPU"
