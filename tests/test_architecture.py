"""The packages and top-level modules of src/ form layers: each imports only from layers below its own.

Every import counts, wherever it stands: also one within a function, and one for the sake of a type.
"""

import ast

import pytest

from tests.commands import ROOT

COMMANDS = {"run", "baselines", "evaluate", "generate", "reproduce", "compare", "sync"}
# From the bottom up.
LAYERS = [
    {"errors", "redaction", "signals", "tables", "figures"},
    {"terminal"},
    {"config"},
    {
        "datasets",
        "metrics",
        "uncertainty",
        "cluster",
    },  # which metrics lead, and which values are better, the registry of tasks says
    {"tasks"},
    {"training", "export"},
    {"tracking"},  # logs checkpoints, and the model that is served
    {"experiment"},
    {"sweeps", "comparison"},
    {"cli", "serving"},  # by `src.serving` MLflow loads models that were logged under this name
    COMMANDS,
]
LAYER = {name: number for number, layer in enumerate(LAYERS) for name in layer}
# Libraries that only these modules use. Annotations may have types of tf.data and tf.distribute anywhere.
OWNERS = {
    "tensorflow_datasets": ["src.datasets"],
    "tensorflow.data": ["src.datasets"],
    "tensorflow.distribute": ["src.training.strategies", "src.cluster.addresses"],  # that one, for what SLURM says
    "mlflow": ["src.tracking"],
    # What is not documented.
    "tensorflow_datasets.core": ["src.datasets.tfds_patches"],
    "tensorflow.lite.tools": ["src.export.litert_patches"],
    "mlflow.store": ["src.tracking.mlflow_patches"],
    "mlflow.system_metrics": ["src.tracking.mlflow_patches"],
    "mlflow.tracking": ["src.tracking.mlflow_patches"],
    "mlflow.utils": ["src.tracking.mlflow_patches"],
}

# Modules that reach into private parts of a library: one for each, and subclasses of Keras's optimizers. Tests beside each of
# them hold its reasons: tests/src/…/test_<module>.py, and of the optimizers test_keras_patches.py.
PRIVATE = {
    "src.config.hydra_patches", "src.datasets.tfds_patches", "src.export.litert_patches", "src.sweeps.optuna_patches",
    "src.tracking.mlflow_patches", "src.training.keras_patches", "src.training.optimizers",
    "src.training.tensorflow_patches",
}  # fmt: skip
INTERNAL = {"internal", "protos", "python", "src", "tsl"}  # names of folders of libraries with what is not for others
PUBLIC = ("array_record.python.",)  # in spite of the name of the folder: all that the package has is in it
NAMED_TUPLE = {"_asdict", "_fields", "_make", "_replace"}  # public, in spite of the underscore


def modules():
    """{name: tree} of all modules of src/."""
    paths = sorted((ROOT / "src").rglob("*.py"))
    names = [".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__") for path in paths]
    return {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in zip(names, paths)}


SRC = modules()


def imported(name, tree):
    """The modules that a module imports; of `from package import module` the submodule."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name}, line {node.lineno}: use an absolute import"
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                yield node.module if node.module in SRC and whole not in SRC else whole


def tensorflow_names(tree):
    """Names of TensorFlow used outside of annotations: tensorflow.data, …"""
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


def package(module):
    """errors, config, … of src.errors, src.config.schema, …"""
    return module.split(".")[1]


EDGES = sorted(
    {
        (name, other)
        for name, tree in SRC.items()
        for other in imported(name, tree)
        if name != "src" and other.startswith("src.") and package(name) != package(other)
    }
)


def test_every_package_has_a_layer():
    assert {package(name) for name in SRC if name != "src"} == set(LAYER)


def test_imports_only_from_lower_layers():
    assert not [(name, other) for name, other in EDGES if LAYER[package(other)] >= LAYER[package(name)]]


def test_commands_are_not_imported():
    assert not [(name, other) for name, other in EDGES if package(other) in COMMANDS]


@pytest.mark.parametrize("library", OWNERS)
def test_libraries_are_used_only_by_their_owners(library):
    users = {
        name
        for name, tree in SRC.items()
        for other in [*imported(name, tree), *tensorflow_names(tree)]
        if f"{other}.".startswith(f"{library}.")
    }
    assert users
    assert not [name for name in users if not f"{name}.".startswith(tuple(f"{owner}." for owner in OWNERS[library]))]


def is_private(name):
    """Whether a name begins with one underscore; Hydra's keys (_target_) also end with one."""
    return name.startswith("_") and not name.startswith("__") and not name.endswith("_")


def own_names(tree):
    """The names of functions, classes, variables and attributes that a module defines."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and ast.unparse(node.value) in ("self", "cls"):
            yield node.attr


OWN = {name for tree in SRC.values() for name in own_names(tree)} | NAMED_TUPLE


def private_uses(name, tree):
    """What a module uses of the private parts of libraries: imports, attributes, keyword arguments, keys."""
    for other in imported(name, tree):
        if not other.startswith(("src.", "recipes.", *PUBLIC)) and any(
            is_private(part) or part in INTERNAL for part in other.split(".")
        ):
            yield other
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and is_private(node.attr):
            if node.attr not in OWN or ast.unparse(node.value).startswith("super()"):
                yield ast.unparse(node)
        elif isinstance(node, ast.keyword) and node.arg and is_private(node.arg):
            yield f"{node.arg}="
        elif isinstance(node, ast.Dict):
            yield from (key.value for key in node.keys if isinstance(key, ast.Constant) and is_private(str(key.value)))


def test_private_parts_of_libraries_are_used_in_one_module_each():
    users = {name: uses for name, tree in SRC.items() if (uses := sorted(private_uses(name, tree)))}
    assert users.keys() == PRIVATE, {name: uses for name, uses in users.items() if name not in PRIVATE}


@pytest.mark.parametrize(
    "code",
    [
        "from hydra._internal.utils import x", "import keras.src.layers", "from mlflow.protos.databricks_pb2 import x",
        "trial._trial_id", "super()._clip_gradients()", "ray.init(_node_ip_address=x)", "options = {'_node_ip_address': 0}",
    ],
)  # fmt: skip
def test_private_uses_are_recognised(code):
    assert list(private_uses("src.module", ast.parse(code)))
