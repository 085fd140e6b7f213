"""Every line of the README's shell blocks, typed one after the other in one folder; the Chinese README has the same lines."""

import contextlib
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from tests import commands, own_data
from tests.conftest import CATALOGUE_DATA
from tests.src.test_readme import CHINESE, README, blocks

INSTALLS = {  # beginning of a part of a line: why it is not typed here
    "python3 -m venv": "makes the environment that the tests run in",
    ". .venv/bin/activate": "activates it",
    "pip install": "needs a network",
    "python -m pytest": "is what runs here",
}
DOWNLOADED = ("dataset=mnist", "dataset=imdb_reviews", "experiment=cnn_mnist")  # data sets that are not part of a package
EPOCH, STEPS, FEW = "training.epochs=1", "training.steps_per_epoch=20", "dataset.limit=2000"
# What is appended to a line that trains, so that it takes seconds: the first whose words are all in the line. Runs of one
# recipe on one data set get the same, so that they are compared as the page says.
SHORTER = [
    (("dataset.path=flowers",), (EPOCH,)),
    (("dataset.path=reviews.csv",), (EPOCH,)),
    (("model=lstm", "training.epochs=20"), ("training.epochs=2",)),
    (("sweep=lstm",), (EPOCH, "hydra.sweeper.n_trials=2")),
    (("experiment=cnn_mnist",), (EPOCH, FEW)),
    (("dataset=imdb_reviews",), (EPOCH, FEW)),
    (("model=gpt",), (EPOCH, STEPS)),
    (("hydra/launcher=joblib",), (EPOCH, "hydra.launcher.n_jobs=2")),
    (("dataset=mnist",), (EPOCH, FEW)),
    (("model=cnn",), (EPOCH,)),
    (("model=rnn",), (EPOCH,)),
    (("model=cnn,lstm",), (EPOCH,)),
]
RUN_ID = re.compile(r"/runs/([0-9a-f]{32})\?")


def lines(page):
    """The lines of a page's shell blocks, without comments, and split at &&."""
    return [
        part.strip()
        for kind, block in blocks(page)
        if kind == "bash"
        for line in block.splitlines()
        for part in re.sub(r" +#.*$", "", line).split("&&")
    ]


def wait_for_page(url, process):
    """Wait until a server that was started answers with its page."""
    end = time.monotonic() + 60
    while process.poll() is None and time.monotonic() < end:
        with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=5) as answer:
            return answer.read().decode()
        time.sleep(0.2)
    raise AssertionError(f"{url} does not answer")


def look_at_mlflow(folder):
    """`mlflow ui`, on a free port instead of 5000, until its page is there."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    program = [str(Path(sys.executable).with_name("mlflow")), "ui", "--port", str(port), "--workers", "1"]
    process = subprocess.Popen(
        program, cwd=folder, env=commands.environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        start_new_session=True,
    )  # fmt: skip
    try:
        assert "<title>MLflow</title>" in wait_for_page(f"http://127.0.0.1:{port}/", process)
    finally:
        os.killpg(process.pid, signal.SIGTERM)  # the server and its workers, which this test has started
        process.wait(30)


def shortened(words):
    """A command line with what makes it short; where its data set is not here, the one that only shows its settings."""
    if words[2] not in ("src.run", "src.baselines") or "--cfg" in words:
        return words
    if not set(DOWNLOADED).isdisjoint(words):
        data = os.environ.get(CATALOGUE_DATA)
        if not data:
            return [*words[:2], "src.run", *words[3:], "--cfg", "job"]
        words = [*words, f"dataset.data_dir={data}"]
    return [*words, *next((more for which, more in SHORTER if set(which) <= set(words)), ())]


def test_both_pages_have_the_same_lines():
    assert lines(README) == lines(CHINESE)
    assert any("src.compare" in line and " a=" in line for line in lines(README))


@pytest.mark.slow
def test_all_lines_of_the_readme_work_in_one_folder(here, capsys):
    """Each line is printed with the seconds that it took."""
    run_id = None
    own_data.make(here)
    for line in [*lines(README), "python -m src.evaluate run=last"]:
        if line.startswith(tuple(INSTALLS)):
            continue
        start = time.monotonic()
        if line == "mlflow ui":
            look_at_mlflow(here)
            continue
        words = shortened(shlex.split(line.replace("<run id>", run_id or "")))
        assert words[:2] == ["python", "-m"], line
        done = commands.run(here, *words[3:], module=words[2], timeout=600)
        with capsys.disabled():
            print(f"\n{time.monotonic() - start:5.1f} s  {shlex.join(words)}", end="", flush=True)
        assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"
        if words[2] == "src.run" and "-m" not in words[3:] and (ids := RUN_ID.findall(done.stdout)):
            run_id = ids[-1]
        check(words, done.stdout)


def check(words, output):
    """What the page says of a line, as far as a shorter run shows it."""
    if words == ["python", "-m", "src.run", "model=lstm"]:
        check_example(output)
    elif "--cfg" in words:
        assert "model:\n" in output
    elif words[2] == "src.compare" and "a=model=cnn" in words:
        assert "confidence interval" in output
        assert re.search(r"The difference is (not )?significant", output)
    elif words[2] == "src.compare":
        assert "digits, image classification: test/accuracy" in output
        assert "co2, forecasting: test/mae" in output
    elif words[2] == "src.generate":
        assert output.strip()
    elif words[2] in ("src.evaluate", "src.reproduce"):
        assert re.search(r"identical|the same", output)


def check_example(output):
    """The first run has the table that the page shows; numbers of a trained model vary a little between processors."""
    shown = re.search(r"```text\n(on the test set.*?)```", README, re.DOTALL)[1].splitlines()
    printed = output[output.index("on the test set ") :].splitlines()[: len(shown)]
    assert printed[0].split() == shown[0].split()
    for expected, line in zip(shown[1:], printed[1:]):
        assert line.split()[0] == expected.split()[0]
        numbers = [[float(number) for number in re.findall(r"-?\d+\.\d+", row)] for row in (line, expected)]
        assert numbers[0] == pytest.approx(numbers[1], rel=0.2, abs=0.01)
