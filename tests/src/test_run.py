"""The command line, as a user types it."""

import os
import re
import signal
import subprocess
import time

import pytest

from src import terminal
from tests.commands import ROOT, WEIGHTS_ONLY, start, until
from tests.stored import client, runs

SMALL = ("training.epochs=1", "dataset.limit=64", "training.batch_size=32")


def test_run_trains_logs_and_prints_results(command, here):
    done = command("model=lstm", "training.epochs=2", "model.units=8", fresh=True)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    (run,) = runs(here, "co2")
    assert run.info.status == "FINISHED"
    mae = run.data.metrics["test/mae"]
    shown = re.search(r"^lstm +([\d.]+)", done.stdout, re.MULTILINE)
    assert float(shown[1]) == pytest.approx(mae, abs=1e-4)
    assert re.search(r"^seasonal naive +1\.7722", done.stdout, re.MULTILINE)
    assert run.info.run_id in done.stdout
    assert "mlflow ui" in done.stdout
    lines = [line for line in done.stdout.splitlines() if line]
    assert len(lines) == len(set(lines))  # no line twice
    assert sorted(path.name for path in here.iterdir()) == ["mlflow.db", "mlruns"]  # no litter


def test_output_of_a_run_has_no_library_messages(command):
    done = command("model=lightweight", "model.blocks=3", *SMALL)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    where, *lines = [line for line in done.stdout.splitlines() if line and not line.startswith("Preparing ")]
    lines = [line for line in lines if not line.endswith(" …")]  # what goes on, where it takes long
    assert re.fullmatch(r".+, strategy single, float32", where)  # the first line, even before data is prepared
    assert done.stdout.startswith(where)
    expected = (
        "lightweight on digits", "epoch 1/1 ", "LiteRT file", "float", "int8", "(latency",
        "on the test set", "lightweight", "majority class", "logistic regression", "nearest neighbors", "gradient boosting",
        "95 % confidence interval",
    )  # fmt: skip
    assert [line[: len(start)] for line, start in zip(lines, expected)] == list(expected)
    assert [line.startswith("http://127.0.0.1:5000/#/") for line in lines[len(expected) :]] == [False, False, False, True]


def test_a_sweep_runs_every_job(command, here):
    sweep = ("model=rnn,lstm", "dataset=co2", "model.units=4", "strategy=single,mirrored")
    done = command("-m", *sweep, *SMALL, *WEIGHTS_ONLY)
    assert done.returncode == 0, done.stderr
    strategies = re.findall(r", strategy (.*), float32$", done.stdout, re.MULTILINE)
    assert strategies == ["single", "mirrored (2 replicas)"] * 2
    jobs = [run for run in runs(here) if "mlflow.parentRunId" in run.data.tags]
    statuses = {(run.data.tags["model"], run.data.tags["strategy"], run.info.status) for run in jobs}
    assert statuses == {(model, strategy, "FINISHED") for model in ("rnn", "lstm") for strategy in ("single", "mirrored")}


@pytest.mark.parametrize("debug", ["one_batch", "overfit", "profile"])
def test_debug_modes(command, here, debug):
    done = command("model=cnn", f"debug={debug}", *WEIGHTS_ONLY)
    assert done.returncode == 0, done.stderr
    (run,) = runs(here, "debug")
    steps = {"one_batch": 1, "overfit": 100, "profile": 1}
    assert int(run.data.params["training.epochs"]) == steps[debug]
    if debug == "overfit":
        assert run.data.metrics["test/accuracy"] == 1.0  # the batch is overfitted
    if debug == "profile":
        table = next((here / "mlruns").rglob("profile/ops.txt")).read_text()
        assert "Conv2D" in table


def test_invalid_settings_leave_no_files(command, here):
    done = command("model=lstm", "training.epoch=3", fresh=True)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr == (
        "There is no setting 'training.epoch'; did you mean training.epochs? see all with: python -m src.run --cfg job\n"
    )
    assert not list(here.iterdir())


def test_errors_found_after_tensorflow_loads_leave_no_run(command, here):
    done = command("model=cnn", "training.batch_size=5000")
    assert done.returncode == 2
    assert done.stderr == (
        "training.batch_size=5000 is more than the 1258 training examples; type training.batch_size=1258 or less.\n"
    )
    assert not (here / "mlflow.db").exists()


def test_nan_loss_fails_the_run(command, here):
    done = command("model=cnn", *SMALL, "optimizer=sgd", "optimizer.learning_rate=1e30", "model.normalization=false")
    assert done.returncode == 2
    assert "The loss became" in done.stderr
    assert "Traceback" not in done.stderr
    (run,) = runs(here)
    assert run.info.status == "FAILED"
    assert "The loss became" in run.data.tags["failure"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
def test_stopped_run_is_marked_killed_and_keeps_its_logs(here, number):
    overrides = ("model=lstm", "training.epochs=1000", "model.units=4")
    with start(here, *overrides, errors=subprocess.PIPE, fresh=number == signal.SIGINT) as process:
        until(process, "epoch 2/1000")
        os.kill(process.pid, number)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert errors == (
        "Stopped. Type the same command again to resume; what was logged so far is kept, with the status KILLED.\n"
    )
    (run,) = runs(here)
    assert run.info.status == "KILLED"
    store = client(here)
    assert len(store.get_metric_history(run.info.run_id, "epoch/train/loss")) >= 2
    assert "run.log" in [file.path for file in store.list_artifacts(run.info.run_id)]


def test_a_terminal_shows_what_goes_on(here):
    pty = pytest.importorskip("pty")
    ours, theirs = pty.openpty()
    with start(here, "model=cnn", *SMALL, "tracking.log_model=false", output=theirs, errors=theirs) as process:
        os.close(theirs)
        shown = b""
        until = time.monotonic() + 120
        while time.monotonic() < until:
            try:
                more = os.read(ours, 65536)
            except OSError:  # the other end is closed
                break
            shown += more
        assert process.wait(timeout=60) == 0
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown.decode())
    assert re.search(r"[━─]{30} Training.*: \d+ %, 0:\d\d", text)
    assert re.search(r"[\r\n]epoch 1/1  train: ", text)
    assert not [line for line in re.split(r"[\r\n]+", text) if len(line) > terminal.WIDTH]
    assert not re.search(r"oneDNN|cuda|CUDA|absl|Warning|WARNING", text)


def test_real_mnist_trains(command, here, catalogue_data):
    done = command("dataset=mnist", f"dataset.data_dir={catalogue_data}", "training.epochs=1", "training.steps_per_epoch=100")
    assert done.returncode == 0, done.stderr
    (run,) = runs(here, "mnist")
    assert run.data.metrics["test/accuracy"] > 0.9


def test_hydras_own_options_still_work(command):
    done = command("--help")
    assert done.returncode == 0
    assert "model: attention, cnn, " in done.stdout
    done = command("--cfg", "job", "--package", "training")
    assert "batch_size: 64" in done.stdout


def test_run_without_git(command, here):
    done = command("model=cnn", *SMALL, fresh=True, PATH=str(here))  # fresh, since git is looked for at the start
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    (run,) = runs(here)
    assert "git.commit" not in run.data.tags


def test_top_level_has_only_the_allowed_files():
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    if tracked.returncode:
        pytest.skip("not a git checkout")
    top = {line.partition("/")[0] for line in tracked.stdout.splitlines()}
    fixed = {"recipes", "src", "conf", "tests", "mlruns", "requirements.txt", "README.md", "pyproject.toml"}
    assert {name for name in top if not name.startswith((".", "requirements", "README"))} <= fixed
