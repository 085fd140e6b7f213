"""The parent run of a sweep in MLflow, with its jobs as child runs; it resumes when the sweep is typed again."""

import contextlib
import csv
import hashlib
import io
import logging
from collections.abc import Iterator, Sequence

from matplotlib.figure import Figure

from src import config
from src.config import schema
from src.errors import SweepError
from src.figures import style
from src.redaction import redact
from src.sweeps import report
from src.sweeps.job_store import JobResult, JobStore
from src.tracking import pages
from src.tracking.client import FINGERPRINT_TAG, tracking_uri
from src.tracking.outbox import Outbox
from src.tracking.provenance import CODE_TAG, code_digest, command, is_this_command
from src.tracking.run_logger import RunLogger
from src.tracking.status import sync, track

log = logging.getLogger(__name__)

MIXED_EXPERIMENT = "sweeps"  # experiment of a sweep over several data sets


@contextlib.contextmanager
def sweep(overrides: Sequence[str], jobs: Sequence[schema.Settings], search: schema.Search | None = None) -> Iterator[None]:
    """Make the jobs that run in the block children of one sweep: a new one, or the same one after an interruption.

    Args:
        overrides: of the command line.
        jobs: the settings of each job; for a search, those that the command line was checked with.
        search: settings of the search; None for a sweep whose jobs are all combinations.

    Raises:
        SweepError: a job has failed; in a search, every job.
    """
    identity = sorted(job.fingerprint() for job in jobs) + ([search.model_dump_json(exclude={"n_jobs"})] if search else [])
    fingerprint = hashlib.blake2b("".join(identity).encode(), digest_size=16).hexdigest()
    number = search.n_trials if search else len(jobs)
    objectives = search.objectives if search else [jobs[0].training.monitor]
    outbox = _open(fingerprint, jobs, config.sweep_name("search" if search else "sweep", overrides))
    run_logger, store = RunLogger(outbox), JobStore(outbox.folder / "jobs")

    def begin() -> None:
        outbox.reserve_space()
        if "started" in outbox.metadata:
            run_logger.resume()
        else:
            parameters = dict(override.partition("=")[::2] for override in overrides if "=" in override)
            tags = {
                "kind": "sweep",
                "command": command(),
                CODE_TAG: code_digest(),
                FINGERPRINT_TAG: fingerprint,
                "jobs": str(number),
            }
            run_logger.start(parameters, tags, {})
            run_logger.describe_run(f"**{number} jobs**, running\n\n- Command: `{command()}`")
        outbox.update_metadata(started=True, status=None, jobs=number)
        store.start(command(), retry_failed=search is None or jobs[0].sweep.fail_fast)

    try:
        with track(run_logger, begin):
            try:
                yield
            except Exception as error:
                failures = store.failures()
                if not failures:
                    raise
                raise SweepError(len(failures), number, failures[0]) from error
            finally:
                try:
                    _report(run_logger, store, number, objectives, subject(jobs))
                    _register_best(run_logger, store, jobs[0].tracking.register_as, objectives[0])
                except Exception:  # must not hide how the jobs have ended
                    log.exception("The results of the sweep could not be reported.")
    finally:
        sync()  # sends what killed jobs have not sent


def _open(fingerprint: str, jobs: Sequence[schema.Settings], name: str) -> Outbox:
    uri = tracking_uri()
    for outbox in Outbox.all() if jobs[0].resume != "never" else []:
        metadata = outbox.metadata
        if metadata.get("uri") != uri or metadata.get("closed"):
            continue
        same = (metadata["fingerprint"], metadata["code"]) == (fingerprint, code_digest())
        if same and outbox.try_lock():
            log.info("This sweep was interrupted; it resumes, and jobs that have finished do not run again.")
            return outbox
        if not same and is_this_command(metadata["command"]):
            log.info(
                "An interrupted sweep of this command was started by another version of the code, so a new sweep starts. To "
                "finish the old one, type the command in that version (the tag git.commit of its jobs)."
            )
    experiments = {job.tracking.experiment for job in jobs}
    return Outbox.create(
        fingerprint=fingerprint, uri=uri, experiment=experiments.pop() if len(experiments) == 1 else MIXED_EXPERIMENT,
        name=name, code=code_digest(), command=redact(command()),
    )  # fmt: skip


