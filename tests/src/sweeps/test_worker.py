"""A job of a sweep in one of the processes that run it."""

import json
import logging
import math
from types import SimpleNamespace

import pytest

from src import experiment
from src.errors import PrunedError, WorkerError
from src.sweeps import worker
from src.sweeps.job_store import FOLDER_VARIABLE, JobResult, JobStore

HYDRA = SimpleNamespace(
    job=SimpleNamespace(num=0), overrides=SimpleNamespace(task=["seed=0"]), launcher={},
    runtime=SimpleNamespace(choices={"hydra/sweeper": "basic"}),
)  # fmt: skip
LSTM = ("model=lstm", "dataset=co2", "strategy=multi_worker")


@pytest.fixture
def store(here, monkeypatch):
    (here / "metadata.json").write_text(json.dumps({"jobs": 1, "experiment": "co2"}))
    (here / "jobs").mkdir()
    monkeypatch.setenv(FOLDER_VARIABLE, str(here / "jobs"))
    monkeypatch.setattr(worker.signals, "install_handlers", lambda: None)
    return JobStore(here / "jobs")


@pytest.fixture
def task(monkeypatch):
    """task(number): what submitit tells each task of a job."""

    def of(number):
        for name, value in {"NTASKS": "2", "GLOBALID": str(number), "JOB_ID": "1"}.items():
            monkeypatch.setenv(f"SUBMITIT_LOCAL_{name}", value)

    return of


def raises(error):
    def run(*arguments, **options):
        raise error

    return run


def test_other_workers_leave_lock_result_and_log_to_the_chief(settings, store, task, monkeypatch, capsys):
    task(1)
    job = settings(*LSTM)
    handler = logging.FileHandler("run.log")
    logging.getLogger().addHandler(handler)
    monkeypatch.setattr(experiment, "run", raises(WorkerError("The chief (127.0.0.1:20016) has ended.")))
    with store.lock(job.fingerprint()):  # as the chief, in another process
        assert math.isnan(worker.run_worker_job(job, "run.log", HYDRA))
    assert store.all() == []
    assert handler not in logging.getLogger().handlers


def test_the_chief_stores_the_result(settings, store, task, monkeypatch):
    task(0)
    job = settings(*LSTM)
    monkeypatch.setattr(experiment, "run", raises(PrunedError("It falls behind.")))
    assert math.isnan(worker.run_worker_job(job, "run.log", HYDRA))
    assert [result.pruned for result in store.all()] == ["It falls behind."]


def test_no_worker_runs_a_job_that_has_finished(settings, store, task, monkeypatch):
    job = settings(*LSTM)
    store.save(job.fingerprint(), JobResult({"seed": "0"}, 0.5, {}, "a"))
    monkeypatch.setattr(experiment, "run", raises(AssertionError()))
    for number in (0, 1):
        task(number)
        assert worker.run_worker_job(job, "run.log", HYDRA) == 0.5
