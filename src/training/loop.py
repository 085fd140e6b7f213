"""From a recipe to a trained model: seed, precision, optimizer, `fit`, and what is watched while it runs."""

import contextlib
import gc
import logging
import math
from collections.abc import Callable, Iterator

import hydra.utils
import keras
import tensorflow as tf

from src import signals
from src.config import schema
from src.datasets import Part, pipeline
from src.errors import DiskFullError, OutOfMemoryError, UserError
from src.tasks.base import Task
from src.training import distillation, optimizers, strategies
from src.training.callbacks import (
    EpochLog,
    FailOnNaN,
    Glance,
    GradientNorm,
    KeepBest,
    LogFigures,
    LogMetrics,
    Report,
    StopWhenAsked,
)
from src.training.checkpoint import Checkpoints, Keeper
from src.training.profiling import Profile
from src.training.pruning import Prune

log = logging.getLogger(__name__)


def prepare(chosen: schema.Settings) -> None:
    """A clean start: nothing left of an earlier run in this process, every random number from the seed, the precision."""
    keras.backend.clear_session()
    strategies.forget_gradients()
    gc.collect()
    keras.utils.set_random_seed(chosen.seed)
    keras.config.set_dtype_policy(chosen.training.precision)


def build(chosen: schema.Settings, task: Task, strategy: tf.distribute.Strategy) -> keras.Model:
    """The recipe's model for a task, compiled, its weights on the strategy's devices.

    Raises:
        UserError: the recipe refuses its hyperparameters (it raises a ValueError), or an epoch would be empty.
        OutOfMemoryError: the model is too large for this machine.
    """
    recipe = hydra.utils.get_method(chosen.model.target)
    steps_per_epoch(chosen.training, task.train)  # first, since it is what could be wrong
    with enough_memory(chosen.training), strategy.scope():
        try:
            model = task.model(recipe, chosen.model.hyperparameters)
        except ValueError as error:
            raise UserError(f"model={chosen.model.name} cannot be built: {' '.join(str(error).split())}") from error
        _check_compression(model, chosen.compression)
        model(keras.tree.map_structure(tf.constant, task.train.first(1).inputs))  # some models make their weights only now
        _compile(model, chosen, task)
    _check_monitor(chosen.training, task)
    return model


@contextlib.contextmanager
def enough_memory(training: schema.Training) -> Iterator[None]:
    """Says what to do where there is not.

    Raises:
        OutOfMemoryError: the memory of this machine or of its accelerator did not suffice.
        DiskFullError: it was a disk that did not; TensorFlow has one name for both.
    """
    try:
        yield
    except (MemoryError, tf.errors.ResourceExhaustedError) as error:
        if "No space left" in str(error):
            raise DiskFullError from error
        raise OutOfMemoryError(
            f"Out of memory with training.batch_size={training.batch_size}; a smaller one may help, with "
            "training.gradient_accumulation to make up for it, or training.precision=mixed_bfloat16, or a smaller model."
        ) from error


def transfer(source: keras.Model, model: keras.Model) -> None:
    """Copies the weights of every layer of `source` that has its like in `model`: the same name, and the same shapes."""

    def layers(of: keras.Model) -> dict[str, keras.layers.Layer]:
        return {layer.name: layer for layer in of._flatten_layers(include_self=False, recursive=False) if layer.weights}

    there = layers(source)
    alike: list[str] = []
    for name, layer in layers(model).items():
        if name in there and [w.shape for w in there[name].weights] == [w.shape for w in layer.weights]:
            layer.set_weights(there[name].get_weights())
            alike.append(name)
    log.info("Pre-trained: %s.", ", ".join(alike))


def pupil(
    model: keras.Model,
    teach: Callable[[], keras.Model],
    chosen: schema.Settings,
    task: Task,
    strategy: tf.distribute.Strategy,
) -> keras.Model:
    """What trains a model, as `build` returns it, on a teacher's answers too; compiled. `teach` makes the teacher."""
    with strategy.scope():
        learner = distillation.distiller(model, teach(), chosen.compression)
        _compile(learner, chosen, task)
    return learner


def _compile(model: keras.Model, chosen: schema.Settings, task: Task) -> None:
    made = optimizers.create(chosen.optimizer, chosen.training, steps_per_epoch(chosen.training, task.train))
    made.factors = optimizers.factors(model)
    model.compile(
        optimizer=made,
        loss=task.loss(),
        weighted_metrics=task.training_metrics(),  # weighted, since the validation pipeline fills up its last batch
        jit_compile=chosen.training.jit_compile,
    )
    model.optimizer.build(model.trainable_variables)  # left to the first step, it makes Keras trace that step twice


