"""Each line of conf/README.md on the user's own data, typed in a folder with such files, trains and can be evaluated."""

import json
import re
import shlex
import shutil
from pathlib import Path

import mlflow
import pandas
import pytest

from src import config, datasets, evaluate, experiment
from src.tracking.client import PREDICTIONS_FILE
from tests import commands
from tests import own_data as files
from tests.src.test_readme import blocks

PAGE = (commands.ROOT / "conf" / "README.md").read_text(encoding="utf-8").partition("## Your own data")[2]
LINES = [shlex.split(line, comments=True) for kind, block in blocks(PAGE) if kind == "bash" for line in block.splitlines()]
TINY = (
    "training.epochs=1",
    "training.steps_per_epoch=1",
    "training.batch_size=8",
    "dataset.limit=16",
    "tracking.log_figures=false",
)
SMALLER = {  # recipe: hyperparameters
    "cnn": ("model.filters=[4,4]", "model.dense_units=4"),
    "lstm": ("model.units=4",),
    "gpt": ("model.blocks=1", "model.dimension=8", "task.context=8", "task.tokenizer=bytes", "task.vocabulary_size=260"),
    "transformer": ("model.blocks=1", "model.dimension=8", "task.beams=1", "task.target_length=4"),
}


def check_served(run, dataset):
    """The logged model predicts for the test set what the run has recorded."""
    recorded = pandas.read_parquet(mlflow.artifacts.download_artifacts(run_id=run.info.run_id, artifact_path=PREDICTIONS_FILE))
    served = mlflow.pyfunc.load_model(f"models:/{run.outputs.model_outputs[0].model_id}")
    answer = served.predict(datasets.load(dataset).test.take(len(recorded)).array)
    assert list(answer["class"]) == list(recorded["prediction"])


def test_there_is_a_line_for_every_kind():
    assert {word.partition("=")[2] for line in LINES for word in line if word.startswith("dataset=")} == files.PATHS.keys()


@pytest.mark.parametrize("words", LINES, ids=lambda words: f"{words[3]} {words[4]}")
def test_every_line_trains_and_its_run_can_be_evaluated_without_the_files(words, store, here, data_dir, caplog):
    files.make(here)
    recipe = words[3].removeprefix("model=")
    serves = not {"dataset=images", "dataset=audio"}.isdisjoint(words)  # other tasks are served with other data elsewhere
    (settings,) = config.parse(
        [*words[3:], *TINY, *SMALLER[recipe], f"tracking.log_model={str(serves).lower()}", f"dataset.data_dir={data_dir}"]
    ).jobs
    result = experiment.run(settings)
    run = store.get_run(result.run_id)
    assert run.info.status == "FINISHED"
    assert bool(run.outputs and run.outputs.model_outputs) == serves
    assert not [record for record in caplog.records if "failed" in record.getMessage()]
    if serves:
        check_served(run, settings.dataset)
    (test,) = (entry.dataset for entry in run.inputs.dataset_inputs if entry.tags[0].value == "test")
    rows = r"auto of each of 2 series" if "dataset.series_id=store" in words else r"(train|test)\[\d+:\d+\]"
    assert re.fullmatch(rows, json.loads(test.source)["tags"]["split"])  # the rows that it was
    path = Path(settings.dataset.path)
    assert run.info.run_name.startswith(recipe)
    assert store.get_experiment(run.info.experiment_id).name == (path.parent if "*" in path.name else path).stem
    for file in here.iterdir():
        if file.name in {Path(path).parts[0] for path in (*files.PATHS.values(), files.SHOPS)}:
            shutil.rmtree(file) if file.is_dir() else file.unlink()
    datasets.load.cache_clear()
    assert re.search(r"\nAll [2-9] metrics are identical\.$", evaluate.evaluate(result.run_id, record="false"))
