"""Building, compiling and fitting a model."""

import contextlib
import logging
import math
from collections.abc import Callable, Iterator

import hydra.utils
import keras
import tensorflow as tf

from src import signals, terminal
from src.cluster import Cluster
from src.config import schema
from src.datasets import Split, pipeline
from src.datasets.pipeline import Share
from src.errors import DiskFullError, OutOfMemoryError, UserError
from src.metrics import lower_is_better
from src.tasks.base import Task
from src.training import distillation, keras_patches, optimizers, strategies, tensorflow_patches, xla
from src.training.agreement import Agreement
from src.training.callbacks import (
    BestWeights,
    EpochLogger,
    FailOnNaN,
    GracefulStop,
    GradientNorm,
    LogMetrics,
    LogSamples,
    MetricReporter,
    Progress,
    SamplePreview,
)
from src.training.checkpoint import CheckpointManager, SaveCheckpoints
from src.training.execution import Execution
from src.training.profiling import Profile
from src.training.pruning import MagnitudePruning

log = logging.getLogger(__name__)

MEASURED_STEPS = 10  # fewest steps of an epoch for which the time of a step is measured
FORGOTTEN = 0.05  # a moving average has forgotten the start of a run once momentum ** updates is at most this


def prepare(settings: schema.Settings) -> None:
    """Prepare this process for a run: free what earlier runs have left, set random seeds and the precision.

    Settings of ~/.keras/keras.json (type of floats, layout of images) are overridden, since no run records them.
    """
    tensorflow_patches.clear_gradient_registry()
    keras.backend.clear_session()
    keras.utils.set_random_seed(settings.seed)
    keras.config.set_floatx("float32")
    keras.config.set_image_data_format("channels_last")
    keras.config.set_dtype_policy(settings.training.precision)


def build(settings: schema.Settings, task: Task, strategy: tf.distribute.Strategy) -> keras.Model:
    """Build and compile the recipe's model for a task, with its weights on the devices of the strategy.

    Raises:
        UserError: the recipe rejects its hyperparameters (it raises a ValueError), or an epoch would be empty.
        OutOfMemoryError: the model is too large for this machine.
    """
    _check_updates(settings.training, steps_per_epoch(settings.training, task.train))  # the cheapest check comes first
    with explain_out_of_memory(settings.training), strategy.scope():
        model = _create_model(settings, task)
        _check_compression(model, settings.compression)
        _compile(model, settings, task)
    _check_monitor(settings.training, task, model)
    return model


def _create_model(settings: schema.Settings, task: Task) -> keras.Model:
    """The recipe's model for a task, with its weights."""
    recipe = hydra.utils.get_method(settings.model.target)
    try:
        model = task.build_model(recipe, settings.model.hyperparameters)
    except ValueError as error:
        raise UserError(f"model={settings.model.name} cannot be built: {' '.join(str(error).split())}") from error
    example = task.model_inputs(model, task.train.take(1)).inputs
    model(keras.tree.map_structure(tf.constant, example))  # some models create their weights in their first call
    return model


