"""A job of a sweep, in whatever process it runs."""

import logging
import math
from collections.abc import Callable

from hydra.conf import HydraConf

from src import config, experiment, signals, terminal
from src.config.schema import Search, Settings, side_by_side
from src.errors import PrunedError, UserError
from src.sweeps.job_store import Job, Jobs
from src.training import gpu

log = logging.getLogger(__name__)


def in_a_process_of_its_own(chosen: Settings, log_file: str, hydra_config: HydraConf) -> float:
    """A job that runs beside others."""
    signals.install_handlers()
    terminal.begin_lines_with(f"#{hydra_config.job.num}  ")
    gpu.assign_gpu(Jobs.joined().folder, side_by_side(hydra_config.launcher))
    try:
        signals.raise_if_requested()  # while an earlier job ran in this process
        return job_of_a_sweep(chosen, log_file, hydra_config)
    except KeyboardInterrupt:
        raise UserError("Stopped.") from None  # the interruption of a process would be the end of the others


def job_of_a_sweep(chosen: Settings, log_file: str, hydra_config: HydraConf) -> float:
    """Unless it has finished before. What becomes of it is noted for the sweep; Hydra runs the other jobs whatever that is."""
    jobs, fingerprint = Jobs.joined(), chosen.fingerprint()
    asked = dict(override.partition("=")[::2] for override in hydra_config.overrides.task)
    with jobs.alone(fingerprint):
        if (known := jobs.finished(fingerprint)) is not None:
            log.info("Has finished before: run %s.", known.run_id)
            return math.nan if known.objective is None else known.objective
        if chosen.sweep.fail_fast and jobs.failed():
            raise UserError("Not begun, since another job has failed and sweep.fail_fast=true.")
        report = _report_to_the_search(chosen, jobs, asked, hydra_config)
        try:
            done = experiment.run(chosen, log_file, quiet=True, sweep=jobs.sweep, report_metric=report)
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


def _report_to_the_search(
    chosen: Settings, jobs: Jobs, asked: dict[str, str], hydra_config: HydraConf
) -> Callable[[float, int], None] | None:
    """What a job tells to the search that it is a job of (`Trial.report`)."""
    if hydra_config.sweeper._target_ != config.SEARCH:
        return None
    from src.sweeps.optuna_sweeper import Trial  # takes long to load

    search = Search.of(config.plain(hydra_config, resolve=False), chosen.training.monitor)
    trial = Trial.current(search, jobs, asked, chosen.training.monitor)
    return trial.report if trial else None
