"""Generates text or images with a finished run's model: `python -m src.generate run=last prompt="To be" number=3`."""

import shlex
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pydantic
import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import Field

from recipes.specs import Count
from src import cli, config, terminal
from src.config.section import Section
from src.config.tasks import TASKS
from src.errors import UserError

if TYPE_CHECKING:
    from src.tasks.image_generation import ImageSampler
    from src.tracking.finished_runs import FinishedRun
    from src.tracking.run_logger import RunLogger

VERBATIM = ("run", "prompt", "label", "to")  # settings whose values are taken as typed; those of the others are YAML
IMAGE_FOLDER = Path("mlruns/generated")
GRID_COLUMNS = 8  # of the image that shows all


class GenerateOptions(Section):
    """The settings of this command; what is None is left to the model."""

    run: str = Field(description=cli.RUN)
    seed: int = Field(0, ge=0, lt=2**32, description="of the random numbers (0)")
    number: Count | None = Field(None, description="how many texts (1) or images (16)")
    prompt: str | None = Field(None, description="text models: what each text begins with")
    length: Count | None = Field(None, description="text models: tokens after the prompt (300)")
    temperature: float | None = Field(None, ge=0, description="token by token: 1.0; 0 always takes the most likely token")
    top_k: Count | None = Field(None, description="token by token: sample from the k most likely tokens")
    top_p: float | None = Field(
        None, gt=0, le=1, description="token by token: sample from the most likely tokens of this total probability"
    )
    label: str | None = Field(None, description="image models: name of a class (any)")
    to: str | None = Field(None, description=f"image models: folder for the images ({IMAGE_FOLDER}/<run id>)")
    steps: Count | None = Field(None, description="diffusion: sampling steps")
    eta: float | None = Field(None, ge=0, le=1, description="diffusion: 0 samples deterministically (DDIM), 1 as DDPM does")
    guidance: float | None = Field(None, ge=0, description="diffusion: weight of classifier-free guidance")
    record: bool = Field(True, description=cli.RECORD)

    def sampling_options(self, defaults: Mapping[str, Any], other_settings: Sequence[str]) -> dict[str, Any]:
        """Return what was typed for each sampling option of a model, or else its default.

        Args:
            defaults: {option: default} of the model.
            other_settings: names of the other settings that fit this kind of model.

        Raises:
            UserError: a setting was typed that does not fit the model.
        """
        typed = {name for name, value in self if value is not None}
        unfit = sorted(typed - set(defaults) - {"run", "seed", "number", "record", *other_settings})
        if unfit:
            available = ", ".join(["seed", "number", "record", *other_settings, *defaults])
            raise UserError(f"The model of run={self.run} takes no '{unfit[0]}'; it takes: {available}.")
        return {name: getattr(self, name) if name in typed else default for name, default in defaults.items()}


USAGE = cli.Usage(
    "python -m src.generate run=<run> [setting=value …]",
    "Generate text or images with a finished run's model. The same settings give the same result. MLflow gets a run of it, "
    "linked to the model and the data set.",
    ['python -m src.generate run=last prompt="To be" number=3', "python -m src.generate run=gan_mnist-seed0 label=7 to=sevens"],
    {name: field.description or "" for name, field in GenerateOptions.model_fields.items()},
)


def main(arguments: Sequence[str]) -> int:
    """Run the command."""
    for text in generate(parse_options(arguments)):
        print(text, end="\n\n")
    return 0


def parse_options(arguments: Sequence[str]) -> GenerateOptions:
    """Parse the arguments of the command.

    Raises:
        UserError: an argument is not of the form key=value, a key is not valid, or a value is out of range.
    """
    typed = cli.parse_key_values(arguments, USAGE.settings, required=["run"])
    try:
        return GenerateOptions.model_validate(
            {key: value if key in VERBATIM else _parse_yaml(value) for key, value in typed.items()}
        )
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        raise UserError(config.describe_invalid(".".join(map(str, first["loc"])), first)) from None
    except (OmegaConfBaseException, yaml.YAMLError) as error:
        raise UserError(f"A value cannot be read: {str(error).splitlines()[0]}.") from None


def _parse_yaml(value: str) -> Any:
    """A number, true, false or null, as Hydra would read it."""
    return OmegaConf.create(f"value: {value}").value


