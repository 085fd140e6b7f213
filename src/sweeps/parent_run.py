"""The parent run of a sweep in MLflow, with its jobs as child runs; it resumes when the sweep is typed again."""

import contextlib
import csv
import hashlib
import io
import logging
from collections.abc import Iterator, Sequence

from src.config import schema
from src.errors import SweepError
from src.redaction import redacted
from src.sweeps import report
from src.sweeps.job_store import JobResult, JobStore
from src.tracking.client import FINGERPRINT, address
from src.tracking.outbox import Journal
from src.tracking.provenance import CODE, code, command
from src.tracking.run_logger import Account
from src.tracking.status import settle, told

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
    identity = sorted(job.fingerprint() for job in jobs) + ([search.model_dump_json(exclude={"jobs"})] if search else [])
    fingerprint = hashlib.blake2b("".join(identity).encode(), digest_size=16).hexdigest()
    number = search.trials if search else len(jobs)
    objectives = search.objectives if search else [jobs[0].training.monitor]
    journal = _open(fingerprint, jobs, f"search-{number}-trials" if search else f"sweep-{number}-jobs")
    account, store = Account(journal), JobStore(journal.folder / "jobs")

    def begin() -> None:
        journal.reserve()
        if "begun" in journal.facts:
            account.again()
        else:
            parameters = dict(override.partition("=")[::2] for override in overrides if "=" in override)
            tags = {"kind": "sweep", "command": command(), CODE: code(), FINGERPRINT: fingerprint, "jobs": str(number)}
            account.begin(parameters, tags, {})
        journal.know(begun=True, status=None)
        store.start(command(), retry_failed=search is None or jobs[0].sweep.fail_fast)

    try:
        with told(account, begin):
            try:
                yield
            except Exception as error:
                failures = store.failures()
                if not failures:
                    raise
                raise SweepError(len(failures), number, failures[0]) from error
            finally:
                try:
                    _report(account, store, number, objectives)
                except Exception:  # must not hide how the jobs have ended
                    log.exception("The results of the sweep could not be reported.")
                log.info("The sweep in MLflow: %s.", account.where())
    finally:
        settle()  # sends what killed jobs have not sent


def _open(fingerprint: str, jobs: Sequence[schema.Settings], name: str) -> Journal:
    uri = address()
    for journal in Journal.all() if jobs[0].resume != "never" else []:
        facts = journal.facts
        same = (facts.get("fingerprint"), facts.get("uri"), facts.get("code")) == (fingerprint, uri, code())
        if same and not facts.get("over") and journal.claim():
            log.info("This sweep was interrupted; it resumes, and jobs that have finished do not run again.")
            return journal
    experiments = {job.tracking.experiment for job in jobs}
    return Journal.new(
        fingerprint=fingerprint, uri=uri, experiment=experiments.pop() if len(experiments) == 1 else MIXED_EXPERIMENT,
        name=name, code=code(), command=redacted(command()),
    )  # fmt: skip


def _report(account: Account, store: JobStore, number: int, objectives: Sequence[str]) -> None:
    """Log the results, the best job, and figures of what each parameter does; of a search its study, too.

    Args:
        account: logs to the run of the sweep.
        store: of the sweep.
        number: of all jobs.
        objectives: the monitored metric, and what else a search optimizes.
    """
    results, objective = store.all(), objectives[0]
    if store.study_path.exists():
        account.files(store.study_path)
    finished = report.ranked(results, objective)
    account.texts({"results.csv": _results_csv(results)})
    counts = {
        "finished": len(finished), "failed": sum(result.failure is not None for result in results),
        "pruned": sum(result.pruned is not None for result in results), "all": number,
    }  # fmt: skip
    account.metrics({f"jobs/{name}": count for name, count in counts.items()}, len(results))
    if not finished:
        return
    log.info("\n%s", report.table(results, objectives))
    best = finished[0]
    account.tags(**{"best.run_id": str(best.run_id), "best": " ".join(f"{k}={v}" for k, v in best.overrides.items())})
    account.metrics(
        {"best/objective": best.final_objective} | {f"best/{name}": v for name, v in best.metrics.items()}, len(results)
    )
    account.figures(report.figures(finished, objectives))


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
