"""A run on several machines, here processes: one record, and what is left of it when a worker or the chief is killed."""

import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from src.cluster.local import free_ports
from src.training import checkpoint
from tests.commands import WEIGHTS_ONLY, environment, run, start, until
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


def weights_of(folder, run):
    with open(next((folder / "mlruns").rglob(f"{run.info.run_id}/artifacts/*.h5")), "rb") as file:
        return file.read()


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


@pytest.mark.slow
def test_a_worker_that_hangs_is_noticed_in_time(workers):
    """Which TensorFlow does 10 s later: the reason for aborting its all-reduces."""
    chief, worker = workers("training.epochs=4000", "strategy.timeout=8")
    until(chief, "epoch 3/4000")
    worker.send_signal(signal.SIGSTOP)
    start_time = time.monotonic()
    ((status, output),) = finish([chief])
    assert 7 < time.monotonic() - start_time < 14
    assert status == 2
    assert re.search(r"Worker 1 \(.*\) has sent no sign of life for 8 s\.", output)


def test_a_run_on_several_machines_is_evaluated_on_one(workers, tmp_path):
    assert [status for status, _ in finish(workers("training.epochs=1", "dataset.limit=128"))] == [0, 0]
    evaluation = run(tmp_path / "chief", "run=last", "record=false", module="src.evaluate")
    assert "metrics are identical" in evaluation.stdout, evaluation.stderr


@pytest.fixture
def network():
    """Two hosts on this machine, 10.77.0.1 and 10.77.0.2, which are network namespaces, and what cuts the line between them."""
    if not shutil.which("ip") or os.geteuid() != 0:
        pytest.skip("network namespaces need the command ip and root")
    names = [f"experiments{os.getpid()}{side}" for side in "ab"]

    def ip(line):
        subprocess.run(["ip", *line.split()], check=True, capture_output=True)

    try:
        for name in names:
            ip(f"netns add {name}")
        ip(f"link add veth{os.getpid()} type veth peer name peer{os.getpid()}")
        for host, (name, device) in enumerate(zip(names, (f"veth{os.getpid()}", f"peer{os.getpid()}")), start=1):
            ip(f"link set {device} netns {name}")
            ip(f"-n {name} addr add 10.77.0.{host}/24 dev {device}")
            ip(f"-n {name} link set {device} up")
            ip(f"-n {name} link set lo up")
        yield names, lambda state: ip(f"-n {names[0]} link set veth{os.getpid()} {state}")
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)


@pytest.mark.slow
def test_a_network_that_is_cut_ends_both_in_time_and_the_run_is_resumed(network, tmp_path):
    names, switch = network

    def start_both():
        processes = []
        for index, name in enumerate(names):
            folder = tmp_path / ("chief" if index == 0 else "worker1")
            folder.mkdir(exist_ok=True)
            cluster = ("strategy.workers=[10.77.0.1:5000,10.77.0.2:5000]", f"strategy.index={index}", "strategy.timeout=8")
            command = ["ip", "netns", "exec", name, sys.executable, "-m", "src.run", *LSTM, "training.epochs=80", *cluster]
            streams = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
            processes.append(subprocess.Popen(command, cwd=folder, env=environment(TF_NUM_INTRAOP_THREADS="1"), **streams))
        return processes

    processes = start_both()
    until(processes[0], "epoch 3/80")
    switch("down")
    cut = time.monotonic()
    for (status, output), other in zip(
        finish(processes), (r"Worker 1 \(10\.77\.0\.2:5000\)", r"The chief \(10\.77\.0\.1:5000\)")
    ):
        assert status == 2
        assert re.search(rf"{other} has sent no sign of life for 8 s\.", output)
    assert 7 < time.monotonic() - cut < 25
    switch("up")
    resumed = finish(start_both(), timeout=240)
    assert [status for status, _ in resumed] == [0, 0]
    assert "Resuming an interrupted run from epoch" in resumed[0][1]


@pytest.mark.slow
def test_runs_with_random_kills_end_as_an_undisturbed_one(workers, tmp_path):
    """Twenty kills, of the chief and of the other worker, each followed by the same command on both."""
    draw, seconds = random.Random(0), []
    epochs = "training.epochs=120"
    assert [status for status, _ in finish(workers(epochs, "tracking.run_name=undisturbed"))] == [0, 0]
    kills = 0
    while kills < 20:
        processes = workers(epochs, "tracking.run_name=disturbed")
        victim = draw.randrange(2)
        started = time.monotonic()
        until(processes[0], "epoch")
        time.sleep(draw.uniform(0, 1.5))
        if processes[victim].poll() is None:
            processes[victim].kill()
            kills += 1
            killed = time.monotonic()
        (other_status, other_output) = finish([processes[1 - victim]])[0]
        finish([processes[victim]])
        if other_status == 0:
            break
        seconds.append(time.monotonic() - killed)
        assert re.search(r"(Worker 1|The chief) \(127\.0\.0\.1:\d+\) has ended\.", other_output), other_output[-2000:]
        assert time.monotonic() - started < 120
    assert kills == 20, "the run ended before that; let it have more epochs"
    assert [status for status, _ in finish(workers(epochs, "tracking.run_name=disturbed"))] == [0, 0]
    print(f"{kills} kills, the other worker ended after {np.median(seconds):.1f} s ({max(seconds):.1f} s at most)")
    one, two = sorted(runs(client(tmp_path / "chief")), key=lambda run: run.info.run_name)
    assert {run.info.status for run in (one, two)} == {"FINISHED"}
    names = [name for name in one.data.metrics if name.startswith(("epoch/", "test/"))]
    assert {name: one.data.metrics[name] for name in names} == {name: two.data.metrics[name] for name in names}
    assert weights_of(tmp_path / "chief", one) == weights_of(tmp_path / "chief", two)
