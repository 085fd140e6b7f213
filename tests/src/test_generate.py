"""`src.generate`: texts and images from the model of a finished run."""

from pathlib import Path

import pytest
from matplotlib import image

from src import generate
from src.errors import UserError
from src.tracking import finished_runs
from tests.commands import WEIGHTS_ONLY
from tests.stored import client, runs

SMALL = ("model.dimension=16", "model.heads=2", "model.blocks=1", "task.vocabulary_size=300", "task.context=16")
SLICES = [f'dataset.splits.{part}="train[{at}:{at + 50}]"' for part, at in (("train", 0), ("validation", 50), ("test", 100))]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "The setting 'run' is missing; write it like run=last."),
        (["abc"], "'abc' cannot be read; write setting=value, like run=last."),
        (["run=x", "temprature=1"], "There is no setting 'temprature'; available: run, seed, number, prompt,"),
        (["run=x", "number=0"], "number must be greater than or equal to 1, not 0."),
        (["run=x", "temperature=-1"], "temperature must be greater than or equal to 0, not -1."),
        (["run=x", "top_p=1.5"], "top_p must be less than or equal to 1, not 1.5."),
        (["run=x", "length=many"], "length must be a valid integer, not 'many'."),
        (["run=x", "seed=["], "A value cannot be read"),
    ],
)
def test_invalid_arguments_are_reported_in_one_sentence(arguments, message):
    with pytest.raises(UserError) as raised:
        generate.parse_options(arguments)
    assert str(raised.value).startswith(message)


def test_a_prompt_is_taken_literally():
    assert generate.parse_options(["run=1", "prompt=a=b: 3"]).prompt == "a=b: 3"
    assert generate.parse_options(["run=123", "top_k=null", "temperature=1"]).run == "123"


def test_a_run_of_another_version_is_refused(monkeypatch):
    class OldRun(finished_runs.FinishedRun):
        def __init__(self, run_id, setting):
            self.argument, self.config = f"{setting}={run_id}", {"model": {"name": "gpt"}}

    monkeypatch.setattr(finished_runs, "FinishedRun", OldRun)
    run_id = "0" * 32
    with pytest.raises(UserError, match=f"run={run_id} was made with another version of this project"):
        generate.generate(generate.parse_options([f"run={run_id}"]))


def test_generated_texts_are_reproducible(command, here):
    done = command("model=gpt", *SLICES, *SMALL, "training.epochs=1", "training.steps_per_epoch=3", *WEIGHTS_ONLY)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    (run,) = runs(here, "docstrings")
    assert run.data.metrics["test/bits_per_character"] > 0
    assert run.data.params["task.name"] == "language_modeling"
    artifacts = [item.path for item in client(here).list_artifacts(run.info.run_id)]
    assert {"vocabulary.json", "model.weights.h5"} <= set(artifacts)

    def generate_texts(*arguments):
        return command(*arguments, module="src.generate")

    options = (f"run={run.info.run_id}", "prompt=The", "number=2", "length=30")
    first, repeated, other_seed = (
        generate_texts(*options), generate_texts("run=last", *options[1:]), generate_texts(*options, "seed=1")
    )  # fmt: skip
    assert first.returncode == 0, first.stderr
    assert first.stderr == ""
    assert first.stdout.count("The") >= 2
    assert first.stdout == repeated.stdout != other_seed.stdout
    recorded = [run for run in runs(here, "docstrings") if run.data.tags.get("kind") == "generation"]
    assert len(recorded) == 3
    assert {recorded[1].data.params[name] for name in ("prompt", "number", "length")} == {"The", "2", "30"}
    assert [used.dataset.name for used in recorded[1].inputs.dataset_inputs] == ["docstrings"]
    text = client(here).download_artifacts(recorded[1].info.run_id, "generated.txt", str(here))
    assert Path(text).read_text(encoding="utf-8").split("\n")[0] == first.stdout.split("\n")[0]
    assert f"/runs/{run.info.run_id}?" in recorded[1].data.tags["mlflow.note.content"]
    assert generate_texts(*options, "record=false").stdout == first.stdout
    assert len(runs(here, "docstrings")) == 4
    unknown = generate_texts("run=0123", "prompt=The")
    assert unknown.returncode == 2
    assert unknown.stderr.startswith("run=0123 names no finished run;")


def test_generated_images_are_reproducible(command, here):
    few = ("model.width=8", "model.levels=1", "training.epochs=1", "task.samples=20", "dataset.epochs=1", "dataset.limit=128")
    done = command("model=diffusion", *few, "model.timesteps=20", *WEIGHTS_ONLY)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    run_ids = {run.data.tags["model"]: run.info.run_id for run in runs(here, "digits")}
    diffusion, classifier = run_ids["diffusion"], run_ids["cnn"]

    def generate_images(folder, *arguments):
        return command(f"run={diffusion}", f"to={folder}", *arguments, module="src.generate")

    done = generate_images("first", "number=11", "label=3", "steps=4", "eta=0.5", "guidance=2")
    assert (done.returncode, done.stderr) == (0, "")
    assert "11 images" in done.stdout
    pictures = sorted(path.name for path in (here / "first").iterdir())
    assert pictures == [*(f"{n:02}.png" for n in range(11)), "all.png"]
    assert image.imread(here / "first" / "00.png").shape[:2] == (8, 8)
    assert image.imread(here / "first" / "all.png").shape[:2] == (2 * 9 - 1, 8 * 9 - 1)
    for folder, seed in (("repeated", 0), ("other_seed", 1)):
        options = (
            f"run={diffusion}",
            f"to={folder}",
            "number=11",
            "label=3",
            "steps=4",
            "eta=0.5",
            "guidance=2",
            f"seed={seed}",
        )
        generate.generate(generate.parse_options(options))
    first, repeated, other_seed = ((here / name / "all.png").read_bytes() for name in ("first", "repeated", "other_seed"))
    assert first == repeated != other_seed

    for arguments, message in (
        (["label=x"], "There is no label 'x'; available: 0, 1, 2,"),
        (["steps=21"], "steps=21 must be 1 to 20"),
        (
            ["prompt=The"],
            f"The model of run={diffusion} takes no 'prompt'; it takes: seed, number, record, label, to, steps, eta, guidance.",
        ),
    ):
        with pytest.raises(UserError) as raised:
            generate.generate(generate.parse_options([f"run={diffusion}", *arguments]))
        assert str(raised.value).startswith(message)
    with pytest.raises(
        UserError, match="learned image_classification and generates nothing; choose a run of one of image_generation"
    ):
        generate.generate(generate.parse_options([f"run={classifier}"]))