@contextlib.contextmanager
def explain_out_of_memory(training: schema.Training) -> Iterator[None]:
    """Turn errors about memory into messages that say which settings help.

    Raises:
        OutOfMemoryError: the memory of this machine or of its accelerator was exhausted.
        DiskFullError: a disk was; TensorFlow raises the same error for both.
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


def on_one_device(model: keras.Model, settings: schema.Settings, task: Task) -> keras.Model:
    """A copy of a trained model on this worker alone, not compiled, so that it is evaluated without the others.

    Args:
        model: as `build` returns it, under the strategy of several workers.
        settings: of the run.
        task: of the run.
    """
    copy = _create_model(settings, task)
    for mine, theirs in zip(copy.variables, model.variables, strict=True):
        mine.assign(keras.ops.convert_to_numpy(theirs))
    return copy


def transfer_weights(source: keras.Model, model: keras.Model) -> None:
    """Copy the weights of all layers that have the same name and the same shapes in both models."""

    def layers_with_weights(of: keras.Model) -> dict[str, keras.layers.Layer]:
        return {layer.name: layer for layer in of.layers if layer.weights}

    source_layers = layers_with_weights(source)
    transferred: list[str] = []
    for name, layer in layers_with_weights(model).items():
        if name in source_layers and [w.shape for w in source_layers[name].weights] == [w.shape for w in layer.weights]:
            layer.set_weights(source_layers[name].get_weights())
            transferred.append(name)
    log.info("Pretrained layers: %s.", ", ".join(transferred))


def student(
    model: keras.Model,
    load_teacher: Callable[[], keras.Model],
    settings: schema.Settings,
    task: Task,
    strategy: tf.distribute.Strategy,
) -> keras.Model:
    """Make a model the student of a teacher.

    Args:
        model: as `build` returns it.
        load_teacher: returns the teacher; called in the scope of the strategy.
        settings: of the run.
        task: of the run.
        strategy: of the run.

    Returns:
        A compiled model that trains `model` on the teacher's predictions as well.
    """
    with strategy.scope():
        distiller = distillation.build_distiller(model, load_teacher(), settings.compression, task)
        _compile(distiller, settings, task)
    return distiller


def _compile(model: keras.Model, settings: schema.Settings, task: Task) -> None:
    steps = steps_per_epoch(settings.training, task.train)
    model.compile(
        optimizer=optimizers.create(
            settings.optimizer,
            settings.training,
            steps,
            optimizers.learning_rate_factors(model),
            model.trainable_variables,
        ),
        loss=task.loss(),
        weighted_metrics=task.training_metrics(model),  # weighted, since padding of the last validation batch has weight 0
        jit_compile=xla.compiles(settings, steps * settings.training.epochs),
    )
    _check_jit_compile(model, settings)
    model.optimizer.build(model.trainable_variables)  # otherwise the first step builds it, and Keras traces that step twice


def _check_jit_compile(model: keras.Model, settings: schema.Settings) -> None:
    """Raise a UserError if XLA is requested for a model that Keras would train without it, after no more than a warning."""
    if model.jit_compile or settings.training.jit_compile is not True:
        return
    names = ", ".join(layer.name for layer in keras_patches.all_layers(model) if not layer.supports_jit)
    raise UserError(
        f"XLA cannot compile these layers of model={settings.model.name}: {names}; type training.jit_compile=false, or disable "
        "them (augmentation of images: model.augmentation=0 model.shift=0 model.crop=0)."
    )


def _check_compression(model: keras.Model, compression: schema.Compression) -> None:
    """Raise a UserError if distillation or export is requested for a recipe that does not support it."""
    requested = [name for name in ("teacher", "export", "onnx") if getattr(compression, name)]
    if requested and isinstance(model.input, dict):
        raise UserError(f"compression.{requested[0]} does not work for a recipe that learns by reward; type compression=none.")


def _check_monitor(training: schema.Training, task: Task, model: keras.Model) -> None:
    """Raise a UserError if the metric to monitor will not be computed."""
    names = ["loss", *(metric.name for metric in task.training_metrics(model))]
    available = [f"val_{name}" for name in (*names, *task.preview_metrics)] + names
    if training.monitor not in available:
        raise UserError(f"There is no metric training.monitor={training.monitor}; available: {', '.join(available)}.")
    if training.monitor in _monitored_previews(task) and not training.previews:
        raise UserError(f"training.monitor={training.monitor} is computed in previews; type training.previews=1 or more.")


def _monitored_previews(task: Task) -> list[str]:
    """Names, in Keras's logs, of the metrics of previews."""
    return [f"val_{name}" for name in task.preview_metrics]


def steps_per_epoch(training: schema.Training, split: Split) -> int:
    """Training steps of an epoch: as set, or the number of full batches in the training set.

    Raises:
        UserError: the training set is smaller than a batch.
    """
    if len(split) < training.batch_size:
        raise UserError(
            f"training.batch_size={training.batch_size} is more than the {len(split)} training examples; "
            f"type training.batch_size={len(split)} or less."
        )
    return training.steps_per_epoch or len(split) // training.batch_size


def _check_updates(training: schema.Training, steps: int) -> None:
    """Check that a run of `steps` steps an epoch updates the weights, and often enough for their average.

    Raises:
        UserError: the run ends before the first update.
    """
    steps *= training.epochs
    updates = steps // training.gradient_accumulation
    if not updates:
        raise UserError(
            f"training.gradient_accumulation={training.gradient_accumulation} is more than the {steps} steps of the run, so "
            f"the weights would never be updated; type training.gradient_accumulation={steps} or less."
        )
    if training.ema is not None and training.ema**updates > FORGOTTEN:
        step = 1 - FORGOTTEN ** (1 / updates)
        digits = math.ceil(-math.log10(step))
        log.warning(
            "training.ema=%s averages the weights over the whole run, which has %d updates; type training.ema=%.*f or less "
            "for an average that has forgotten the beginning.",
            training.ema, updates, digits, max(1 - math.ceil(step * 10**digits) / 10**digits, 0),
        )  # fmt: skip


def _execution_size(
    settings: schema.Settings, execution: Execution, batches: Callable[[], tf.data.Dataset], cluster: Cluster | None
) -> int:
    """The number of steps of an execution: as set or measured, so that one ends where a checkpoint is due after so many steps.

    Several workers agree after each step, pruning changes weights between steps, and a profile begins and ends at a step. Where
    an epoch has few steps, measuring them would take longer than is saved.
    """
    single = cluster or settings.compression.sparsity or settings.training.profile
    if single or (settings.training.steps_per_execution is None and execution.steps < MEASURED_STEPS):
        return 1
    with terminal.phase("Tracing the training step"):
        size = min(settings.training.steps_per_execution or execution.measure(batches()), execution.steps)
    if settings.checkpoint.unit == "seconds" or settings.checkpoint.every is None:
        return size
    interval = math.gcd(execution.steps, math.ceil(settings.checkpoint.every))
    return max(divisor for divisor in range(1, size + 1) if interval % divisor == 0)


