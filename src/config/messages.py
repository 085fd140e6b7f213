"""One sentence for a mistake in the settings: what is wrong, and what to type instead."""

import difflib
from collections.abc import Sequence
from typing import Any

from pydantic_core import ErrorDetails

from src.config import renamed


def sentence(error: ErrorDetails, section: tuple[str, ...], raw: dict[str, Any]) -> str:
    """One of pydantic's errors as a sentence that names the setting as it is typed."""
    place: list[str | int] = []
    here: Any = raw
    for part in section + error["loc"]:
        if isinstance(here, dict) and part not in here and here.get("name") == part:
            continue  # the chosen member of a union ("adam"), which is no part of a setting's name
        place.append(part)
        here = here[part] if isinstance(here, dict) and part in here else None
    key = ".".join(map(str, place))
    for index in [part for part in place if isinstance(part, int)]:
        key = key.replace(f".{index}", f"[{index}]")
    match error["type"]:
        case "extra_forbidden":
            if new := renamed.answer(key, renamed.typed(error["input"])):
                return new
            siblings = _siblings(raw, place, section)
            return f"There is no setting '{key}'; {did_you_mean(siblings)}see all with: python -m src.run --cfg job"
        case "missing":
            return f"The setting '{key}' is missing."
        case "union_tag_invalid":
            return f"{key}.name must be {error['ctx']['expected_tags']}, not '{error['ctx']['tag']}'."
        case "value_error":
            return f"{error['ctx']['error']}."
        case _:
            return must_be(key, error)


def must_be(key: str, error: ErrorDetails) -> str:
    """What pydantic says of a value that is none, of the setting `key`."""
    wanted = error["msg"].removeprefix("Input should be ")
    return f"{key} must be {wanted}, not {error['input']!r}."


def _siblings(raw: dict[str, Any], place: list[Any], section: tuple[str, ...]) -> list[str]:
    *parents, last = place
    here = raw
    for part in parents:
        here = here[part]
    return [".".join(map(str, [*parents, near])) for near in similar(str(last), [k for k in here if k != last])]


def similar(word: str, known: Sequence[str]) -> list[str]:
    """The known words that `word` most likely stands for, best first: same last part, then alike."""
    last = word.rpartition(".")[2]
    same = [key for key in known if key.rpartition(".")[2] == last]
    by_last_part: dict[str, str] = {}
    for key in known:
        by_last_part.setdefault(key.rpartition(".")[2], key)
    alike = difflib.get_close_matches(word, known, n=2, cutoff=0.85)
    alike += [by_last_part[part] for part in difflib.get_close_matches(last, by_last_part, n=2, cutoff=0.75)]
    return list(dict.fromkeys(same + alike))[:3]


def did_you_mean(near: Sequence[str]) -> str:
    """The question that suggests them; nothing if there are none."""
    return f"did you mean {' or '.join(near)}? " if near else ""