def _check_compression(model: keras.Model, chosen: schema.Compression) -> None:
    """Raises a UserError if a model cannot be taught by another one or become a file, though that is asked for."""
    asked = [name for name in ("teacher", "export") if getattr(chosen, name)]
    if asked and isinstance(model.input, dict):
        raise UserError(f"compression.{asked[0]} does not work for a recipe that learns by reward; type compression=none.")


def _check_monitor(training: schema.Training, task: Task) -> None:
    names = ["loss", *(metric.name for metric in task.training_metrics())]
    known = [f"val_{name}" for name in (*names, *task.glanced)] + names
    if training.monitor not in known:
        raise UserError(f"There is no metric training.monitor={training.monitor}; known: {', '.join(known)}.")
    if training.monitor in _glanced(task) and not training.previews:
        raise UserError(f"training.monitor={training.monitor} is measured on previews; type training.previews=1 or more.")


def _glanced(task: Task) -> list[str]:
    return [f"val_{name}" for name in task.glanced]


def steps_per_epoch(chosen: schema.Training, part: Part) -> int:
    """Optimizer steps of an epoch: as chosen, or as many whole batches as the training part holds."""
    if len(part) < chosen.batch_size:
        raise UserError(
            f"training.batch_size={chosen.batch_size} is more than the {len(part)} training examples; "
            f"type training.batch_size={len(part)} or less."
        )
    return chosen.steps_per_epoch or len(part) // chosen.batch_size


def fit(
    model: keras.Model, chosen: schema.Settings, task: Task, log_metrics: LogMetrics, *,
    log_figures: LogFigures = lambda figures: None, keeper: Keeper | None = None,
    quiet: bool = True, profile_to: str | None = None, report: Callable[[float, int], None] | None = None,
) -> float:  # fmt: skip
    """Trains, and leaves the model with the weights that are to be kept.

    Args:
        model: as `build` returns it.
        chosen: the settings of the run.
        task: what it is trained on.
        log_metrics: told the metrics of every epoch.
        log_figures: told what a model that generates makes on the way.
        keeper: where checkpoints are kept, and the one to go on from.
        quiet: a line an epoch instead of a progress bar.
        profile_to: folder that a profile is written to.
        report: told the monitored metric after every epoch; raises if that is to be the last one.

    Returns:
        The best value of the monitored metric (of the last epoch, where that one is kept).
    """
    training = chosen.training
    steps = steps_per_epoch(training, task.train)
    resumed = keeper.resumed if keeper else None
    epoch, step = (resumed.epoch, resumed.step) if resumed else (0, 0)

    def batches(epoch: int, step: int) -> tf.data.Dataset:
        return pipeline.training(task.train, training.batch_size, chosen.seed, start=epoch * steps + step)

    def inputs(epoch: int, step: int) -> object:
        return next(iter(batches(epoch, step)))[0]

    callbacks = [FailOnNaN(inputs), *([GradientNorm()] if training.gradient_norm else [])]
    callbacks.append(EpochLog(log_metrics, training, steps, step, quiet))
    if training.ema is not None:
        callbacks.append(keras.callbacks.SwapEMAWeights(swap_on_epoch=True))
    pruning, first = [], 0
    if chosen.compression.sparsity:
        pruning = [Prune(model, chosen.compression, steps * training.epochs)]
        first = math.ceil(chosen.compression.end * training.epochs)  # an epoch before that is not sparse enough to be kept
    best = KeepBest(
        monitor=training.monitor,
        mode="min" if training.monitor in _glanced(task) else "auto",  # of its own metrics Keras knows
        patience=training.early_stopping or training.epochs,
        restore_best_weights=training.restore_best_weights,
        start_from_epoch=min(first, training.epochs - 1),
    )
    callbacks.append(Glance(task, log_metrics, log_figures, training))  # after the average has taken the place of the weights
    callbacks += [best, *pruning]  # what is kept in the end is pruned last
    if profile_to:
        callbacks.append(Profile(profile_to))
    if keeper:
        callbacks.append(Checkpoints(keeper, chosen.checkpoint, [best, *pruning]))
    if report:
        callbacks.append(Report(training.monitor, report))
    callbacks.append(StopWhenAsked())
    validation = pipeline.evaluation(task.validation, training.batch_size)
    if resumed:
        model.evaluate(validation.take(1), verbose=0)  # else the metrics get their variables only at the first step
    try:
        history = model.fit(
            batches(epoch, step),
            validation_data=validation,
            initial_epoch=epoch,
            epochs=training.epochs,
            steps_per_epoch=steps,
            shuffle=False,  # the pipeline does it
            callbacks=callbacks,
            verbose=0 if quiet else "auto",
        ).history
    finally:
        signals.defer(enabled=False)
    return float(best.best if training.restore_best_weights else history[training.monitor][-1])
