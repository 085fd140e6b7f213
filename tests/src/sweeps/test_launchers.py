"""Parallel jobs: logging below their sweep, resuming, and sharing of GPUs and cores."""

import os
import signal
import subprocess
import sys

import pytest

from tests.commands import WEIGHTS_ONLY, environment
from tests.src.sweeps.sweeps import TINY, StoredSweep, start

# --- what each launcher makes of the same jobs -----------------------------------------------------------------------

LAUNCHERS = [  # how many jobs, on how many processes
    ("joblib", 2, "hydra.launcher.n_jobs=2"),
    pytest.param("joblib", 8, "hydra.launcher.n_jobs=4", marks=pytest.mark.slow),
    ("ray", 2, "hydra.launcher.remote.num_cpus=1"),
    ("submitit_local", 2, "hydra.launcher.timeout_min=5"),
]


@pytest.mark.parametrize(("launcher", "number", "processes"), LAUNCHERS)
def test_parallel_jobs_on_one_database(launcher, number, processes, here):
    if launcher != "joblib":
        pytest.importorskip(launcher.partition("_")[0])
    seeds = ",".join(map(str, range(number)))
    data = str(here / "data")  # not prepared yet
    launched = (f"hydra/launcher={launcher}", processes, "dataset=sunspots")  # short, since its baselines are fitted anew
    process = start(here, *launched, *TINY, f"seed={seeds}", fresh=True, HOME=str(here), TFDS_DATA_DIR=data)
    output, _ = process.communicate(timeout=240)
    assert process.returncode == 0, output
    stored = StoredSweep(here)
    (sweep,) = stored.parents
    assert sweep.info.status == "FINISHED"
    assert sorted(run.data.params["seed"] for run in stored.children) == seeds.split(",")
    assert {run.data.tags["mlflow.parentRunId"] for run in stored.children} == {sweep.info.run_id}
    assert {run.info.status for run in stored.children} == {"FINISHED"}
    names = [{name for name in run.data.metrics if not name.startswith("system/")} for run in stored.children]
    assert all(logged == names[0] for logged in names)
    assert all(len(stored.history(run, "epoch/train/loss")) == 2 for run in stored.children)
    artifacts = [{file.path for file in stored.client.list_artifacts(run.info.run_id)} for run in stored.children]
    assert all(paths == artifacts[0] >= {"config.yaml", "run.log", "model.weights.h5"} for paths in artifacts)
    assert not artifacts[0] & {"figures", "learning_curves.png"}  # since tracking.log_figures=false
    assert stored.text(sweep, "results.csv").count("\n") == number + 1
    assert output.count("Preparing sunspots") == 1
    assert output.index("Preparing sunspots") < output.index("#0" if launcher == "submitit_local" else "Job 1 of")
    if launcher == "joblib":
        jobs = output.partition("Job 1 of")[2].splitlines()
        assert all(f"[{number}/{number}]  {start}" in output for start in ("epoch 1/2", "seasonal naive"))  # of a table, too
        assert not [line for line in jobs if line.startswith(("epoch", "lstm", "seasonal", "on the test set"))]
    assert not list((here / "mlruns/unfinished").glob("*/"))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("launcher", "processes"), [("submitit_local", "hydra.launcher.tasks_per_node=2"), ("ray", "hydra.launcher.workers=2")]
)
def test_the_processes_of_a_job_are_the_workers_of_one_run(launcher, processes, here):
    pytest.importorskip(launcher.partition("_")[0])
    launched = (f"hydra/launcher={launcher}", processes, "strategy=multi_worker")
    process = start(here, *launched, *TINY, "seed=0,1", fresh=True, HOME=str(here))
    output, _ = process.communicate(timeout=240)
    assert process.returncode == 0, output
    stored = StoredSweep(here)
    assert sorted(run.data.params["seed"] for run in stored.children) == ["0", "1"]
    assert {(run.info.status, run.data.tags["workers"]) for run in stored.children} == {("FINISHED", "2")}
    assert stored.text(stored.parents[0], "results.csv").count("\n") == 3
    for run in stored.children:
        log = stored.text(run, "run.log")
        assert "This is worker 0 of 2, counted from 0: 127.0.0.1:" in log  # not an address that other machines reach
        assert log.count("epoch 1/2") == 1  # of the chief alone


@pytest.mark.slow
def test_interrupted_parallel_jobs_resume(here):
    overrides = (
        "hydra/launcher=joblib", "hydra.launcher.n_jobs=2", *TINY[:2], "training.epochs=40", *WEIGHTS_ONLY,
        "checkpoint.every=5", "checkpoint.unit=steps",
    )  # fmt: skip
    process = start(here, *overrides, "seed=0,1,2")
    started = set()
    for line in process.stdout:
        if "epoch 2/" in line:
            started.add(line[:5])
        if len(started) == 2:
            break
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=120)
    assert process.returncode == 130
    stored = StoredSweep(here)
    (sweep,) = stored.parents
    assert {run.info.status for run in stored.runs} == {"KILLED"}
    assert len(stored.children) == 2
    assert all("failure" not in run.data.tags for run in stored.children)  # which says that a process ended without a word

    process = start(here, *overrides, "seed=0,1,2")
    output, _ = process.communicate(timeout=240)
    assert process.returncode == 0, output
    assert output.count("interrupted run from epoch") == 2
    stored = StoredSweep(here)
    assert [run.info.run_id for run in stored.parents] == [sweep.info.run_id]
    assert {run.info.status for run in stored.runs} == {"FINISHED"}
    assert len(stored.children) == 3
    assert all(len(stored.history(run, "epoch/train/loss")) == 40 for run in stored.children)


# --- the share of a machine that is a job's own ----------------------------------------------------------------------


def test_processes_take_different_gpus(tmp_path):
    program = (
        "import os, sys; from pathlib import Path; from src.training import gpu;"
        f"gpu.assign_gpu(Path({str(tmp_path)!r}), 4); print(os.environ['CUDA_VISIBLE_DEVICES'], flush=True); sys.stdin.read()"
    )
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env=environment(CUDA_VISIBLE_DEVICES="2,GPU-5"),
        )
        for _ in range(4)
    ]  # fmt: skip
    try:
        assert sorted(process.stdout.readline().strip() for process in processes) == ["2", "2", "GPU-5", "GPU-5"]
    finally:
        for process in processes:
            process.communicate()


def test_one_process_keeps_all_gpus(tmp_path, monkeypatch):
    from src.training import gpu

    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    gpu.assign_gpu(tmp_path, 1)
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "0,1"
    assert gpu.visible_gpus() == ["0", "1"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert gpu.visible_gpus() == []


def test_job_threads_limit_tensorflow():
    program = (
        "import os, time; from src import terminal; terminal.load_tensorflow(); import tensorflow as tf;"
        "a = tf.random.normal((2000, 2000)); f = tf.function(lambda a: tf.linalg.matmul(a, a)); f(a);"
        "cpu, wall = time.process_time(), time.perf_counter(); [f(a) for _ in range(10)];"
        "print((time.process_time() - cpu) / (time.perf_counter() - wall))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment(OMP_NUM_THREADS="1"), capture_output=True, text=True, check=True
    )
    assert float(done.stdout) < 1.2  # cores in use