def generate(options: GenerateOptions) -> list[str]:
    """Generate texts or images.

    Returns:
        The texts; of images a line that says where they are.

    Raises:
        UserError: there is no such run, its model does not generate, or a setting does not fit the model.
    """
    from src.tracking.finished_runs import FinishedRun
    from src.tracking.run_lookup import find_run_id

    stored = FinishedRun(find_run_id(options.run), "run")
    settings = stored.settings
    if not TASKS[settings.task.name].generates:
        tasks = ", ".join(name for name, task in TASKS.items() if task.generates)
        raise UserError(
            f"run={options.run} learned {settings.task.name} and generates nothing; choose a run of one of {tasks}."
        )
    terminal.load_tensorflow()
    from src.tasks import factory
    from src.tasks.language_modeling import SEPARATOR, TextGenerator

    task = factory.load_class(settings.task.name)
    try:
        generator = task.from_run(settings, stored.load_text(task.ARTIFACT), stored.load_weights)
    except (TypeError, ValueError) as error:  # the recipe had other hyperparameters, or other weights
        raise UserError(
            f"run={options.run} was made with another version of this project; choose a run that was made with this one."
        ) from error
    if isinstance(generator, TextGenerator):
        sampling = options.sampling_options(generator.defaults, ["prompt", "length"])
        number, length = options.number or 1, options.length or 300
        texts = generator.generate(options.prompt or "", number, length, options.seed, **sampling)
        if options.record:
            _record(
                stored, options, sampling, lambda run_logger: run_logger.log_texts({"generated.txt": SEPARATOR.join(texts)})
            )
        return texts
    sampling = options.sampling_options(generator.defaults, ["label", "to"])
    folder = Path(options.to) if options.to else IMAGE_FOLDER / stored.run_id
    number = _write_images(options, generator, sampling, folder)
    if options.record:
        _record(stored, options, sampling, lambda run_logger: run_logger.log_files(folder / "all.png"))
    return [f"{number} images, and all of them in one: {folder / 'all.png'}"]


def _record(
    stored: "FinishedRun", options: GenerateOptions, sampling: Mapping[str, Any], log: Callable[["RunLogger"], None]
) -> None:
    """Make the generation a run in MLflow.

    Args:
        stored: the run whose model was used.
        options: of the command.
        sampling: {option: value} of the model.
        log: logs what was generated.
    """
    from src.tracking.usage_run import GENERATION, usage_run

    typed = {name: value for name, value in options if value is not None and name not in ("run", "record")}
    command = shlex.join(["python", "-m", "src.generate", f"run={stored.run_id}", *(f"{k}={v}" for k, v in typed.items())])
    data = stored.dataset_input("train")
    params = {"run": stored.run_id} | typed | dict(sampling)
    with usage_run(GENERATION, stored, command, params, {"train": data} if data else {}) as run_logger:
        log(run_logger)
        run_logger.describe_run(f"Generated by [{stored.name}](run:{stored.run_id})\n\n- Command: `{command}`")


def _write_images(options: GenerateOptions, generator: "ImageSampler", sampling: Mapping[str, Any], folder: Path) -> int:
    """Write each image to a file of its own, and all of them to `all.png`; return their number."""
    import numpy as np
    from matplotlib import image

    from src.tasks.image_generation import ANY_CLASS, image_grid

    label = ANY_CLASS
    if options.label is not None:
        if not generator.conditional:
            raise UserError(f"The model of run={options.run} was trained without labels, so it takes no label; leave it out.")
        if options.label not in generator.classes:
            raise UserError(f"There is no label '{options.label}'; available: {', '.join(generator.classes)}.")
        label = generator.classes.index(options.label)
    try:
        images = generator.sample(np.full(options.number or 16, label), options.seed, **sampling)
    except ValueError as error:
        raise UserError(f"{error}.") from error
    folder.mkdir(parents=True, exist_ok=True)
    digits = len(str(len(images) - 1))
    files = {f"{index:0{digits}}.png": single for index, single in enumerate(images)}
    files["all.png"] = image_grid(images, min(GRID_COLUMNS, len(images)))
    for name, pixels in files.items():
        rgb = np.repeat(pixels, 3, axis=2) if pixels.shape[2] == 1 else pixels
        image.imsave(folder / name, rgb)
    return len(images)


if __name__ == "__main__":
    cli.run_command(main, USAGE)
