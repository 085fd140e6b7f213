"""A logged model where this project is not: in an empty folder, and in an environment of its own requirements."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import mlflow
import numpy as np
import pytest
import tensorflow as tf

from src import datasets, experiment
from src.tasks.classification import Classification
from src.tasks.image_generation import GenerativeTask
from src.tasks.language_modeling import LanguageModeling, TextGenerator
from src.tracking import finished_runs
from src.training import strategies

EXAMPLE = "serving_input_example.json"
SPLITS = [f'dataset.splits.{split}="train[{at}:{at + 64}]"' for split, at in (("train", 0), ("validation", 64), ("test", 128))]
SMALL = ("training.epochs=1", "dataset.limit=64", "tracking.register=served")
RUNS = {  # a short run of each task
    "image_classification": ("model=cnn", "model.filters=[4]"),
    "text_classification": ("model=cnn", "dataset=docstrings", "task.name=text_classification", *SPLITS),
    "forecasting": ("model=lstm", "model.units=4"),
    "language_modeling": ("model=gpt", "model.dimension=16", "model.blocks=1", "training.steps_per_epoch=5", *SPLITS),
    "translation": ("model=transformer", "model.dimension=16", "model.blocks=1"),
    "image_generation": ("model=gan", "model.width=8", "model.conditional=true", "task.samples=20"),
    "pixel_generation": (
        "model=gpt", "dataset=digits", "task.name=pixel_generation", "task.samples=20", "model.dimension=16", "model.blocks=1",
        "training.steps_per_epoch=5",
    ),
}  # fmt: skip


def expected_answer(run_id, settings):
    """What the model of a finished run answers to the example that is stored with it, by the project's own means."""
    settings, task, model = experiment.build_model(
        settings, datasets.load(settings.dataset), strategies.create(settings.strategy), None
    )
    finished_runs.FinishedRun(run_id, "run").load_weights(model)
    if isinstance(task, LanguageModeling):
        serving = task.serving(model)
        generator = TextGenerator(model, task.tokenizer, task.settings.context)
        return {"text": generator.generate(serving.example[0], 1, serving.example_params["length"], seed=0)}
    if isinstance(task, GenerativeTask):
        return {"image": task.sampler(model).sample(np.zeros(1, int), seed=0)}
    prediction = task.predict(model, task.test.take(1), 1)  # the example is the first of the test set
    if not isinstance(task, Classification):
        return {"text" if prediction.dtype == object else "forecast": prediction}
    probability = tf.nn.softmax(prediction).numpy()
    names = [task.classes[probability[0].argmax()]]
    return {"probability": probability, "class": probability.argmax(axis=1), "class_name": names}


def check_answer(answer, expected):
    assert expected.keys() <= answer.keys()
    for name, values in expected.items():
        if name == "image" or np.asarray(values).dtype.kind in "OU":
            np.testing.assert_array_equal(answer[name], values)
        else:
            np.testing.assert_allclose(answer[name], values, rtol=1e-4)


