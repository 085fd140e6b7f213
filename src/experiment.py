"""One run, in a straight line: config → data set → task → model → fit → evaluate → report."""

import contextlib
import logging
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from src import cluster as clusters
from src import config, terminal
from src.cluster import Cluster
from src.config.schema import MultiWorker, Settings
from src.config.tasks import TASKS, GenerationSettings
from src.errors import PrunedError, UserError
from src.metrics import CI_HIGH, CI_LOW

if TYPE_CHECKING:
    import keras
    import numpy as np
    import tensorflow as tf

    from src.datasets import Data
    from src.tasks.base import Figures, Metrics, Task
    from src.tasks.reference_classifier import ReferenceClassifier
    from src.tracking.training_logger import TrainingLogger

log = logging.getLogger(__name__)

# Beginnings of names of settings that workers need not share: where they and their data are, and how the chief records the run.
NOT_SHARED = ("strategy.index", "strategy.local", "strategy.wait", "tracking.", "resume", "dataset.data_dir", "dataset.path",
              "dataset.storage")  # fmt: skip


class RunResult(NamedTuple):
    """The result of a run.

    Attributes:
        objective: the monitored validation metric, of the epoch whose weights are kept: the best one or the last one.
        metrics: test metrics ("test/accuracy", …), "parameters", "macs" and "seconds".
        run_id: MLflow's id; None as long as MLflow does not answer.
    """

    objective: float
    metrics: dict[str, float]
    run_id: str | None


def run(
    settings: Settings, log_file: str | None = None,
    sweep: dict[str, str] | None = None, report_metric: Callable[[float, int], None] | None = None,
) -> RunResult:  # fmt: skip
    """Train, test and log one model.

    Args:
        settings: the checked settings.
        log_file: path of a log file that is stored with the run.
        sweep: the sweep that this run is a job of (`JobStore.sweep`).
        report_metric: called with the monitored metric and the epoch after every epoch; may raise PrunedError.

    Raises:
        PrunedError: a search has pruned the run.
        WorkerError: another worker of a run on several machines has failed.
    """
    if isinstance(settings.strategy, MultiWorker):
        with _joined(settings, settings.strategy) as cluster:
            return _run(settings, cluster, log_file, sweep, report_metric)
    return _run(settings, None, log_file, sweep, report_metric)


@contextlib.contextmanager
def _joined(settings: Settings, strategy: MultiWorker) -> Iterator[Cluster]:
    """The cluster of a run on several machines, whose workers were started alike; the others learn how this worker ends."""
    cluster = Cluster(clusters.find(strategy), strategy.timeout)
    log.info(
        "This is worker %d of %d, counted from 0: %s.", cluster.index, cluster.size, cluster.addresses.workers[cluster.index]
    )
    if not cluster.addresses.are_local:
        log.warning(
            "TensorFlow accepts connections from any machine at the ports of the workers, without authentication: use a "
            "network that you trust."
        )
    with terminal.phase("Waiting for the other workers"):
        cluster.meet(strategy.wait)
    try:
        cluster.check_equal(_facts(settings, cluster), "the same settings and versions")
        with cluster.explain_failure():
            yield cluster
    except BaseException as error:
        cluster.finish(error)
        raise
    cluster.finish()


