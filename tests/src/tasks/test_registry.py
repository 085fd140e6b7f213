"""The registry of tasks, and a task that is added to it from elsewhere, by one module and one entry."""

import subprocess
import sys

import numpy as np
import pytest

from src import config, datasets, experiment
from src.comparison import groups
from src.config.tasks import ENTRY_POINTS, TASKS, TaskSettings, TaskSpec, register, register_installed
from src.errors import UserError
from src.metrics import lower_is_better
from src.tasks import factory
from src.tasks.base import Generative, Task
from src.tracking.run_summaries import load_summaries
from tests.commands import ROOT, environment

ENTRY = """
from recipes.specs import Forecast, Image, Positive
from src.config.tasks import TaskSettings, TaskSpec, register


class BrightnessSettings(TaskSettings):
    white: Positive  # the brightness of a white image


register(
    TaskSpec(
        name="brightness",
        title="brightness of images",
        settings=BrightnessSettings,
        inputs=Image,
        outputs=Forecast,
        metrics={"brightness_error": "lower", "fraction_within_tenth": "higher"},
        implementation="brightness_task:Brightness",
    )
)
"""
MODULE = '''
import keras
import numpy as np
from keras import layers

from recipes.specs import Forecast, Image
from src.datasets import Split
from src.tasks.base import Task
from src.tasks.baselines.interface import Prediction
from src.tasks.serving import DEFAULT_FUNCTION, Serving, batch_spec


class Brightness(Task):
    """Images uint8 (H, W, C) to their mean brightness (1, 1)."""

    units = {}

    def __init__(self, settings, data):
        self.white = settings.white
        self.train, self.validation, self.test = map(self._measure, (data.train, data.validation, data.test))
        self.inputs, self.outputs = Image(*data.train.raw.shape[1:]), Forecast(1, 1)

    def _measure(self, split):
        brightness = split.raw.mean(axis=(1, 2, 3), dtype=np.float32) / 255 * self.white
        return Split(split.raw, brightness[:, None, None])

    def wrap(self, network):
        pixels = keras.Input(self.train.raw.shape[1:], dtype="uint8")
        return keras.Model(pixels, network(layers.Rescaling(1 / 255)(pixels)), name=network.name)

    def loss(self):
        return keras.losses.MeanSquaredError()

    def training_metrics(self, model):
        return []

    def metrics(self, split, predictions):
        error = np.abs(predictions - split.targets)
        return {"brightness_error": float(error.mean()), "fraction_within_tenth": float((error < 0.1 * self.white).mean())}

    def baselines(self):
        return {"mean": lambda: Prediction(np.full_like(self.test.targets, self.train.targets.mean()))}

    def serving(self, model):
        function = lambda inputs: {"brightness": model(inputs, training=False)[:, 0, 0]}
        functions = {DEFAULT_FUNCTION: (function, {"inputs": batch_spec(self.train.raw)})}
        return Serving("ArrayModel", functions, [model], self.test.raw[:1], {"brightness": ("float32", ())})

    def figures(self, model, predictions):
        return {}
'''
DATASET = """
# @package _global_
defaults: [_image, _self_]
dataset:
  name: brightness
  builder: digits
  splits:
    train: train[:70%]
    validation: train[70%:80%]
    test: train[80%:]
  epochs: 1
task:
  name: brightness
  white: 2.0
"""


@pytest.fixture
def registered():
    """Tasks that a test registers are forgotten after it."""
    before = dict(TASKS)
    yield
    TASKS.clear()
    TASKS.update(before)


@pytest.fixture
def elsewhere(registered, tmp_path, monkeypatch):
    """A package on the Python path with a task, its entry and its data set."""
    folder = tmp_path / "elsewhere"
    (folder / "conf" / "dataset").mkdir(parents=True)
    (folder / "brightness-1.0.dist-info").mkdir()
    (folder / "brightness-1.0.dist-info" / "entry_points.txt").write_text(f"[{ENTRY_POINTS}]\nbrightness = brightness_entry\n")
    (folder / "brightness_entry.py").write_text(ENTRY)
    (folder / "brightness_task.py").write_text(MODULE)
    (folder / "conf" / "dataset" / "brightness.yaml").write_text(DATASET.lstrip())
    monkeypatch.syspath_prepend(folder)
    yield folder
    for name in ("brightness_entry", "brightness_task"):
        sys.modules.pop(name, None)


