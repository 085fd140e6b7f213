"""From a recipe to a trained model: seed, precision, optimizer, `fit`, and what is watched while it runs."""

import gc
import logging
import math
import time
from collections.abc import Callable

import hydra.utils
import keras
import numpy as np
import tensorflow as tf
from matplotlib.figure import Figure

from src import compression, interruption, settings, strategies
from src.datasets import Part, pipeline
from src.errors import UserError
from src.profiling import Profile
from src.tasks import Task

log = logging.getLogger(__name__)

LogMetrics = Callable[[dict[str, float], int], None]  # (metrics, step)
LogFigures = Callable[[dict[str, Figure | str]], None]


def prepare(chosen: settings.Settings) -> None:
    """A clean start: nothing left of an earlier run in this process, every random number from the seed, the precision."""
    keras.backend.clear_session()
    gc.collect()
    keras.utils.set_random_seed(chosen.seed)
    keras.config.set_dtype_policy(chosen.training.precision)


def build(chosen: settings.Settings, task: Task, strategy: tf.distribute.Strategy) -> keras.Model:
    """The recipe's model for a task, compiled, its weights on the strategy's devices.

    Raises:
        UserError: the recipe refuses its hyperparameters (it raises a ValueError), or an epoch would be empty.
    """
    recipe = hydra.utils.get_method(chosen.model.target)
    steps_per_epoch(chosen.training, task.train)  # first, since it is what could be wrong
    with strategy.scope():
        try:
            model = task.model(recipe, chosen.model.hyperparameters)
        except ValueError as error:
            raise UserError(f"model={chosen.model.name} cannot be built: {' '.join(str(error).split())}") from error
        compression.check(model, chosen.compression)
        model(keras.tree.map_structure(tf.constant, task.train.first(1).inputs))  # some models make their weights only now
        _compile(model, chosen, task)
    _check_monitor(chosen.training.monitor, task)
    return model


def transfer(source: keras.Model, model: keras.Model) -> None:
    """Copies the weights of every layer of `source` that has its like in `model`: the same name, and the same shapes."""

    def layers(of: keras.Model) -> dict[str, keras.layers.Layer]:
        return {layer.name: layer for layer in of._flatten_layers(include_self=False, recursive=False) if layer.weights}

    there, alike = layers(source), []
    for name, layer in layers(model).items():
        if name in there and [w.shape for w in there[name].weights] == [w.shape for w in layer.weights]:
            layer.set_weights(there[name].get_weights())
            alike.append(name)
    log.info("Pre-trained: %s.", ", ".join(alike))


def pupil(
    model: keras.Model,
    teach: Callable[[], keras.Model],
    chosen: settings.Settings,
    task: Task,
    strategy: tf.distribute.Strategy,
) -> keras.Model:
    """What trains a model, as `build` returns it, on a teacher's answers too; compiled. `teach` makes the teacher."""
    with strategy.scope():
        learner = compression.distiller(model, teach(), chosen.compression)
        _compile(learner, chosen, task)
    return learner


def _compile(model: keras.Model, chosen: settings.Settings, task: Task) -> None:
    made = optimizer(chosen.optimizer, chosen.training, steps_per_epoch(chosen.training, task.train))
    made.factors = factors(model)
    model.compile(
        optimizer=made,
        loss=task.loss(),
        weighted_metrics=task.training_metrics(),  # weighted, since the validation pipeline fills up its last batch
        jit_compile=chosen.training.jit_compile,
    )
    model.optimizer.build(model.trainable_variables)  # left to the first step, it makes Keras trace that step twice


def _check_monitor(monitor: str, task: Task) -> None:
    names = ["loss", *(metric.name for metric in task.training_metrics())]
    known = [f"val_{name}" for name in names] + names
    if monitor not in known:
        raise UserError(f"There is no metric training.monitor={monitor}; known: {', '.join(known)}.")