def _run(
    settings: Settings, cluster: Cluster | None, log_file: str | None, sweep: dict[str, str] | None,
    report_metric: Callable[[float, int], None] | None,
) -> RunResult:  # fmt: skip
    """`run`, as a worker of a cluster or alone."""
    with terminal.phase("Loading libraries", announce=False):  # takes seconds, so the settings have been checked before
        terminal.load_tensorflow()
        from src import datasets
        from src.figures import style
        from src.tasks import report
        from src.tasks.baselines import store
        from src.tracking import finished_runs, lifecycle
        from src.tracking.client import MEASUREMENT_TAG, XLA_TAG
        from src.training import checkpoint, loop, pruning, strategies
        from src.training import cost as costs

    start = time.perf_counter()
    strategy = strategies.create(settings.strategy, cluster)
    log.info("%s, %s", strategies.describe(settings.strategy), settings.training.precision)
    settings = config.with_digest(settings)
    data = datasets.load(settings.dataset)
    if cluster:
        cluster.check_equal({f"data.{name}": split.digest for name, split in data.splits.items()}, "the same data")
    loading_seconds = time.perf_counter() - start
    reference_classifier = None
    if isinstance(settings.task, GenerationSettings) and (cluster is None or cluster.is_chief):
        reference_classifier = load_reference_classifier(settings, data)
    start = time.perf_counter() - loading_seconds  # the reference classifier is a run with seconds of its own
    settings, task, model = build_model(settings, data, strategy, reference_classifier)
    learner = model
    if settings.compression.teacher:
        learner = loop.student(model, finished_runs.load_teacher(settings, task), settings, task, strategy)
    example = task.model_inputs(model, task.train.take(1)).inputs
    with terminal.phase("Counting parameters and multiply–accumulates"):
        cost: dict[str, float] = {"parameters": costs.count_parameters(model), "macs": costs.count_macs(model, example)}
    log.info(
        "%s on %s: %s parameters, %s multiply–accumulates an example",
        settings.model.name, data.source, f"{cost['parameters']:,}", f"{cost['macs']:,}",
    )  # fmt: skip

    if cluster and not cluster.is_chief:
        return _work(settings, task, learner, cluster)

    with (
        lifecycle.training_run(settings, data, log_file, sweep) as run_logger,
        cluster.reports_to(run_logger.log_worker_metrics) if cluster else contextlib.nullcontext(),
        loop.explain_out_of_memory(settings.training),
        tempfile.TemporaryDirectory() as scratch,
    ):
        run_logger.log_metrics(cost)
        run_logger.set_tags(**{XLA_TAG: str(model.jit_compile).lower()})
        if task.measurement:
            run_logger.set_tags(**{MEASUREMENT_TAG: task.measurement})
        if reference_classifier:
            run_logger.log_reference_classifier(reference_classifier)
        profile_to = f"{scratch}/profile" if settings.training.profile else None

        def log_samples(draw: Callable[[], "Figures"], epoch: int) -> None:
            run_logger.log_samples(lambda: style.label(draw(), settings.subject), epoch)

        if cluster:
            checkpoint.share_with_workers(run_logger.resumed, cluster)
        try:
            objective = loop.fit(
                learner, settings, task, run_logger.log_metrics, log_samples=log_samples,
                checkpoints=run_logger.checkpoint_manager, profile_to=profile_to, report=report_metric, cluster=cluster,
            )  # fmt: skip
        except PrunedError:
            run_logger.log_metrics({"seconds": time.perf_counter() - start + run_logger.previous_seconds})
            raise
        if cluster:
            model = loop.on_one_device(model, settings, task)
        with run_logger.survive("finalize"):  # without it, the trained weights are still worth keeping
            task.finalize(model, settings.training.batch_size)
        # First what cannot be had again; then what the run survives without.
        run_logger.log_weights(model)
        run_logger.log_texts(task.artifacts())
        with terminal.phase("Evaluating on the test set"):
            predictions = task.predict(model, task.test, settings.training.batch_size)
            test = task.metrics(task.test, predictions)
        run_logger.log_metrics(report.named_results(test))
        interval = ""
        computed = store.NONE
        ablations: dict[str, Metrics] = {}
        with run_logger.survive("predictions"):
            interval = _log_predictions(settings, task, predictions, run_logger)
        with run_logger.survive("baselines"):
            digest = store.digest_of(task, settings.task, data, settings.dataset.limit)
            computed = store.load_or_compute(task, digest, data.folder)
            run_logger.log_baselines(settings, data, computed, digest, task)
        with run_logger.survive("ablations"), terminal.phase("Evaluating the ablations"):
            ablations = task.ablations(model, settings.training.batch_size)
            run_logger.log_metrics(report.named_results(ablations=ablations))
        results = report.named_results(test, ablations, computed.metrics)
        if settings.tracking.log_figures:
            with terminal.phase("Drawing figures"):
                run_logger.log_learning_curves(settings, results, task.units)
                run_logger.log_figures(
                    lambda: style.label(task.figures(model, predictions, computed.predictions), settings.subject)
                )
        with run_logger.survive("costs"):
            run_logger.log_metrics(task.inference_costs(model))
            if settings.compression.sparsity:
                run_logger.log_metrics({"sparsity": pruning.sparsity(model)})
        if profile_to:
            with run_logger.survive("profile"):
                run_logger.log_files(profile_to, "profile")
        _log_exports(settings, task, model, run_logger, Path(scratch))

        cost["seconds"] = time.perf_counter() - start + run_logger.previous_seconds
        run_logger.log_metrics({"seconds": cost["seconds"]})
        rows = (settings.model.name, test, ablations, computed.metrics, task.units)
        with run_logger.survive("description"):
            table = "\n\n".join(filter(None, [report.results_markdown(*rows), interval]))
            run_logger.log_results(settings, data, table, results, cost, task.units)
        log.info("\n%s\n", "\n".join(filter(None, [report.results_table(*rows), interval])))
        log.info("%.0f s.", cost["seconds"])
    return RunResult(objective, report.named_results(test) | cost, run_logger.run_id)


def _work(settings: Settings, task: "Task", learner: "keras.Model", cluster: Cluster) -> RunResult:
    """Train as a worker that is not the chief, which records the run."""
    from src.tracking.system import report_system_metrics
    from src.training import checkpoint, loop

    with (
        report_system_metrics(cluster.report, settings.tracking.system_metrics_interval),
        loop.explain_out_of_memory(settings.training),
    ):
        resumed = checkpoint.share_with_workers(None, cluster)
        manager = checkpoint.CheckpointManager(Path(), resumed)  # the chief writes the files
        objective = loop.fit(learner, settings, task, lambda metrics, step: None, checkpoints=manager, cluster=cluster)
    with terminal.phase("The chief evaluates the model"):
        cluster.wait_for_chief()
    return RunResult(objective, {}, None)


