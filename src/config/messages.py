"""Error messages for invalid settings: one sentence that says what is wrong and what to type instead."""

import difflib
from collections.abc import Sequence
from typing import Any

from pydantic_core import ErrorDetails

from src.config import renamed

_MISSING = object()


def describe(errors: Sequence[ErrorDetails], section: tuple[str, ...], raw: dict[str, Any]) -> str:
    """Describe the first setting that pydantic finds invalid, named as it is typed.

    A value that may be of several types has an error for each of them: if it is a list, that about its entries counts.

    Args:
        errors: of pydantic, of all settings.
        section: where the validated model stands in the configuration.
        raw: the configuration.
    """
    paths = [_path(section + error["loc"], raw) for error in errors]
    of_first = [(path, error) for path, error in zip(paths, errors, strict=True) if path[: len(paths[0])] == paths[0]]
    path, error = max(of_first, key=lambda pair: (len(pair[0]), pair[1]["type"] == "too_short"))
    key = ".".join(map(str, path))
    for index in [part for part in path if isinstance(part, int)]:
        key = key.replace(f".{index}", f"[{index}]")
    match error["type"]:
        case "extra_forbidden":
            if new := renamed.describe_rename(key, renamed.as_typed(error["input"])):
                return new
            siblings = _similar_siblings(raw, path)
            return f"There is no setting '{key}'; {did_you_mean(siblings)}see all with: python -m src.run --cfg job"
        case "missing":
            return f"The setting '{key}' is missing."
        case "union_tag_invalid":
            return f"{key}.name must be {error['ctx']['expected_tags']}, not '{error['ctx']['tag']}'."
        case "too_short":
            return f"{key}={error['input']} has too few entries; type at least {error['ctx']['min_length']}."
        case "value_error":
            return f"{error['ctx']['error']}."
        case _:
            return describe_invalid(key, *(other for other_path, other in of_first if other_path == path))


def _path(location: tuple[str | int, ...], raw: dict[str, Any]) -> list[str | int]:
    """The keys and indices of a setting, without pydantic's names for the members of unions ("adam", "list[int]")."""
    path: list[str | int] = []
    value: Any = raw
    for part in location:
        if isinstance(value, dict):
            if part not in value and value.get("name") == part:
                continue
            value = value.get(part, _MISSING)
        elif isinstance(value, list) and isinstance(part, int):
            value = value[part]
        elif value is not _MISSING:
            continue
        path.append(part)
    return path


def describe_invalid(key: str, *errors: ErrorDetails) -> str:
    """Describe an invalid value of the setting `key`, which may be of a type for each error."""
    requirements = dict.fromkeys(error["msg"].removeprefix("Input should be ") for error in errors)
    return f"{key} must be {' or '.join(requirements)}, not {errors[0]['input']!r}."


def _similar_siblings(raw: dict[str, Any], path: list[Any]) -> list[str]:
    """Settings of the same section with a similar name."""
    *parents, last = path
    section = raw
    for part in parents:
        section = section[part]
    return [".".join(map(str, [*parents, name])) for name in similar_names(str(last), [key for key in section if key != last])]


def similar_names(word: str, candidates: Sequence[str]) -> list[str]:
    """The candidates that `word` most likely stands for, best first: with the same last part, then with similar spelling."""
    last = word.rpartition(".")[2]
    same = [key for key in candidates if key.rpartition(".")[2] == last]
    by_last_part: dict[str, str] = {}
    for key in candidates:
        by_last_part.setdefault(key.rpartition(".")[2], key)
    alike = difflib.get_close_matches(word, candidates, n=2, cutoff=0.85)
    alike += [by_last_part[part] for part in difflib.get_close_matches(last, by_last_part, n=2, cutoff=0.75)]
    return list(dict.fromkeys(same + alike))[:3]


def did_you_mean(suggestions: Sequence[str]) -> str:
    """A question with the suggestions; empty if there are none."""
    return f"did you mean {' or '.join(suggestions)}? " if suggestions else ""
