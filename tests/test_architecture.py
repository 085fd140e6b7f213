"""Who may know whom: the rooms of src/, which are its packages and loose modules, stand on each other; no import leads upwards.

Every import counts, wherever it stands: also one within a function, and one for the sake of a type.
"""

import ast

import pytest

from tests.commands import ROOT

COMMANDS = {"run", "evaluate", "generate", "reproduce", "compare", "sync"}
# From the bottom up: a room knows those on lower floors, and none on its own.
FLOORS = [
    {"errors", "redaction", "metrics", "signals"},
    {"terminal"},
    {"config"},
    {"datasets"},
    {"tasks"},
    {"training", "export"},
    {"tracking"},  # what a run tells has its checkpoints in it, and the model that is served
    {"experiment"},
    {"sweeps", "comparison"},
    {"cli", "serving"},  # by `src.serving` MLflow loads models that were logged under this name
    COMMANDS,
]
FLOOR = {room: number for number, floor in enumerate(FLOORS) for room in floor}
# What only one place touches. Types of tf.data and tf.distribute in annotations are free to all.
OWNERS = {
    "tensorflow_datasets": ["src.datasets"],
    "tensorflow.data": ["src.datasets"],
    "tensorflow.distribute": ["src.training.strategies"],
    "mlflow": ["src.tracking"],
    # What is private or not documented.
    "tensorflow_datasets.core": ["src.datasets.tfds_patches"],
    "mlflow.store": ["src.tracking.mlflow_patches"],
    "mlflow.system_metrics": ["src.tracking.mlflow_patches"],
    "mlflow.tracking": ["src.tracking.mlflow_patches"],
    "mlflow.utils": ["src.tracking.mlflow_patches"],
}


def modules():
    """{name: tree} of all modules of src/."""
    paths = sorted((ROOT / "src").rglob("*.py"))
    names = [".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__") for path in paths]
    return {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in zip(names, paths)}


SRC = modules()


def imported(name, tree):
    """The modules that one imports; of `from package import module` the module."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name}, line {node.lineno}: write the whole name of what is imported"
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                yield node.module if node.module in SRC and whole not in SRC else whole


def touched(tree):
    """What is read of TensorFlow, but in annotations: tensorflow.data.Dataset, …"""
    annotations = [
        annotation
        for node in ast.walk(tree)
        for annotation in (getattr(node, "annotation", None), getattr(node, "returns", None))
        if annotation is not None
    ]
    types = {id(node) for annotation in annotations for node in ast.walk(annotation)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "tf" and id(node) not in types:
            yield f"tensorflow.{node.attr}"


def room(module):
    """errors, config, … of src.errors, src.config.schema, …"""
    return module.split(".")[1]


EDGES = sorted(
    {
        (name, other)
        for name, tree in SRC.items()
        for other in imported(name, tree)
        if name != "src" and other.startswith("src.") and room(name) != room(other)
    }
)


def test_every_room_has_its_place():
    assert {room(name) for name in SRC if name != "src"} == set(FLOOR)


def test_imports_lead_downwards():
    assert not [(name, other) for name, other in EDGES if FLOOR[room(other)] >= FLOOR[room(name)]]


def test_nobody_imports_a_command():
    assert not [(name, other) for name, other in EDGES if room(other) in COMMANDS]


@pytest.mark.parametrize("library", OWNERS)
def test_a_library_has_one_owner(library):
    users = {
        name
        for name, tree in SRC.items()
        for other in [*imported(name, tree), *touched(tree)]
        if f"{other}.".startswith(f"{library}.")
    }
    assert users
    assert not [name for name in users if not f"{name}.".startswith(tuple(f"{owner}." for owner in OWNERS[library]))]
