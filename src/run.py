"""One run: `python -m src.run model=lstm`. Add -m to run several: `python -m src.run -m model=cnn,lstm`."""

import contextlib
import logging
import math
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

import hydra
from hydra.conf import HydraConf
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from src import config, interruption, startup
from src.errors import PrunedError, UserError
from src.journal import one_at_a_time
from src.settings import Generated, Search, Settings, side_by_side
from src.sweeping import gpu
from src.sweeping.jobs import Job, Jobs

if TYPE_CHECKING:
    import keras
    import tensorflow as tf

    from src.datasets import Data
    from src.sweeping.search import Trial
    from src.tasks import Judge, Task

log = logging.getLogger(__name__)


def main() -> None:
    """The command line: checks it, runs what it asks for, and answers a mistake in one sentence."""
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # hands exceptions on to here instead of printing and exiting
    interruption.listen()
    logging.raiseExceptions = False  # a full disk would show a traceback for every line of the log
    try:
        asked = config.check(sys.argv[1:])
        with _sweep(asked) if asked.multirun else contextlib.nullcontext():
            sys.argv[1:] = asked.arguments
            job()
    except UserError as error:
        sys.exit(_stop(str(error), 2))
    except KeyboardInterrupt:
        sys.exit(_stop("Stopped. What was logged up to now is kept, and the run is marked KILLED.", 130))


def _stop(sentence: str, status: int) -> int:
    print(sentence, file=sys.stderr)
    return status


@hydra.main(version_base="1.3", config_path=str(config.CONF), config_name="config")
def job(composed: DictConfig) -> float:
    """One job of Hydra's. Returns the monitored validation metric, for sweepers to improve."""
    hydra_config = HydraConfig.get()
    chosen, log_file = config.checked(composed), f"{hydra_config.runtime.output_dir}/run.log"
    if hydra_config.mode == RunMode.MULTIRUN:
        if hydra_config.launcher._target_ == config.ONE_BY_ONE:
            return _job_of_a_sweep(chosen, log_file, hydra_config)
        return _in_a_process_of_its_own(chosen, log_file, hydra_config)
    try:
        return run(chosen, log_file, quiet=not sys.stdout.isatty()).objective
    except UserError as error:
        sys.exit(_stop(str(error), 2))


@contextlib.contextmanager
def _sweep(asked: config.Asked) -> Iterator[None]:
    from src.sweeping import plugins
    from src.tracking import sweep

    startup.log_to_terminal()  # until Hydra does
    plugins.register()
    if asked.launcher != config.ONE_BY_ONE:
        _prepare_data(asked.jobs)
    with sweep.sweep(asked.words, asked.jobs, asked.search):
        try:
            with interruption.left_to_others() if asked.launcher == config.JOBLIB else contextlib.nullcontext():
                yield
        finally:
            interruption.check()  # jobs in other processes have been told so too, and say that they have failed


def _prepare_data(jobs: Sequence[Settings]) -> None:
    """Once, before jobs that run side by side want it. What is wrong with a data set its job will say."""
    startup.load_tensorflow()
    from src import datasets

    for chosen in {job.dataset for job in jobs}:
        with contextlib.suppress(UserError):
            datasets.prepare(chosen)


def _in_a_process_of_its_own(chosen: Settings, log_file: str, hydra_config: HydraConf) -> float:
    """A job that runs beside others."""
    interruption.listen()
    startup.begin_lines_with(f"#{hydra_config.job.num}  ")
    gpu.take(Jobs.joined().folder, side_by_side(hydra_config.launcher))
    try:
        interruption.check()  # while an earlier job ran in this process
        return _job_of_a_sweep(chosen, log_file, hydra_config)
    except KeyboardInterrupt:
        raise UserError("Stopped.") from None  # the interruption of a process would be the end of the others