def fit(
    model: keras.Model, settings: schema.Settings, task: Task, log_metrics: LogMetrics, *,
    log_samples: LogSamples = lambda draw, epoch: None, checkpoints: CheckpointManager | None = None,
    profile_to: str | None = None, report: Callable[[float, int], None] | None = None, cluster: Cluster | None = None,
) -> float:  # fmt: skip
    """Train a model; afterwards it has the weights of the best or of the last epoch, as set.

    Args:
        model: as `build` or `student` returns it.
        settings: of the run.
        task: what is learned.
        log_metrics: called with the metrics of every epoch.
        log_samples: called with a function that draws samples which a generative model makes during training, and the epoch.
        checkpoints: where checkpoints are saved, with the state to resume from; None: no checkpoints.
        profile_to: folder that a profile is written to.
        report: called with the monitored metric after every epoch; raises to end the run.
        cluster: the workers that train together, each of which calls this; None: there are no others.

    Returns:
        The best value of the monitored metric, or that of the last epoch if its weights are kept.
    """
    training, strategy = settings.training, model.distribute_strategy
    steps = steps_per_epoch(training, task.train)
    resumed = checkpoints.resumed if checkpoints else None
    epoch, step = (resumed.epoch, resumed.step) if resumed else (0, 0)
    train_split = task.model_inputs(model, task.train, training=True)
    validation_split = task.model_inputs(model, task.validation)

    def batches(epoch: int, step: int, share: Share | None = None) -> tf.data.Dataset:
        return pipeline.training(train_split, training.batch_size, settings.seed, epoch * steps + step, share)

    def validation_batches(limit: int | None = None) -> tf.data.Dataset:
        return strategies.distribute(
            strategy, lambda share: pipeline.evaluation(validation_split.take(limit), training.batch_size, share)
        )

    def batch_inputs(epoch: int, step: int) -> object:
        return next(iter(batches(epoch, step)))[0]

    execution = Execution(model, steps, step)
    progress = Progress(training.epochs, execution)
    callbacks = [execution, FailOnNaN(execution, batch_inputs), *([GradientNorm()] if training.gradient_norm else [])]
    callbacks += [progress, EpochLogger(log_metrics, training, steps, step, progress)]
    if training.ema is not None:
        callbacks.append(keras.callbacks.SwapEMAWeights(swap_on_epoch=True))
    pruning, first_sparse_epoch = [], 0
    if settings.compression.sparsity:
        pruning = [MagnitudePruning(model, settings.compression, steps * training.epochs, execution)]
        first_sparse_epoch = math.ceil(settings.compression.end * training.epochs)  # earlier weights are not sparse enough
    best = BestWeights(
        monitor=training.monitor,
        mode="min" if training.monitor in _monitored_previews(task) or lower_is_better(training.monitor) else "max",
        patience=training.early_stopping or training.epochs,
        restore_best_weights=training.restore_best_weights,
        start_from_epoch=min(first_sparse_epoch, training.epochs - 1),
    )
    # After the averaged weights are swapped in:
    callbacks.append(SamplePreview(task, log_metrics, log_samples, training, cluster))
    callbacks += [best, *pruning]  # pruning comes last, so that restored weights are pruned too
    if profile_to:
        callbacks.append(Profile(execution, profile_to))
    agreement = Agreement(cluster, steps) if cluster else None
    if checkpoints:
        callbacks.append(SaveCheckpoints(checkpoints, settings.checkpoint, execution, [best, *pruning], agreement))
    if report:
        callbacks.append(MetricReporter(training.monitor, report))
    callbacks.append(GracefulStop(execution, agreement))
    if resumed:  # creates the variables of the metrics, which are to be restored
        model.evaluate(validation_batches(training.batch_size), verbose=0)
    execution.size = _execution_size(settings, execution, lambda: batches(epoch, step), cluster)
    log.debug("TensorFlow takes %d of %d steps at a time.", execution.size, steps)
    try:
        with progress.phase(), cluster.explain_failure() if cluster else contextlib.nullcontext():
            history = model.fit(
                strategies.distribute(strategy, lambda share: batches(epoch, step, share)),
                validation_data=validation_batches(),
                initial_epoch=epoch,
                epochs=training.epochs,
                steps_per_epoch=execution.per_epoch,
                shuffle=False,  # the pipeline shuffles
                callbacks=callbacks,
                verbose=0,  # `progress` shows the run, and not only an epoch of it
            ).history
    finally:
        signals.defer(enabled=False)
    return float(best.best if training.restore_best_weights else history[training.monitor][-1])
