"""A run on several machines, here processes: one record, and what is left of it when a worker or the chief is killed."""

import re
import signal
import time

import pytest

from src.cluster.local import free_ports
from src.training import checkpoint
from tests import faults, worker_faults
from tests.commands import WEIGHTS_ONLY, run, start, until
from tests.network import Network
from tests.stored import client, runs, steps

LSTM = (
    "model=lstm", "model.units=8", "dataset.limit=512", "training.epochs=12", "strategy=multi_worker", "strategy.wait=60",
    "checkpoint.every=5", "checkpoint.unit=steps", *WEIGHTS_ONLY,
)  # fmt: skip


@pytest.fixture
def workers(tmp_path):
    """workers(…): processes that train together, the chief in a folder `chief` and the others in folders of their own."""
    started = []

    def start_all(*overrides, count=2, **others):
        addresses = ",".join(f"127.0.0.1:{port}" for port in free_ports(count))
        for index in range(count):
            folder = tmp_path / ("chief" if index == 0 else f"worker{index}")
            folder.mkdir(exist_ok=True)
            own = others.get(f"worker{index}", ())
            cluster = (f"strategy.workers=[{addresses}]", f"strategy.index={index}")
            started.append(start(folder, *LSTM, *overrides, *cluster, *own, TF_NUM_INTRAOP_THREADS="1"))
        return started[-count:]

    yield start_all
    for process in started:
        process.kill()


def finish(processes, timeout=120):
    """Exit status and output of each process."""
    outputs = [process.communicate(timeout=timeout)[0] for process in processes]
    return [(process.returncode, output) for process, output in zip(processes, outputs)]


def test_a_killed_worker_is_named_and_the_run_is_resumed(workers, tmp_path):
    chief, worker = workers("dataset.limit=256")
    until(chief, "epoch 3/12")
    worker.kill()
    start_time = time.monotonic()
    (status, output), _ = finish((chief, worker))
    assert time.monotonic() - start_time < 20
    assert status == 2
    assert re.search(r"Worker 1 \(127\.0\.0\.1:\d+\) has ended\.", output.splitlines()[-1])
    (run,) = runs(client(tmp_path / "chief"))
    assert run.info.status == "FAILED"
    assert "Worker 1" in run.data.tags["failure"]
    assert run.data.tags["workers"] == run.data.tags["replicas"] == "2"

    resumed = finish(workers("dataset.limit=256"))
    assert [status for status, _ in resumed] == [0, 0]
    assert "Resuming an interrupted run from epoch" in resumed[0][1]
    (again,) = runs(client(tmp_path / "chief"))
    assert (again.info.run_id, again.info.status) == (run.info.run_id, "FINISHED")
    assert steps(client(tmp_path / "chief"), again) == list(range(1, 13))
    assert "system/worker_1/cpu_utilization_percentage" in again.data.metrics
    assert not (tmp_path / "worker1/mlflow.db").exists()  # the chief alone records the run


@pytest.mark.parametrize(
    ("own", "sentence"),
    [
        (["checkpoint.every=7"], r"Worker 1 \(.*\) has checkpoint\.every=7\.0 instead of 5\.0"),
        (["seed=1"], r"Worker 1 \(.*\) has seed=1 instead of 0; start all with the same settings and versions\."),
        (
            ['dataset.splits.test="train[:20%]"', "dataset.allow_overlap=true"],
            r"has dataset\.splits\.test=train\[:20%\] instead of",
        ),
    ],
)
def test_workers_that_differ_are_refused(workers, own, sentence):
    for status, output in finish(workers(worker1=own)):
        assert status == 2
        assert re.search(sentence, output)


def test_a_stop_of_one_worker_ends_all_with_a_checkpoint(workers, tmp_path):
    chief, worker = workers("training.epochs=400")
    until(chief, "epoch 3/400")
    worker.send_signal(signal.SIGTERM)
    (chief_status, _), (worker_status, _) = finish((chief, worker))
    assert (chief_status, worker_status) == (130, 130)
    (run,) = runs(client(tmp_path / "chief"))
    assert run.info.status == "KILLED"
    (outbox,) = (tmp_path / "chief/mlruns/unfinished").iterdir()
    assert checkpoint.read(outbox / "checkpoints").epoch >= 2


def test_a_run_on_several_machines_is_evaluated_on_one(workers, tmp_path):
    assert [status for status, _ in finish(workers("training.epochs=1", "dataset.limit=128"))] == [0, 0]
    evaluation = run(tmp_path / "chief", "run=last", "record=false", module="src.evaluate")
    assert "metrics are identical" in evaluation.stdout, evaluation.stderr


# --- each fault, as in the table of src/README.md --------------------------------------------------------------------


@pytest.fixture(scope="module")
def undisturbed(data_dir, database_template, tmp_path_factory):
    return worker_faults.run_with_faults(tmp_path_factory.mktemp("undisturbed"), [])[1]


def check(fault, folder, undisturbed, network=None):
    """Check what comes of a fault, and that the run is resumed to the weights and metrics of an undisturbed one."""
    (loss,), outcome = worker_faults.run_with_faults(folder, [fault.inflict], network=network)
    assert loss.words == fault.words
    assert loss.seconds < fault.limit
    assert loss.repeated <= faults.CHECKPOINT_EVERY
    assert outcome.same_as(undisturbed)


@pytest.mark.slow
@pytest.mark.parametrize("name", worker_faults.FAULTS)
def test_after_a_fault_the_run_resumes_to_the_same_end(undisturbed, tmp_path, name):
    check(worker_faults.FAULTS[name], tmp_path, undisturbed)


@pytest.mark.slow
def test_after_the_network_was_cut_the_run_resumes_to_the_same_end(undisturbed, tmp_path):
    if not Network.AVAILABLE:
        pytest.skip("network namespaces need the command ip and root")
    with Network() as network:
        check(worker_faults.network_cut(network), tmp_path, undisturbed, network)


@pytest.mark.slow
def test_a_worker_that_is_absent_is_named(tmp_path):
    seconds, words = worker_faults.refusal(tmp_path, absent=True)
    assert words == f"Worker 1 cannot be reached after {worker_faults.WAIT} s"
    assert worker_faults.WAIT < seconds < worker_faults.WAIT + 30  # Python starts, too


@pytest.mark.slow
def test_a_run_with_random_kills_ends_as_an_undisturbed_one(tmp_path):
    """Twenty kills, of the chief and of the other worker."""
    losses, is_same = worker_faults.run_with_kills(tmp_path, 20, seed=0)
    assert len(losses) == 20
    assert {loss.words for loss in losses} == {"The chief has ended", "Worker 1 has ended"}
    assert max(loss.seconds for loss in losses) < 20
    assert max(loss.repeated for loss in losses) <= faults.CHECKPOINT_EVERY
    assert is_same