def without_the_project(**variables):
    """The variables of a process that does not find this project."""
    return {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | variables


def test_mlflow_answers_in_an_empty_folder(finished_run, tmp_path, monkeypatch):
    tracking_uri = f"sqlite:///{finished_run.folder / 'mlflow.db'}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", tracking_uri)
    monkeypatch.chdir(finished_run.folder)
    mlflow.set_tracking_uri(None)
    run = finished_runs.FinishedRun(finished_run.run_id, "run")
    model = mlflow.artifacts.download_artifacts(f"models:/{run.model_id}", dst_path=str(tmp_path / "model"))
    (tmp_path / "empty").mkdir()
    command = ["mlflow", "models", "predict", "-m", model, "-i", f"{model}/{EXAMPLE}", "-t", "json", "-o", "answer.json"]
    done = subprocess.run(
        [sys.executable, "-m", *command, "--env-manager", "local"], cwd=tmp_path / "empty", env=without_the_project(),
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    answer = json.loads((tmp_path / "empty" / "answer.json").read_text())["predictions"]
    check_answer(answer, expected_answer(finished_run.run_id, finished_run.settings))
    assert answer["probability_by_name"] == [dict(zip("0123456789", answer["probability"][0]))]


@pytest.fixture(scope="module")
def environment_of(tmp_path_factory):
    """environment_of(requirements.txt): the Python of an environment that has these requirements and nothing else."""
    made = {}

    def environment(requirements):
        text = Path(requirements).read_text()
        if text not in made:
            folder = tmp_path_factory.mktemp("environment")
            subprocess.run([sys.executable, "-m", "venv", folder / "venv"], check=True)
            pip = [folder / "venv/bin/python", "-m", "pip", "--quiet"]
            numpy = f"numpy=={np.__version__}"
            reached = subprocess.run([*pip, "download", "--no-deps", "-d", folder, numpy], capture_output=True, text=True)
            if reached.returncode:
                pytest.skip(f"no package index can be reached: {reached.stderr.strip().splitlines()[-1]}")
            subprocess.run([*pip, "install", "-r", requirements], check=True)
            made[text] = folder / "venv/bin/python"
        return made[text]

    return environment


@contextlib.contextmanager
def served(python, uri, folder, tracking_uri):
    """`mlflow models serve` of a model in a folder: the address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [
        python,
        "-m",
        "mlflow",
        "models",
        "serve",
        "-m",
        uri,
        "-p",
        str(port),
        "-h",
        "127.0.0.1",
        "--env-manager",
        "local",
    ]
    path = f"{python.parent}{os.pathsep}{os.environ['PATH']}"
    environment = without_the_project(MLFLOW_TRACKING_URI=tracking_uri, PATH=path)
    log = (folder / "server.log").open("w+")
    process = subprocess.Popen(
        command, cwd=folder / "empty", env=environment, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
    )
    try:
        for _ in range(240):
            with contextlib.suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/ping"):
                break
            assert process.poll() is None, (folder / "server.log").read_text()
            time.sleep(0.5)
        yield f"http://127.0.0.1:{port}/invocations"
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(30)
        log.close()


@pytest.mark.slow
@pytest.mark.parametrize("task", RUNS)
def test_the_served_model_of_each_task_answers_in_an_environment_of_its_requirements(
    store, settings, environment_of, tmp_path, task
):
    run_settings = settings(*SMALL, *RUNS[task])
    assert run_settings.task.name == task
    run_id = experiment.run(run_settings).run_id
    expected = expected_answer(run_id, run_settings)
    uri = "models:/served@champion"
    model = Path(mlflow.artifacts.download_artifacts(uri, dst_path=str(tmp_path / "model")))
    python = environment_of(model / "requirements.txt")
    (tmp_path / "empty").mkdir()
    with served(python, uri, tmp_path, mlflow.get_tracking_uri()) as address:
        request = urllib.request.Request(address, (model / EXAMPLE).read_bytes(), {"Content-Type": "application/json"})
        with urllib.request.urlopen(request) as response:
            check_answer(json.load(response)["predictions"], expected)
    code = """if True:
        import json, sys, mlflow
        model = mlflow.pyfunc.load_model(sys.argv[1])
        example = json.load(open(sys.argv[2]))
        inputs = example["inputs"] if isinstance(example["inputs"][0], str) else __import__("numpy").array(example["inputs"])
        answer = model.predict(inputs, params=example.get("params"))
        print(json.dumps({name: values.tolist() for name, values in answer.items()}))
    """
    done = subprocess.run(
        [python, "-c", code, uri, model / EXAMPLE], cwd=tmp_path / "empty", capture_output=True, text=True,
        env=without_the_project(MLFLOW_TRACKING_URI=mlflow.get_tracking_uri()),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    check_answer(json.loads(done.stdout.splitlines()[-1]), expected)
