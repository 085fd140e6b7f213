"""A sweep in MLflow: a run of its own, with its jobs below it, that goes on where it was cut short."""

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
from src.sweeps.job_store import Job, Jobs
from src.tracking.client import FINGERPRINT, address
from src.tracking.outbox import Journal
from src.tracking.provenance import CODE, code, command
from src.tracking.run_logger import Account
from src.tracking.status import settle, told

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
    journal = _open(fingerprint, jobs, f"search-{number}-trials" if search else f"sweep-{number}-jobs")
    account, ended = Account(journal), Jobs(journal.folder / "jobs")

    def begin() -> None:
        journal.reserve()
        if "begun" in journal.facts:
            account.again()
        else:
            asked = dict(word.partition("=")[::2] for word in words if "=" in word)
            tags = {"kind": "sweep", "command": command(), CODE: code(), FINGERPRINT: fingerprint, "jobs": str(number)}
            account.begin(asked, tags, {})
        journal.know(begun=True, status=None)
        ended.begin(command(), again=search is None or jobs[0].sweep.fail_fast)

    try:
        with told(account, begin):
            try:
                yield
            except Exception as error:
                failures = ended.failures()
                if not failures:
                    raise
                raise SweepError(len(failures), number, failures[0]) from error
            finally:
                try:
                    _report(account, ended, number, objectives)
                except Exception:  # which must not hide how the jobs have ended
                    log.exception("The results of the sweep could not be put together.")
                log.info("The sweep in MLflow: %s.", account.where())
    finally:
        settle()  # what jobs have left untold whose processes were ended with it


def _open(fingerprint: str, jobs: Sequence[schema.Settings], name: str) -> Journal:
    uri = address()
    for journal in Journal.all() if jobs[0].resume != "never" else []:
        facts = journal.facts
        same = (facts.get("fingerprint"), facts.get("uri"), facts.get("code")) == (fingerprint, uri, code())
        if same and not facts.get("over") and journal.claim():
            log.info("This sweep was cut short; it goes on, and what has finished is not run again.")
            return journal
    experiments = {job.tracking.experiment for job in jobs}
    return Journal.new(
        fingerprint=fingerprint, uri=uri, experiment=experiments.pop() if len(experiments) == 1 else MIXED,
        name=name, code=code(), command=redacted(command()),
    )  # fmt: skip


def _report(account: Account, ended: Jobs, number: int, objectives: Sequence[str]) -> None:
    """The table of results, the best job, and what each parameter does; of a search, its study as well."""
    jobs, objective = ended.all(), objectives[0]
    if ended.study.exists():
        account.files(ended.study)
    finished = report.ranked(jobs, objective)
    account.texts({"results.csv": _table(jobs)})
    counts = {
        "finished": len(finished), "failed": sum(job.failure is not None for job in jobs),
        "pruned": sum(job.pruned is not None for job in jobs), "all": number,
    }  # fmt: skip
    account.metrics({f"jobs/{name}": count for name, count in counts.items()}, len(jobs))
    if not finished:
        return
    log.info("\n%s", report.table(jobs, objectives))
    best = finished[0]
    account.tags(**{"best.run_id": str(best.run_id), "best": " ".join(f"{k}={v}" for k, v in best.overrides.items())})
    account.metrics({"best/objective": best.reached} | {f"best/{name}": v for name, v in best.metrics.items()}, len(jobs))
    account.figures(report.figures(finished, objectives))


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
