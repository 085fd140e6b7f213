"""The signature of a recipe's `build`, read from its source: importing a recipe would load Keras, which takes seconds."""

import ast
import functools
import importlib.util
import typing
from dataclasses import dataclass
from pathlib import Path

import pydantic

from recipes import specs
from src.errors import UserError

# The names that annotations in a recipe's signature may use.
ANNOTATION_NAMES = {name: getattr(specs, name) for name in dir(specs) if not name.startswith("_")} | {
    name: getattr(typing, name) for name in ("Annotated", "Literal", "Any")
}


@dataclass(frozen=True)
class Signature:
    """The signature of `build(inputs, outputs, *, hyperparameters)`."""

    inputs: frozenset[type]  # input specs that it accepts
    outputs: tuple[type, ...]  # output specs that it supports, in order of preference
    hyperparameters: type[pydantic.BaseModel]  # their types, ranges and defaults

    def supports(self, inputs: type, outputs: type) -> bool:
        """Whether the recipe accepts these specs, and so can learn a task that has them."""
        return inputs in self.inputs and outputs in self.outputs


def read(target: str) -> Signature:
    """The signature of the function that `target` ("package.module.function") names.

    Raises:
        UserError: there is no such function, or its annotations use names that are neither in `recipes.specs` nor in `typing`.
    """
    source = _source(target)
    return _read(target, source, source.stat().st_mtime_ns)


@functools.lru_cache(maxsize=64)
def _read(target: str, source: Path, _changed: int) -> Signature:
    """`read`, cached until the file changes."""
    function = target.rpartition(".")[2]
    definition = _definition(source, function, target)
    hints = {argument.arg: argument.annotation for argument in _arguments(definition) if argument.annotation is not None}
    for name in ("inputs", "outputs"):
        if name not in hints:
            raise UserError(f"{target} must annotate its argument '{name}' with specifications from recipes/specs.py.")
    fields: dict[str, typing.Any] = {}
    for argument, default in zip(definition.args.kwonlyargs, definition.args.kw_defaults, strict=True):
        hint = _evaluate(argument.annotation, target, argument.arg) if argument.annotation else typing.Any
        value = ... if default is None else _default(default, target, argument.arg)
        fields[argument.arg] = (hint, list(value) if isinstance(value, tuple) else value)
    strict = pydantic.ConfigDict(extra="forbid", strict=True)
    return Signature(
        inputs=frozenset(_members(_evaluate(hints["inputs"], target, "inputs"))),
        outputs=_members(_evaluate(hints["outputs"], target, "outputs")),
        hyperparameters=pydantic.create_model(function, __config__=strict, **fields),
    )


def _source(target: str) -> Path:
    module = target.rpartition(".")[0]
    try:
        spec = importlib.util.find_spec(module) if module else None
    except ModuleNotFoundError:
        spec = None
    if spec is None or spec.origin is None:
        raise UserError(f"model._target_={target} names no module that can be found; write it like recipes.cnn.build.")
    return Path(spec.origin)


def _definition(source: Path, function: str, target: str) -> ast.FunctionDef:
    for node in ast.parse(source.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef) and node.name == function:
            return node
    module = target.rpartition(".")[0]
    raise UserError(f"model._target_={target}: {module} has no function '{function}'; a recipe defines 'build'.")


def _arguments(definition: ast.FunctionDef) -> list[ast.arg]:
    return definition.args.posonlyargs + definition.args.args


def _evaluate(annotation: ast.expr, target: str, argument: str) -> typing.Any:
    source = ast.unparse(annotation)
    try:
        return eval(source, {}, ANNOTATION_NAMES)  # a recipe is code that is about to be run anyway
    except NameError as error:
        raise UserError(
            f"{target} annotates '{argument}' with {source}, but only recipes/specs.py and typing can be used ({error})."
        ) from None


def _default(default: ast.expr, target: str, argument: str) -> typing.Any:
    try:
        return ast.literal_eval(default)
    except ValueError:
        raise UserError(f"{target}: the default of '{argument}' must be a plain value, not {ast.unparse(default)}.") from None


def _members(hint: typing.Any) -> tuple[type, ...]:
    return typing.get_args(hint) or (hint,)