def _job_of_a_sweep(chosen: Settings, log_file: str, hydra_config: HydraConf) -> float:
    """Unless it has finished before. What becomes of it is noted for the sweep; Hydra runs the other jobs whatever that is."""
    jobs, fingerprint = Jobs.joined(), chosen.fingerprint()
    asked = dict(override.partition("=")[::2] for override in hydra_config.overrides.task)
    with jobs.alone(fingerprint):
        if (known := jobs.finished(fingerprint)) is not None:
            log.info("Has finished before: run %s.", known.run_id)
            return math.nan if known.objective is None else known.objective
        if chosen.sweep.fail_fast and jobs.failed():
            raise UserError("Not begun, since another job has failed and sweep.fail_fast=true.")
        trial = _trial(chosen, jobs, asked, hydra_config)
        try:
            done = run(chosen, log_file, quiet=True, sweep=jobs.sweep, trial=trial)
        except PrunedError as error:
            log.info("%s", error)
            jobs.ended(fingerprint, Job(asked, None, {}, None, pruned=str(error)))
            return math.nan
        except Exception as error:
            log.error("%s", error, exc_info=not isinstance(error, UserError))
            jobs.ended(fingerprint, Job(asked, None, {}, None, " ".join(f"{type(error).__name__}: {error}".split())[:500]))
            raise
        jobs.ended(fingerprint, Job(asked, done.objective, done.metrics, done.run_id))
    return done.objective


def _trial(chosen: Settings, jobs: Jobs, asked: dict[str, str], hydra_config: HydraConf) -> "Trial | None":
    """What a job is to the search (`search.Trial`), if it is a job of one."""
    if hydra_config.sweeper._target_ != config.SEARCH:
        return None
    from src.sweeping.search import Trial

    search = Search.of(config.plain(hydra_config, resolve=False), chosen.training.monitor)
    return Trial.current(search, jobs, asked, chosen.training.monitor)


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
    sweep: dict[str, str] | None = None, trial: "Trial | None" = None,
) -> Outcome:  # fmt: skip
    """Config → data set → task → model → fit → evaluate → report; every stage is told to the record.

    Args:
        chosen: the checked settings.
        log_file: a log that is kept with the run.
        quiet: lines instead of a progress bar.
        sweep: what it is a job of (`Jobs.sweep`).
        trial: what it is to a search (`search.Trial`), which may give it up.

    Raises:
        PrunedError: the search has given it up.
    """
    startup.load_tensorflow()  # takes seconds, so it comes after a mistake in the settings would have been answered
    from src import complexity, compression, datasets, earlier, report, strategies, training
    from src.tracking import lifecycle

    began = time.perf_counter()
    strategy = strategies.create(chosen.strategy)
    log.info("%s, %s", strategies.described(chosen.strategy, strategy), chosen.training.precision)
    data = datasets.load(chosen.dataset)
    loaded = time.perf_counter() - began
    judge = _judge(chosen, data) if isinstance(chosen.task, Generated) else None
    began = time.perf_counter() - loaded  # the judge is a run of its own, with seconds of its own
    chosen, task, model = assemble(chosen, data, strategy, judge)
    learner = model
    if chosen.compression.teacher:
        learner = training.pupil(model, earlier.teacher(chosen, task), chosen, task, strategy)
    cost = {"parameters": complexity.parameters(model), "macs": complexity.macs(model, task.train.first(1).inputs)}
    log.info(
        "%s on %s: %s parameters, %s multiply–accumulates an example",
        chosen.model.name, data.source, f"{cost['parameters']:,}", f"{cost['macs']:,}",
    )  # fmt: skip

    with (
        lifecycle.run(chosen, data, log_file, sweep) as record,
        training.enough_memory(chosen.training),
        tempfile.TemporaryDirectory() as scratch,
    ):
        record.metrics(cost)
        if judge:
            record.judge(judge)
        profile_to = f"{scratch}/profile" if chosen.training.profile else None
        try:
            objective = training.fit(
                learner, chosen, task, record.metrics, log_figures=record.figures, keeper=record.keeper,
                quiet=quiet, profile_to=profile_to, report=trial.report if trial else None,
            )  # fmt: skip
        except PrunedError:
            record.metrics({"seconds": time.perf_counter() - began + record.spent})
            raise
        if profile_to:
            record.files(profile_to, "profile")

        predictions = task.predict(model, task.test, chosen.training.batch_size)
        test, baselines = task.metrics(task.test, predictions), task.baselines()
        ablations = task.ablations(model, chosen.training.batch_size)
        record.metrics({f"test/{name}": value for name, value in test.items()})
        for kind, others in (("baseline", baselines), ("ablation", ablations)):
            for other, values in others.items():
                record.metrics({f"{kind}/{other}/{name}": value for name, value in values.items()})
        record.figures(task.figures(model, predictions))
        record.metrics(task.costs(model))
        if chosen.compression.sparsity:
            record.metrics({"sparsity": compression.sparsity(model)})
        if chosen.compression.export:
            measured = compression.export(model, task, chosen.compression, f"{scratch}/litert")
            record.files(f"{scratch}/litert", "litert")
            for kind, values in measured.items():
                record.metrics({f"litert/{kind}/{name}": value for name, value in values.items()})
            log.info("\n%s", report.files(measured, chosen.compression.threads))
        record.weights(model)
        record.texts(task.artifacts())
        if chosen.tracking.log_model:
            record.model(task, model, task.test.first(2).raw, data.classes)

        seconds = time.perf_counter() - began + record.spent
        record.metrics({"seconds": seconds})
        log.info("\n%s\n", report.table(chosen.model.name, test, ablations, baselines, task.units))
        log.info("%.0f s. In MLflow: %s. To look at it: mlflow ui", seconds, record.where())
    metrics = {f"test/{name}": value for name, value in test.items()} | {"seconds": seconds, **cost}
    return Outcome(objective, metrics, record.run_id)


