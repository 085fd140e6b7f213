"""What a finished run's model makes: `python -m src.generate run=<id> prompt="To be" number=3`."""

import sys
from collections.abc import Sequence
from typing import Annotated, Any

import pydantic
import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from recipes.kinds import Count, Positive
from src import startup
from src.errors import UserError
from src.settings import Section, Settings

TEXTS = ("run", "prompt")  # settings that are taken letter by letter


class Wish(Section):
    """What is to be made, as typed."""

    run: str  # id of a finished run
    seed: Annotated[int, pydantic.Field(ge=0, lt=2**32)] = 0
    number: Count = 1
    prompt: str = ""  # what a text begins with
    length: Count = 300  # tokens after it
    temperature: Annotated[float, pydantic.Field(ge=0)] = 1.0  # 0: always the likeliest token
    top_k: Count | None = None
    top_p: Annotated[Positive, pydantic.Field(le=1)] = 1.0


def main() -> None:
    """The command line."""
    try:
        for text in generate(read(sys.argv[1:])):
            print(text, end="\n\n")
    except UserError as error:
        print(error, file=sys.stderr)
        sys.exit(2)


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
        return Wish.model_validate({key: value if key in TEXTS else _value(value) for key, _, value in pairs})
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        match first["type"]:
            case "extra_forbidden":
                raise UserError(f"There is no setting '{key}'; known: {', '.join(Wish.model_fields)}.") from None
            case "missing":
                raise UserError(f"The setting '{key}' is missing; write {key}=<id>.") from None
        wanted = first["msg"].removeprefix("Input should be ")
        raise UserError(f"{key} must be {wanted}, not {first['input']!r}.") from None
    except (OmegaConfBaseException, yaml.YAMLError) as error:
        raise UserError(f"A value cannot be read: {str(error).splitlines()[0]}.") from None


def _value(typed: str) -> Any:
    """A number, true, false or null, as YAML reads it."""
    return OmegaConf.create(f"value: {typed}").value


def generate(wish: Wish) -> list[str]:
    """The texts that were wished for; the same wish brings the same texts.

    Raises:
        UserError: there is no such run, it is not one of a model that generates, or it cannot begin with that prompt.
    """
    startup.load_tensorflow()
    from src import tracking
    from src.tasks import language_modeling

    stored = tracking.Stored(wish.run, "run")
    other = UserError(
        f"run={wish.run} was made with another version of this project; choose a run that was made with this one."
    )
    try:
        chosen = Settings.model_validate(stored.settings)
    except pydantic.ValidationError:
        raise other from None
    if chosen.task.name != "language_modeling":
        raise UserError(f"run={wish.run} learned {chosen.task.name} and generates nothing; choose one of language_modeling.")
    vocabulary = stored.text(language_modeling.VOCABULARY_FILE)
    try:
        writer = language_modeling.Writer.restored(chosen, vocabulary, stored.weights)
    except (TypeError, ValueError) as error:  # a recipe with other hyperparameters, or with other weights
        raise other from error
    how = {"temperature": wish.temperature, "top_k": wish.top_k, "top_p": wish.top_p}
    return writer.write(wish.prompt, wish.number, wish.length, wish.seed, **how)


if __name__ == "__main__":
    main()