def steps_per_epoch(chosen: settings.Training, part: Part) -> int:
    """Optimizer steps of an epoch: as chosen, or as many whole batches as the training part holds."""
    if len(part) < chosen.batch_size:
        raise UserError(
            f"training.batch_size={chosen.batch_size} is more than the {len(part)} training examples; "
            f"type training.batch_size={len(part)} or less."
        )
    return chosen.steps_per_epoch or len(part) // chosen.batch_size


def optimizer(chosen: settings.Optimizer, training: settings.Training, steps: int) -> keras.optimizers.Optimizer:
    """The optimizer with its learning-rate schedule; `steps` make an epoch."""
    classes = {
        "adam": keras.optimizers.Adam,
        "adamw": keras.optimizers.AdamW,
        "sgd": keras.optimizers.SGD,
        "rmsprop": keras.optimizers.RMSprop,
    }
    chosen_class = classes[chosen.name]
    more = (ScalesLearningRates, *([MeasuresGradient] if training.gradient_norm else []))
    chosen_class = type(chosen_class.__name__, (*more, chosen_class), {})
    own = set(type(chosen).model_fields) - set(settings.OptimizerSection.model_fields) - {"name"}
    return chosen_class(
        learning_rate=learning_rate(chosen, steps * training.epochs),
        weight_decay=chosen.weight_decay,
        global_clipnorm=chosen.clip_norm,
        use_ema=training.ema is not None,
        ema_momentum=training.ema if training.ema is not None else 0.99,
        gradient_accumulation_steps=training.gradient_accumulation if training.gradient_accumulation > 1 else None,
        **{name: getattr(chosen, name) for name in own},
    )


class ScalesLearningRates:
    """Makes an optimizer multiply the learning rate of some weights.

    A layer, or a model within a model, asks for that by its attribute `learning_rate_factor`; see `factors`.
    """

    factors: dict[int, float] = {}  # {id of a variable: factor}

    def update_step(self, gradient, variable, learning_rate):
        """Keras's own, at the variable's own rate."""
        whole = self._trainable_variables[self._get_variable_index(variable)]  # `variable` can be a replica's part of it
        super().update_step(gradient, variable, learning_rate * self.factors.get(id(whole), 1.0))


def factors(model: keras.Model) -> dict[int, float]:
    """{id of a variable: factor of its learning rate}, of those whose layers ask for one."""
    asking = [layer for layer in model._flatten_layers() if hasattr(layer, "learning_rate_factor")]
    return {id(variable): layer.learning_rate_factor for layer in asking for variable in layer.trainable_variables}


class MeasuresGradient:
    """Makes an optimizer measure the norm of the gradient of the batch, all weights together, before it is clipped.

    `gradient_norm` and `gradient_norm_max` are the mean and the largest of the norms since `forget_norms`.
    """

    def build(self, variables):
        super().build(variables)
        scalar = {"shape": (), "dtype": "float32", "aggregation": "only_first_replica"}
        self._norms = {name: self.add_variable(**scalar, name=f"norm_{name}") for name in ("sum", "max", "count")}

    def _clip_gradients(self, gradients):
        there = [tf.convert_to_tensor(g) for g in strategies.of_the_whole_batch(gradients) if g is not None]
        norm = tf.linalg.global_norm([tf.cast(gradient, tf.float32) for gradient in there])
        self._norms["sum"].assign_add(norm)
        self._norms["max"].assign(tf.maximum(self._norms["max"].value, norm))
        self._norms["count"].assign_add(1.0)
        return super()._clip_gradients(gradients)

    def forget_norms(self):
        """Begins anew."""
        for variable in self._norms.values():
            variable.assign(0.0)

    def norms(self) -> dict[str, float]:
        """The mean and the largest norm."""
        total, largest, count = (float(keras.ops.convert_to_numpy(self._norms[name])) for name in ("sum", "max", "count"))
        return {"gradient_norm": total / max(count, 1), "gradient_norm_max": largest}


