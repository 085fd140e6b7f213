"""`docstrings`: docstrings of Python libraries, with the library as class."""

import ast
import collections
import gc
import importlib.metadata
import importlib.util
import re
import warnings
from collections.abc import Iterator
from pathlib import Path

import tensorflow_datasets as tfds

LIBRARIES = {  # import name: distribution
    "keras": "keras",
    "matplotlib": "matplotlib",
    "numpy": "numpy",
    "pandas": "pandas",
    "scipy": "scipy",
    "sklearn": "scikit-learn",
    "statsmodels": "statsmodels",
}
# Names that reveal the library; in the texts they are replaced by `library`.
NAMES = re.compile(
    r"\b(keras|tensorflow|tf|matplotlib|mpl|pyplot|plt|numpy|np|pandas|pd|scipy|sp|sklearn|scikit-learn|skl|statsmodels|sm)\b",
    re.IGNORECASE,
)
DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
SHORTEST, LONGEST = 60, 1_000  # characters: shorter docstrings are left out, longer ones truncated


class Docstrings(tfds.core.GeneratorBasedBuilder):
    """Docstrings of seven Python libraries, with their names masked."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description="The documentation written in the sources of seven installed Python libraries, one example for each "
            "module, class and function, tests left out. The label is the library; the names of all of them are masked.",
            features=tfds.features.FeaturesDict(
                {"text": tfds.features.Text(), "label": tfds.features.ClassLabel(names=list(LIBRARIES))}
            ),
            supervised_keys=("text", "label"),
            metadata=tfds.core.MetadataDict({name: importlib.metadata.version(name) for name in LIBRARIES.values()}),
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Iterator[tuple[str, dict]]]:
        return {"train": self._generate_examples()}

    def _generate_examples(self) -> Iterator[tuple[str, dict]]:
        texts = set()
        for library in LIBRARIES:
            for location, text in docstrings(library):
                text = NAMES.sub("library", text[:LONGEST])
                if text not in texts:  # a duplicate could be in two splits
                    texts.add(text)
                    yield location, {"text": text, "label": library}


def docstrings(library: str) -> Iterator[tuple[str, str]]:
    """(location, docstring) of all docstrings of an installed library, without importing it.

    A location is like "numpy/linalg/_linalg.py:12".
    """
    spec = importlib.util.find_spec(library)
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(f"{library} is not installed.")
    root = Path(spec.origin).parent
    for path in sorted(root.rglob("*.py")):
        parts = path.relative_to(root.parent).parts
        if "tests" in parts or path.stem.endswith("_test"):
            continue
        for line, text in _docstrings_of_file(path):
            if len(text) >= SHORTEST:
                yield f"{'/'.join(parts)}:{line}", text


def _docstrings_of_file(path: Path) -> list[tuple[int, str]]:
    """(line, docstring) of the module, which has line 0, and of its classes and functions."""
    # A syntax tree is many objects and no cycles: the collector, which looks through all of them again and again, would
    # take two thirds of the time.
    gc.disable()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about escapes in strings of the library
            tree = ast.parse(path.read_text(encoding="utf-8"))
        documented = [node for node in _statements(tree) if isinstance(node, DOCUMENTED)]
        return [(getattr(node, "lineno", 0), text) for node in documented if (text := ast.get_docstring(node))]
    finally:
        gc.enable()


def _statements(tree: ast.Module) -> Iterator[ast.AST]:
    """The module and its statements, breadth first like `ast.walk`, without walking their expressions, which are most nodes."""
    waiting = collections.deque[ast.AST]([tree])
    while waiting:
        node = waiting.popleft()
        yield node
        waiting.extend(n for n in ast.iter_child_nodes(node) if isinstance(n, ast.stmt | ast.excepthandler | ast.match_case))