def test_a_task_is_added_by_one_module_and_one_entry(elsewhere, store, data_dir):
    register_installed()
    command = [
        "--config-dir", str(elsewhere / "conf"), "model=rnn", "dataset=brightness", f"dataset.data_dir={data_dir}",
        "model.units=4", "dataset.limit=64", "tracking.log_model=false",
    ]  # fmt: skip
    with pytest.raises(UserError, match=r"^task\.white must be greater than 0, not -1\.0\.$"):
        config.parse([*command, "task.white=-1.0"])
    with pytest.raises(UserError, match="model=gpt cannot learn brightness, which dataset=brightness asks for"):
        config.parse(["--config-dir", str(elsewhere / "conf"), "model=gpt", "dataset=brightness"])
    (settings,) = config.parse(command).jobs
    assert "brightness_task" not in sys.modules  # the class is loaded when a run creates the task
    metrics = experiment.run(settings).metrics

    assert metrics.keys() >= {f"test/{name}" for name in TASKS["brightness"].metrics}
    (board,) = groups.leaderboards(load_summaries())
    assert (board.task, board.metric) == ("brightness of images", "test/brightness_error")
    assert board.groups[0].mean(board.metric) == metrics["test/brightness_error"]
    data = datasets.load(settings.dataset)
    train, test = (split.raw[:64].mean(axis=(1, 2, 3)) * 2 / 255 for split in (data.train, data.test))
    name, error = board.groups[0].baseline(board.metric)
    assert (name, error) == ("mean", pytest.approx(np.abs(test - train.mean()).mean(), rel=1e-5))
    assert lower_is_better("test/brightness_error")
    assert not lower_is_better("test/fraction_within_tenth")


def test_every_process_knows_the_tasks_of_other_packages(elsewhere):
    code = "import sys; from src.config.tasks import TASKS; print(*TASKS, 'brightness_task' in sys.modules)"
    env = environment(PYTHONPATH=f"{ROOT}:{elsewhere}")
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    assert done.stdout.split()[-2:] == ["brightness", "False"]


def entry(**changes):
    own = {"name": "new", "title": "new", "settings": TaskSettings, "inputs": int, "outputs": int, "implementation": "new:New"}
    return TaskSpec(**own | changes)


def test_duplicate_tasks_and_contradictory_metrics_are_rejected(registered):
    with pytest.raises(ValueError, match="There is a task 'forecasting' already"):
        register(entry(name="forecasting", metrics={"mae": "lower"}))
    with pytest.raises(ValueError, match="'mae' is a metric of another task, with direction lower"):
        register(entry(metrics={"mae": "higher"}))
    with pytest.raises(ValueError, match="The task 'new' has no setting 'unit', which its evaluation names"):
        register(entry(metrics={"mae": "lower"}, evaluation=("name", "unit")))
    with pytest.raises(ValueError, match="The task 'new' has no setting 'history', which its evaluation names"):
        register(entry(metrics={"mae": "lower"}, evaluation_unless={"name": "history"}))
    register(entry(metrics={"mae": "lower"}))
    assert TASKS["new"].leading_metric == "mae"


@pytest.mark.parametrize("name", TASKS)
def test_registered_classes_implement_their_interfaces(name):
    task = factory.load_class(name)
    assert issubclass(task, Task)
    assert issubclass(task, Generative) == TASKS[name].generates


def test_tasks_with_one_title_have_one_leading_metric():
    for title in {task.title for task in TASKS.values()}:
        assert len({task.leading_metric for task in TASKS.values() if task.title == title}) == 1