def learning_rate(chosen: settings.OptimizerSection, steps: int) -> keras.optimizers.schedules.LearningRateSchedule:
    """The learning rate over so many steps. Keras asks for it by step, also where several steps make one update."""
    return WarmupThenDecay(chosen.learning_rate, chosen.schedule, steps, chosen.warmup, chosen.final_fraction)


class WarmupThenDecay(keras.optimizers.schedules.LearningRateSchedule):
    """A rise from 0 in a straight line, then a decay that reaches `peak · final_fraction` at the last step.

    Args:
        peak: the highest learning rate.
        schedule: constant, cosine, linear or exponential.
        steps: steps in all.
        warmup: fraction of them in which the learning rate rises.
        final_fraction: of the peak, at the last step; not used by `constant`.
    """

    def __init__(self, peak: float, schedule: str, steps: int, warmup: float, final_fraction: float):
        self.peak, self.schedule, self.steps = peak, schedule, steps
        self.warmup, self.final_fraction = warmup, final_fraction

    def __call__(self, step):
        """The learning rate of step number `step`, counted from 0."""
        ops = keras.ops
        step = ops.cast(step, "float32")
        rising = self.warmup * self.steps
        done = ops.clip((step - rising) / max(self.steps - 1 - rising, 1), 0.0, 1.0)
        last = self.final_fraction
        match self.schedule:
            case "constant":
                share = ops.ones_like(done)
            case "cosine":
                share = last + (1 - last) * 0.5 * (1 + ops.cos(math.pi * done))
            case "linear":
                share = 1 - (1 - last) * done
            case "exponential":
                share = ops.exp(math.log(last) * done)
        return self.peak * share * ops.minimum(1.0, (step + 1) / max(rising, 1))

    def get_config(self):
        """The arguments it was made with."""
        names = ("peak", "schedule", "steps", "warmup", "final_fraction")
        return {name: getattr(self, name) for name in names}


def fit(
    model: keras.Model, chosen: settings.Settings, task: Task, log_metrics: LogMetrics, *,
    log_figures: LogFigures = lambda figures: None, quiet: bool = True, profile_to: str | None = None,
) -> float:  # fmt: skip
    """Trains, and leaves the model with the weights that are to be kept.

    Args:
        model: as `build` returns it.
        chosen: the settings of the run.
        task: what it is trained on.
        log_metrics: told the metrics of every epoch.
        log_figures: told what a model that generates makes on the way.
        quiet: a line an epoch instead of a progress bar.
        profile_to: folder that a profile is written to.

    Returns:
        The best value of the monitored metric (of the last epoch, where that one is kept).
    """
    training = chosen.training
    steps = steps_per_epoch(training, task.train)
    watch = EpochLog(log_metrics, chosen.optimizer, training, steps, quiet)
    callbacks = [StopWhenAsked(), FailOnNaN(), *([GradientNorm()] if training.gradient_norm else []), watch]
    if training.ema is not None:
        callbacks.append(keras.callbacks.SwapEMAWeights(swap_on_epoch=True))
    pruning, first = [], 0
    if chosen.compression.sparsity:
        pruning = [compression.Prune(model, chosen.compression, steps * training.epochs)]
        first = math.ceil(chosen.compression.end * training.epochs)  # an epoch before that is not sparse enough to be kept
    best = keras.callbacks.EarlyStopping(
        monitor=training.monitor,
        patience=training.early_stopping or training.epochs,
        restore_best_weights=training.keep == "best",
        start_from_epoch=min(first, training.epochs - 1),
    )
    callbacks.append(Glance(task, log_metrics, log_figures, training))  # after the average has taken the place of the weights
    callbacks += [best, *pruning]  # what is kept in the end is pruned last
    if profile_to:
        callbacks.append(Profile(profile_to))
    history = model.fit(
        pipeline.training(task.train, training.batch_size, chosen.seed),
        validation_data=pipeline.evaluation(task.validation, training.batch_size),
        epochs=training.epochs,
        steps_per_epoch=steps,
        shuffle=False,  # the pipeline does it
        callbacks=callbacks,
        verbose=0 if quiet else "auto",
    ).history
    return float(best.best if training.keep == "best" else history[training.monitor][-1])