def _facts(settings: Settings, cluster: Cluster) -> dict[str, str]:
    """What has to be the same for all workers."""
    from src.tracking import provenance

    same = {name: str(value) for name, value in settings.flat().items() if not name.startswith(NOT_SHARED)}
    return same | {"strategy.workers": ", ".join(cluster.addresses.workers)} | provenance.software()


def _log_predictions(settings: Settings, task: "Task", predictions: "np.ndarray", run_logger: "TrainingLogger") -> str:
    """Log the result for each test example, and what follows from these: the confidence interval of the leading metric.

    Returns:
        A sentence with the interval; empty if the metric has none.
    """
    from src import uncertainty
    from src.tasks import report
    from src.tracking.client import PREDICTIONS_FILE

    examples = task.example_results(task.test, predictions)
    run_logger.log_table(PREDICTIONS_FILE, examples)
    metric = TASKS[settings.task.name].leading_metric
    with terminal.phase("Resampling the test set"):
        interval = uncertainty.confidence_interval(metric, examples)
    if interval is None:
        return ""
    run_logger.log_metrics({f"{CI_LOW}{metric}": interval.low, f"{CI_HIGH}{metric}": interval.high})
    return report.interval_sentence(metric, interval, task.units)


def _log_exports(settings: Settings, task: "Task", model: "keras.Model", run_logger: "TrainingLogger", scratch: Path) -> None:
    """Log the model in the formats that the settings ask for: LiteRT, ONNX and MLflow's."""
    from src.export import litert, onnx

    metric = TASKS[settings.task.name].leading_metric
    if settings.compression.export:
        with run_logger.survive("export"), terminal.phase("Exporting to LiteRT"):
            litert_metrics = litert.export(model, task, settings.compression, str(scratch / "litert"))
            run_logger.log_files(str(scratch / "litert"), "litert")
            for kind, values in litert_metrics.items():
                run_logger.log_metrics({f"litert/{kind}/{name}": value for name, value in values.items()})
            log.info("\n%s", litert.table(litert_metrics, metric, settings.compression.threads))
    if settings.compression.onnx:
        with run_logger.survive("onnx"), terminal.phase("Exporting to ONNX"):
            onnx_metrics = onnx.export(model, task, scratch / "onnx")
            run_logger.log_files(str(scratch / "onnx"), "onnx")
            run_logger.log_metrics({f"onnx/{name}": value for name, value in onnx_metrics.items()})
            log.info(
                "ONNX file: %s %.4f, %s bytes; its logits differ by at most %.2g.",
                metric.replace("_", " "), onnx_metrics[metric], f"{onnx_metrics['bytes']:,}", onnx_metrics["difference"],
            )  # fmt: skip
    if settings.tracking.log_model:
        with run_logger.survive("serving"), terminal.phase("Exporting the served model"):
            run_logger.log_model(task, model, settings)


def build_model(
    settings: Settings, data: "Data", strategy: "tf.distribute.Strategy", reference_classifier: "ReferenceClassifier | None"
) -> tuple[Settings, "Task", "keras.Model"]:
    """Build the task on a data set and the compiled model, before any training.

    Args:
        settings: the checked settings.
        data: the data set.
        strategy: builds the variables of the model.
        reference_classifier: evaluates generated images; None for other tasks.

    Returns:
        The settings, which take over the tokens of a pretrained language model; the task; the model.
    """
    from src.tasks import factory
    from src.tracking import finished_runs
    from src.training import loop, strategies

    strategies.check_batch(settings.training.batch_size, strategy)
    pretrained = None
    if settings.model.pretrained:
        settings, pretrained = finished_runs.load_pretrained(settings)
    loop.prepare(settings)
    with terminal.phase(f"Encoding the examples of {data.name}"):
        task = factory.create(
            settings.task, data, settings.dataset.limit, reference_classifier=reference_classifier, pretrained=pretrained
        )
    with terminal.phase("Building the model"):
        model = loop.build(settings, task, strategy)
    if pretrained:
        loop.transfer_weights(pretrained.model, model)
    return settings, task, model


def load_reference_classifier(settings: Settings, data: "Data") -> "ReferenceClassifier":
    """The classifier that evaluates generated images, restored from a run of its own, which is made if there is none yet."""
    from src.tracking import finished_runs
    from src.tracking.outbox import file_lock

    classifier = config.reference_classifier_settings(settings)
    with file_lock(f"reference_classifier-{classifier.digest()}"):  # parallel jobs share one
        run_id = finished_runs.find_run(classifier)
        if run_id is None:
            log.info(
                "Images on %s are evaluated by a reference classifier, %s, trained first.", data.name, classifier.model.name
            )
            run_id = run(classifier).run_id
            if run_id is None:
                raise UserError(
                    "The reference classifier is trained, but MLflow does not answer; type the same again when it does."
                )
    reference_classifier = finished_runs.load_reference_classifier(run_id, data)
    accuracy = 100 * reference_classifier.accuracy
    log.info("Reference classifier: %s, run %s, test accuracy %.2f %%.", classifier.model.name, run_id, accuracy)
    return reference_classifier
