"""What a finished run's model makes: `python -m src.generate run=<id> prompt="To be" number=3`."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import pydantic
import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from recipes.specs import Count, Positive
from src import config, startup
from src.errors import UserError
from src.settings import Section

if TYPE_CHECKING:
    from src.tasks.image_generation import Painter

LETTERS = ("run", "prompt", "label", "to")  # settings that are taken letter by letter
FOLDER = Path("mlruns/generated")  # of pictures
COLUMNS = 8  # of the picture that shows all


class Wish(Section):
    """What is to be made, as typed. What is not typed is left to the model."""

    run: str  # id of a finished run
    seed: Annotated[int, pydantic.Field(ge=0, lt=2**32)] = 0
    number: Count | None = None  # texts (1), or images (16)
    # of a model that writes
    prompt: str | None = None  # what a text begins with
    length: Count | None = None  # tokens after it (300)
    # of one that makes its texts or images token by token
    temperature: Annotated[float, pydantic.Field(ge=0)] | None = None  # 1.0; 0: always the likeliest token
    top_k: Count | None = None
    top_p: Annotated[Positive, pydantic.Field(le=1)] | None = None
    # of a model that makes images
    label: str | None = None  # name of a class
    to: str | None = None  # folder that they are written to
    # of diffusion
    steps: Count | None = None
    eta: Annotated[float, pydantic.Field(ge=0, le=1)] | None = None
    guidance: Annotated[float, pydantic.Field(ge=0)] | None = None

    def options(self, known: dict[str, Any], other: Sequence[str]) -> dict[str, Any]:
        """What of `known` was typed, or else its default.

        Args:
            known: {name: default} of what a model can be told.
            other: names of what else may be typed.

        Raises:
            UserError: something else was typed.
        """
        typed = {name for name, value in self if value is not None}
        strange = sorted(typed - set(known) - {"run", "seed", "number", *other})
        if strange:
            taken = ", ".join(["seed", "number", *other, *known])
            raise UserError(f"The model of run={self.run} takes no '{strange[0]}'; it takes: {taken}.")
        return {name: getattr(self, name) if name in typed else default for name, default in known.items()}


def main() -> int:
    """The command line."""
    for text in generate(read(sys.argv[1:])):
        print(text, end="\n\n")
    return 0


def read(arguments: Sequence[str]) -> Wish:
    """The wish that a command line states.

    Raises:
        UserError: a word is no key=value, a key is not known, or a value is out of range.
    """
    plain = [word for word in arguments if "=" not in word]
    if plain:
        raise UserError(f"'{plain[0]}' cannot be read; write key=value, like run=<id>.")
    pairs = [word.partition("=") for word in arguments]
    try:
        return Wish.model_validate({key: value if key in LETTERS else _value(value) for key, _, value in pairs})
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        match first["type"]:
            case "extra_forbidden":
                raise UserError(f"There is no setting '{key}'; known: {', '.join(Wish.model_fields)}.") from None
            case "missing":
                raise UserError(f"The setting '{key}' is missing; write {key}=<id>.") from None
        raise UserError(config.must_be(key, first)) from None
    except (OmegaConfBaseException, yaml.YAMLError) as error:
        raise UserError(f"A value cannot be read: {str(error).splitlines()[0]}.") from None


def _value(typed: str) -> Any:
    """A number, true, false or null, as YAML reads it."""
    return OmegaConf.create(f"value: {typed}").value


def generate(wish: Wish) -> list[str]:
    """The texts that were wished for, or the paths of the pictures; the same wish brings the same.

    Raises:
        UserError: there is no such run, it is not one of a model that generates, or not one of what was wished for.
    """
    from src.tracking.stored import Stored

    stored = Stored(wish.run, "run")
    chosen = stored.settings
    startup.load_tensorflow()
    from src import tasks

    other = UserError(
        f"run={wish.run} was made with another version of this project; choose a run that was made with this one."
    )
    task = tasks.MAKERS.get(chosen.task.name)
    if task is None:
        makers = ", ".join(tasks.MAKERS)
        raise UserError(f"run={wish.run} learned {chosen.task.name} and generates nothing; choose one of {makers}.")
    try:
        maker = task.restored(chosen, stored.text(task.KEPT), stored.weights)
    except (TypeError, ValueError) as error:  # a recipe with other hyperparameters, or with other weights
        raise other from error
    if isinstance(maker, tasks.Writer):
        how = wish.options(maker.how, ["prompt", "length"])
        return maker.write(wish.prompt or "", wish.number or 1, wish.length or 300, wish.seed, **how)
    return _pictures(wish, maker)


def _pictures(wish: Wish, painter: "Painter") -> list[str]:
    """Writes each image, and one that shows them all; their paths."""
    import numpy as np
    from matplotlib import image

    from src.tasks.image_generation import ANY, grid

    how = wish.options(painter.how, ["label", "to"])
    label = ANY
    if wish.label is not None:
        if not painter.conditional:
            raise UserError(f"The model of run={wish.run} was not told the classes, so it takes no label; leave it out.")
        if wish.label not in painter.classes:
            raise UserError(f"There is no label '{wish.label}'; known: {', '.join(painter.classes)}.")
        label = painter.classes.index(wish.label)
    try:
        images = painter.paint(np.full(wish.number or 16, label), wish.seed, **how)
    except ValueError as error:
        raise UserError(f"{error}.") from error
    folder = Path(wish.to) if wish.to else FOLDER / wish.run
    folder.mkdir(parents=True, exist_ok=True)
    digits = len(str(len(images) - 1))
    pictures = {f"{n:0{digits}}.png": each for n, each in enumerate(images)}
    pictures["all.png"] = grid(images, min(COLUMNS, len(images)))
    for name, picture in pictures.items():
        rgb = np.repeat(picture, 3, axis=2) if picture.shape[2] == 1 else picture
        image.imsave(folder / name, rgb)
    return [f"{len(images)} images, and all of them in one: {folder / 'all.png'}"]


if __name__ == "__main__":
    startup.command(main)
