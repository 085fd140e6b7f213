"""Runs a job of a sweep, in whatever process."""

import contextlib
import logging
import math
from collections.abc import Callable

from hydra.conf import HydraConf

from src import cluster, config, experiment, signals, terminal
from src.config.schema import MultiWorker, Search, Settings, parallel_jobs
from src.config.tasks import TASKS
from src.errors import PrunedError, UserError, WorkerError
from src.sweeps.job_store import JobResult, JobStore
from src.training import gpu

log = logging.getLogger(__name__)


def run_worker_job(settings: Settings, log_file: str, hydra_config: HydraConf) -> float:
    """Run a job in a worker process, in parallel with others; as `run_sweep_job`."""
    signals.install_handlers()
    store = JobStore.require_current()
    gpu.assign_gpu(store.folder, parallel_jobs(hydra_config.launcher))
    index = cluster.find(settings.strategy).index if isinstance(settings.strategy, MultiWorker) else 0
    if index:
        _leave_log_file_to_chief()
    with terminal.prefix_lines(f"[{hydra_config.job.num + 1}/{store.number}{f', worker {index}' if index else ''}]  "):
        try:
            signals.raise_if_requested()  # one may have come while an earlier job ran in this process
            return run_sweep_job(settings, log_file, hydra_config, is_chief=index == 0)
        except KeyboardInterrupt:
            raise UserError("Stopped.") from None  # the launcher would stop the other jobs at a KeyboardInterrupt


def run_sweep_job(settings: Settings, log_file: str, hydra_config: HydraConf, is_chief: bool = True) -> float:
    """Run a job of a sweep, unless it has finished before, and store its result.

    Args:
        settings: of the job.
        log_file: path of a log file that is stored with the run.
        hydra_config: Hydra's own configuration of the job.
        is_chief: False: this process is another worker of the job, which leaves its lock and its result to the chief.

    Returns:
        The monitored metric; nan if the job was pruned.
    """
    settings = config.with_digest(settings)
    store, fingerprint = JobStore.require_current(), settings.fingerprint()
    overrides = dict(override.partition("=")[::2] for override in hydra_config.overrides.task)
    job = f"Job {hydra_config.job.num + 1} of {store.number}"
    log.info("%s: %s", job, " ".join(hydra_config.overrides.task))
    with terminal.phase(job, announce=False), store.lock(fingerprint) if is_chief else contextlib.nullcontext():
        if (finished := store.finished(fingerprint)) is not None:
            log.info("Has finished before: run %s.", finished.run_id)
            return math.nan if finished.objective is None else finished.objective
        if settings.sweep.fail_fast and store.failed():
            raise UserError("Not started, since another job has failed and sweep.fail_fast=true.")
        if not is_chief:
            return _follow(settings)
        compared_within = f"{settings.dataset.name}, {TASKS[settings.task.name].title}"
        report_metric = _metric_reporter(settings, store, overrides, hydra_config)
        try:
            result = experiment.run(settings, log_file, sweep=store.sweep, report_metric=report_metric)
        except PrunedError as error:
            log.info("%s", error)
            store.save(fingerprint, JobResult(overrides, None, {}, None, None, str(error), compared_within))
            return math.nan
        except Exception as error:
            log.error("%s", error, exc_info=not isinstance(error, UserError))
            failure = " ".join(f"{type(error).__name__}: {error}".split())[:500]
            store.save(fingerprint, JobResult(overrides, None, {}, None, failure, None, compared_within))
            raise
        outcome = overrides, result.objective, result.metrics, result.run_id
        store.save(fingerprint, JobResult(*outcome, compared_within=compared_within))
    return result.objective


def _leave_log_file_to_chief() -> None:
    """The tasks of a job have one folder, and Hydra opens its log in each."""
    root = logging.getLogger()
    for handler in [handler for handler in root.handlers if isinstance(handler, logging.FileHandler)]:
        root.removeHandler(handler)
        handler.close()


def _follow(settings: Settings) -> float:
    """Run a job as a worker that is not the chief, which says how the job has ended, also if it has failed or was pruned."""
    try:
        return experiment.run(settings).objective
    except WorkerError as error:
        log.error("%s", error)
        return math.nan


def _metric_reporter(
    settings: Settings, store: JobStore, overrides: dict[str, str], hydra_config: HydraConf
) -> Callable[[float, int], None] | None:
    """What reports the monitored metric after each epoch to the search that the job belongs to; None if to none."""
    if hydra_config.runtime.choices[config.SWEEPER] != "optuna":
        return None
    from src.sweeps.optuna_sweeper import TrialReporter  # takes long to load

    search = Search.from_hydra(config.to_dict(hydra_config, resolve=False), settings.training.monitor)
    reporter = TrialReporter.current(search, store, overrides, settings.training.monitor)
    return reporter.report if reporter else None