def subject(jobs: Sequence[schema.Settings]) -> str:
    """Which jobs a figure is of: "cnn, lstm on digits, seeds 0, 1, 2"."""
    models, datasets, seeds = (
        list(dict.fromkeys(map(str, values))) for values in zip(*((job.model.name, job.dataset.name, job.seed) for job in jobs))
    )
    return f"{', '.join(models)} on {', '.join(datasets)}, seed{'s' * (len(seeds) > 1)} {', '.join(seeds)}"


def _report(run_logger: RunLogger, store: JobStore, number: int, objectives: Sequence[str], subject: str) -> None:
    """Log the results, the best job, and figures of what each parameter does; of a search its study, too.

    Args:
        run_logger: logs to the run of the sweep.
        store: of the sweep.
        number: of all jobs.
        objectives: the monitored metric, and what else a search optimizes.
        subject: of the figures.
    """
    results, objective = store.all(), objectives[0]
    if store.study_path.exists():
        run_logger.log_files(store.study_path)
    finished = [result for result in results if result.objective is not None]
    run_logger.log_texts({"results.csv": _results_csv(results)})
    counts = {
        "finished": len(finished), "failed": sum(result.failure is not None for result in results),
        "pruned": sum(result.pruned is not None for result in results), "all": number,
    }  # fmt: skip
    run_logger.log_metrics({f"sweep/jobs/{name}": count for name, count in counts.items()}, len(results))
    labels, groups = report.labels(results), report.by_data_and_task(finished)
    shown = [
        pages.figure("effects of the settings", f"figures/{labels[name]}{report.EFFECTS}")
        for name, jobs in groups.items()
        if report.parameters(jobs)
    ]
    run_logger.describe_run("\n\n".join([report.description(results, objectives, number, command()), *shown]))
    if not finished:
        return
    log.info("\n%s", report.table(results, objectives))
    for name, jobs in groups.items():
        label, best = labels[name], report.ranked(jobs, objective)[0]
        overrides = " ".join(f"{key}={value}" for key, value in best.overrides.items())
        run_logger.set_tags(**{f"{label}best.run_id": str(best.run_id), f"{label}best": overrides})
        values = {"objective": best.final_objective, **best.metrics}
        run_logger.log_metrics({f"sweep/best/{label}{key}": value for key, value in values.items()}, len(results))

    def draw() -> dict[str, Figure | str]:
        drawn = {name: report.figures(jobs, objectives) for name, jobs in groups.items()}
        figures = {f"{labels[name]}{file}": figure for name, several in drawn.items() for file, figure in several.items()}
        return style.label(figures, subject)

    run_logger.log_figures(draw)


def _register_best(run_logger: RunLogger, store: JobStore, name: str | None, objective: str) -> None:
    """Register the model of the best job under a name; None: do not."""
    results = store.all()
    best = report.ranked(results, objective)[:1]
    if name is None or not best:
        return
    groups = report.by_data_and_task(results)
    if len(groups) > 1:
        log.warning(
            "No model is registered as %s: the sweep has jobs on %s, which cannot be compared. Register the best of one with a "
            "sweep over that one alone.", name, "; ".join(groups),
        )  # fmt: skip
        return
    if best[0].run_id is None:
        log.warning("The best model is not registered as %s, since MLflow does not answer.", name)
    else:
        run_logger.register_model(name, best[0].run_id)


def _results_csv(results: Sequence[JobResult]) -> str:
    """A line for each job: its overrides, its metrics, and why it failed or was pruned."""
    parameters = list(dict.fromkeys(name for result in results for name in result.overrides))
    metrics = list(dict.fromkeys(name for result in results for name in result.metrics))
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow([*parameters, "objective", *metrics, "run_id", "failure", "pruned"])
    for result in results:
        cells = [
            *(result.overrides.get(name) for name in parameters),
            result.objective,
            *(result.metrics.get(name) for name in metrics),
        ]
        writer.writerow([*cells, result.run_id, result.failure, result.pruned])
    return file.getvalue()