class FailOnNaN(keras.callbacks.Callback):
    """Ends a run whose loss is no number any more: it would never become one again."""

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def on_train_batch_end(self, batch, logs=None):
        """The loss here is the mean over the epoch up to now, so the first step that is not finite shows at once."""
        if not math.isfinite(logs["loss"]):
            raise UserError(
                f"The loss became {logs['loss']} in epoch {self.epoch + 1}, step {batch + 1}; "
                "a smaller optimizer.learning_rate, optimizer.clip_norm=1.0 or training.precision=float32 may help."
            )


class StopWhenAsked(keras.callbacks.Callback):
    """Ends a run that was asked to stop, and did not hear it."""

    def on_train_batch_end(self, batch, logs=None):
        """Looks after every step."""
        interruption.check()


class GradientNorm(keras.callbacks.Callback):
    """Adds to an epoch's metrics what an optimizer that `MeasuresGradient` has measured in it."""

    def on_epoch_begin(self, epoch, logs=None):
        if self.model.optimizer.built:
            self.model.optimizer.forget_norms()

    def on_epoch_end(self, epoch, logs=None):
        logs.update(self.model.optimizer.norms())


class Glance(keras.callbacks.Callback):
    """Shows, some times while it is trained and at the end, what a model makes.

    Args:
        task: knows what to show.
        log_metrics, log_figures: are told.
        training: how often; how long it takes.
    """

    def __init__(self, task: Task, log_metrics: LogMetrics, log_figures: LogFigures, training: settings.Training):
        super().__init__()
        self.task, self.log_metrics, self.log_figures = task, log_metrics, log_figures
        self.epochs = set(np.linspace(0, training.epochs, training.glances + 1).round().astype(int)[1:].tolist())

    def on_epoch_end(self, epoch, logs=None):
        """Shows it, in the epochs that are due."""
        if epoch + 1 not in self.epochs:
            return
        metrics, figures = self.task.glance(self.model)
        if metrics:
            self.log_metrics({f"val/{name}": value for name, value in metrics.items()}, epoch + 1)
        self.log_figures({f"epoch_{epoch + 1:04d}/{name}": figure for name, figure in figures.items()})


class EpochLog(keras.callbacks.Callback):
    """Tells the record, and the log, what every epoch brought and cost."""

    def __init__(
        self, log_metrics: LogMetrics, chosen: settings.Optimizer, training: settings.Training, steps: int, quiet: bool
    ):
        super().__init__()
        self.log_metrics, self.training, self.steps = log_metrics, training, steps
        self.level = logging.INFO if quiet else logging.DEBUG  # the progress bar has shown it already

    def on_epoch_begin(self, epoch, logs=None):
        """Starts the clock."""
        self.began = time.perf_counter()
        self.seconds = None

    def on_test_begin(self, logs=None):
        """Stops the clock: validation is no training."""
        self.seconds = time.perf_counter() - self.began

    def on_epoch_end(self, epoch, logs=None):
        """Passes on the metrics: `val_loss` as val/loss, `loss` as train/loss."""
        seconds = self.seconds or time.perf_counter() - self.began
        named = {f"val/{key[4:]}" if key.startswith("val_") else f"train/{key}": value for key, value in logs.items()}
        named["learning_rate"] = float(self.model.optimizer.learning_rate)
        named["examples_per_second"] = self.steps * self.training.batch_size / seconds
        self.log_metrics(named, epoch + 1)
        shown = "  ".join(f"{name} {value:.4g}" for name, value in named.items())
        log.log(self.level, "epoch %d/%d  %s", epoch + 1, self.training.epochs, shown)
