"""A sweep in MLflow: a run of its own, with its jobs below it, that goes on where it was cut short."""

import contextlib
import csv
import hashlib
import io
import logging
from collections.abc import Iterator, Sequence

from src.config import schema
from src.errors import SweepError
from src.redaction import redact
from src.sweeps import report
from src.sweeps.job_store import Job, Jobs
from src.tracking.client import FINGERPRINT_TAG, tracking_uri
from src.tracking.outbox import Outbox
from src.tracking.provenance import CODE_TAG, code_digest, command
from src.tracking.run_logger import RunLogger
from src.tracking.status import sync, track

log = logging.getLogger(__name__)

MIXED = "sweeps"  # experiment of a sweep over several data sets


@contextlib.contextmanager
def sweep(words: Sequence[str], jobs: Sequence[schema.Settings], search: schema.Search | None = None) -> Iterator[None]:
    """Jobs that run in the block belong to one sweep: a new one, or the same one typed again after it was cut short.

    Args:
        words: of the command line.
        jobs: the settings of each; of a search, what `config.Asked` says.
        search: how they are chosen, unless they are known beforehand.

    Raises:
        SweepError: a job has failed; of a search, which is content with the others, every one.
    """
    told_apart = sorted(job.fingerprint() for job in jobs) + ([search.model_dump_json(exclude={"n_jobs"})] if search else [])
    fingerprint = hashlib.blake2b("".join(told_apart).encode(), digest_size=16).hexdigest()
    number = search.n_trials if search else len(jobs)
    objectives = search.objectives if search else [jobs[0].training.monitor]
    outbox = _open(fingerprint, jobs, f"search-{number}-trials" if search else f"sweep-{number}-jobs")
    run_logger, ended = RunLogger(outbox), Jobs(outbox.folder / "jobs")

    def begin() -> None:
        outbox.reserve_space()
        if "started" in outbox.metadata:
            run_logger.resume()
        else:
            asked = dict(word.partition("=")[::2] for word in words if "=" in word)
            tags = {
                "kind": "sweep",
                "command": command(),
                CODE_TAG: code_digest(),
                FINGERPRINT_TAG: fingerprint,
                "jobs": str(number),
            }
            run_logger.start(asked, tags, {})
        outbox.update_metadata(started=True, status=None)
        ended.begin(command(), again=search is None or jobs[0].sweep.fail_fast)

    try:
        with track(run_logger, begin):
            try:
                yield
            except Exception as error:
                failures = ended.failures()
                if not failures:
                    raise
                raise SweepError(len(failures), number, failures[0]) from error
            finally:
                try:
                    _report(run_logger, ended, number, objectives)
                except Exception:  # which must not hide how the jobs have ended
                    log.exception("The results of the sweep could not be put together.")
                log.info("The sweep in MLflow: %s.", run_logger.describe())
    finally:
        sync()  # what jobs have left untold whose processes were ended with it


def _open(fingerprint: str, jobs: Sequence[schema.Settings], name: str) -> Outbox:
    uri = tracking_uri()
    for outbox in Outbox.all() if jobs[0].resume != "never" else []:
        metadata = outbox.metadata
        same = (metadata.get("fingerprint"), metadata.get("uri"), metadata.get("code")) == (fingerprint, uri, code_digest())
        if same and not metadata.get("closed") and outbox.try_lock():
            log.info("This sweep was cut short; it goes on, and what has finished is not run again.")
            return outbox
    experiments = {job.tracking.experiment for job in jobs}
    return Outbox.create(
        fingerprint=fingerprint, uri=uri, experiment=experiments.pop() if len(experiments) == 1 else MIXED,
        name=name, code=code_digest(), command=redact(command()),
    )  # fmt: skip


def _report(run_logger: RunLogger, ended: Jobs, number: int, objectives: Sequence[str]) -> None:
    """The table of results, the best job, and what each parameter does; of a search, its study as well."""
    jobs, objective = ended.all(), objectives[0]
    if ended.study.exists():
        run_logger.log_files(ended.study)
    finished = report.ranked(jobs, objective)
    run_logger.log_texts({"results.csv": _table(jobs)})
    counts = {
        "finished": len(finished), "failed": sum(job.failure is not None for job in jobs),
        "pruned": sum(job.pruned is not None for job in jobs), "all": number,
    }  # fmt: skip
    run_logger.log_metrics({f"jobs/{name}": count for name, count in counts.items()}, len(jobs))
    if not finished:
        return
    log.info("\n%s", report.table(jobs, objectives))
    best = finished[0]
    run_logger.set_tags(**{"best.run_id": str(best.run_id), "best": " ".join(f"{k}={v}" for k, v in best.overrides.items())})
    run_logger.log_metrics(
        {"best/objective": best.reached} | {f"best/{name}": v for name, v in best.metrics.items()}, len(jobs)
    )
    run_logger.log_figures(report.figures(finished, objectives))


def _table(jobs: Sequence[Job]) -> str:
    parameters = list(dict.fromkeys(name for job in jobs for name in job.overrides))
    measured = list(dict.fromkeys(name for job in jobs for name in job.metrics))
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow([*parameters, "objective", *measured, "run_id", "failure", "pruned"])
    for job in jobs:
        cells = [
            *(job.overrides.get(name) for name in parameters),
            job.objective,
            *(job.metrics.get(name) for name in measured),
        ]
        writer.writerow([*cells, job.run_id, job.failure, job.pruned])
    return file.getvalue()