def assemble(
    chosen: Settings, data: "Data", strategy: "tf.distribute.Strategy", judge: "Judge | None"
) -> tuple[Settings, "Task", "keras.Model"]:
    """The task on a data set and the compiled model, before any training; and the settings, with what a language model brings.

    Args:
        chosen: the checked settings.
        data: the data set (`datasets.Data`).
        strategy: the strategy.
        judge: of generated images (`tasks.Judge`).
    """
    from src import earlier, strategies, tasks, training

    strategies.check_batch(chosen.training.batch_size, strategy)
    pretrained = None
    if chosen.model.pretrained:
        chosen, pretrained = earlier.pretrained(chosen)
    training.prepare(chosen)
    task = tasks.create(chosen.task, data, chosen.dataset.limit, judge=judge, pretrained=pretrained)
    model = training.build(chosen, task, strategy)
    if pretrained:
        training.transfer(pretrained.model, model)
    return chosen, task, model


def _judge(chosen: Settings, data: "Data") -> "Judge":
    """The classifier that judges generated images: that of a run of its own, which is made if there is none yet."""
    from src import earlier
    from src.tracking.stored import same

    wanted = config.judge(chosen)
    with one_at_a_time(f"judge-{wanted.digest()}"):  # jobs side by side share one
        found = same(wanted)
        if found is None:
            log.info("What is generated on %s will be judged by %s, which is trained first.", data.name, wanted.model.name)
            found = run(wanted, quiet=True).run_id
            if found is None:
                raise UserError("The judge is trained, but MLflow does not answer; type the same again when it does.")
    judge = earlier.judge(found, data)
    log.info("Judge: %s of run %s, %.2f %% of the test images right.", wanted.model.name, found, 100 * judge.accuracy)
    return judge


if __name__ == "__main__":
    from src import run as importable  # jobs in other processes find it by this name, and not as __main__

    importable.main()
