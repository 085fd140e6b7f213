"""One run, in a straight line: config → data set → task → model → fit → evaluate → report."""

import logging
import tempfile
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from src import config, terminal
from src.config.schema import Generated, Settings
from src.errors import PrunedError, UserError

if TYPE_CHECKING:
    import keras
    import tensorflow as tf

    from src.datasets import Data
    from src.tasks.base import Task
    from src.tasks.reference_classifier import ReferenceClassifier

log = logging.getLogger(__name__)


class Outcome(NamedTuple):
    """What a run has come to.

    Attributes:
        objective: the monitored validation metric: of the best epoch, or of the last one if that is kept.
        metrics: of the test part, and what the run has cost.
        run_id: MLflow's; None as long as MLflow does not answer.
    """

    objective: float
    metrics: dict[str, float]
    run_id: str | None


def run(
    chosen: Settings, log_file: str | None = None, quiet: bool = False,
    sweep: dict[str, str] | None = None, report_metric: Callable[[float, int], None] | None = None,
) -> Outcome:  # fmt: skip
    """Config → data set → task → model → fit → evaluate → report; every stage is told to the record.

    Args:
        chosen: the checked settings.
        log_file: a log that is kept with the run.
        quiet: lines instead of a progress bar.
        sweep: what it is a job of (`Jobs.sweep`).
        report_metric: is told the monitored metric after every epoch, and may give the run up.

    Raises:
        PrunedError: the search has given it up.
    """
    terminal.load_tensorflow()  # takes seconds, so it comes after a mistake in the settings would have been answered
    from src import datasets
    from src.export import litert
    from src.tasks import report
    from src.tracking import finished_runs, lifecycle
    from src.training import cost as costs
    from src.training import loop, pruning, strategies

    began = time.perf_counter()
    strategy = strategies.create(chosen.strategy)
    log.info("%s, %s", strategies.describe(chosen.strategy, strategy), chosen.training.precision)
    data = datasets.load(chosen.dataset)
    loaded = time.perf_counter() - began
    judge = _judge(chosen, data) if isinstance(chosen.task, Generated) else None
    began = time.perf_counter() - loaded  # the judge is a run of its own, with seconds of its own
    chosen, task, model = assemble(chosen, data, strategy, judge)
    learner = model
    if chosen.compression.teacher:
        learner = loop.student(model, finished_runs.load_teacher(chosen, task), chosen, task, strategy)
    example = task.model_inputs(model, task.train.take(1)).inputs
    cost = {"parameters": costs.count_parameters(model), "macs": costs.count_macs(model, example)}
    log.info(
        "%s on %s: %s parameters, %s multiply–accumulates an example",
        chosen.model.name, data.source, f"{cost['parameters']:,}", f"{cost['macs']:,}",
    )  # fmt: skip

    with (
        lifecycle.training_run(chosen, data, log_file, sweep) as run_logger,
        loop.explain_out_of_memory(chosen.training),
        tempfile.TemporaryDirectory() as scratch,
    ):
        run_logger.log_metrics(cost)
        if judge:
            run_logger.log_reference_classifier(judge)
        profile_to = f"{scratch}/profile" if chosen.training.profile else None
        try:
            objective = loop.fit(
                learner, chosen, task, run_logger.log_metrics, log_figures=run_logger.log_figures,
                checkpoints=run_logger.checkpoint_manager, quiet=quiet, profile_to=profile_to, report=report_metric,
            )  # fmt: skip
        except PrunedError:
            run_logger.log_metrics({"seconds": time.perf_counter() - began + run_logger.previous_seconds})
            raise
        if profile_to:
            run_logger.log_files(profile_to, "profile")

        predictions = task.predict(model, task.test, chosen.training.batch_size)
        test, baselines = task.metrics(task.test, predictions), task.baselines()
        ablations = task.ablations(model, chosen.training.batch_size)
        run_logger.log_metrics({f"test/{name}": value for name, value in test.items()})
        for kind, others in (("baseline", baselines), ("ablation", ablations)):
            for other, values in others.items():
                run_logger.log_metrics({f"{kind}/{other}/{name}": value for name, value in values.items()})
        run_logger.log_figures(task.figures(model, predictions))
        run_logger.log_metrics(task.inference_costs(model))
        if chosen.compression.sparsity:
            run_logger.log_metrics({"sparsity": pruning.sparsity(model)})
        if chosen.compression.export:
            measured = litert.export(model, task, chosen.compression, f"{scratch}/litert")
            run_logger.log_files(f"{scratch}/litert", "litert")
            for kind, values in measured.items():
                run_logger.log_metrics({f"litert/{kind}/{name}": value for name, value in values.items()})
            log.info("\n%s", litert.table(measured, chosen.compression.threads))
        run_logger.log_weights(model)
        run_logger.log_texts(task.artifacts())
        if chosen.tracking.log_model:
            run_logger.log_model(task, model, task.test.take(2).raw, data.classes)

        seconds = time.perf_counter() - began + run_logger.previous_seconds
        run_logger.log_metrics({"seconds": seconds})
        log.info("\n%s\n", report.results_table(chosen.model.name, test, ablations, baselines, task.units))
        log.info("%.0f s. In MLflow: %s. To look at it: mlflow ui", seconds, run_logger.describe())
    metrics = {f"test/{name}": value for name, value in test.items()} | {"seconds": seconds, **cost}
    return Outcome(objective, metrics, run_logger.run_id)


def assemble(
    chosen: Settings, data: "Data", strategy: "tf.distribute.Strategy", judge: "ReferenceClassifier | None"
) -> tuple[Settings, "Task", "keras.Model"]:
    """The task on a data set and the compiled model, before any training; and the settings, with what a language model brings.

    Args:
        chosen: the checked settings.
        data: the data set (`datasets.Data`).
        strategy: the strategy.
        judge: of generated images (`tasks.reference_classifier`).
    """
    from src.tasks import registry
    from src.tracking import finished_runs
    from src.training import loop, strategies

    strategies.check_batch(chosen.training.batch_size, strategy)
    pretrained = None
    if chosen.model.pretrained:
        chosen, pretrained = finished_runs.load_pretrained(chosen)
    loop.prepare(chosen)
    task = registry.create(chosen.task, data, chosen.dataset.limit, reference_classifier=judge, pretrained=pretrained)
    model = loop.build(chosen, task, strategy)
    if pretrained:
        loop.transfer_weights(pretrained.model, model)
    return chosen, task, model


def _judge(chosen: Settings, data: "Data") -> "ReferenceClassifier":
    """The classifier that judges generated images: that of a run of its own, which is made if there is none yet."""
    from src.tracking import finished_runs
    from src.tracking.outbox import file_lock

    wanted = config.judge(chosen)
    with file_lock(f"judge-{wanted.digest()}"):  # jobs side by side share one
        found = finished_runs.find_run(wanted)
        if found is None:
            log.info("What is generated on %s will be judged by %s, which is trained first.", data.name, wanted.model.name)
            found = run(wanted, quiet=True).run_id
            if found is None:
                raise UserError("The judge is trained, but MLflow does not answer; type the same again when it does.")
    judge = finished_runs.load_reference_classifier(found, data)
    log.info("Judge: %s of run %s, %.2f %% of the test images right.", wanted.model.name, found, 100 * judge.accuracy)
    return judge
