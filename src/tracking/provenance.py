"""Provenance of a run: its command, code, versions and machine."""

import ast
import functools
import hashlib
import importlib.metadata
import os
import platform
import shlex
import subprocess
import sys
from pathlib import Path

from src.config import schema
from src.config.command_line import COMMAND
from src.config.renamed import migrate_command
from src.redaction import redact

CODE_TAG = "code"
PACKAGES = ("tensorflow", "keras", "tensorflow-datasets", "hydra-core", "mlflow", "numpy")
ROOT = Path(__file__).resolve().parents[2]
PROVENANCE_TAGS = {
    CODE_TAG,
    "git.commit",
    "git.dirty",
    "python",
    "backend",
    "machine",
    "device",
    "replicas",
    "workers",
    "cores",
    "tf32",
    *(f"version.{package}" for package in PACKAGES),
}


def environment(strategy: schema.Strategy) -> dict[str, str]:
    """What results depend on besides settings and data: {tag: value} of code, versions, machine and the devices in use."""
    import keras  # not at the top: some callers need the code digest only

    from src.training import strategies

    tags = {
        **software(),
        "backend": keras.config.backend(),
        "machine": f"{platform.system()} {platform.machine()}",
        **strategies.in_force(strategy),
    }
    commit = git("rev-parse", "HEAD")
    if commit:
        tags |= {"git.commit": commit.strip(), "git.dirty": str(bool(git("diff", "HEAD"))).lower()}
    return tags


def software() -> dict[str, str]:
    """The digest of the code, and the versions of Python and of the libraries: {tag: value}."""
    versions = {f"version.{package}": importlib.metadata.version(package) for package in PACKAGES}
    return {CODE_TAG: code_digest(), "python": platform.python_version(), **versions}


def command() -> str:
    """The command line of this process; of a job of a sweep, which may run in any process, that of the sweep."""
    return os.environ.get(COMMAND) or shlex.join(["python", "-m", "src.run", *sys.argv[1:]])


def is_this_command(recorded: str) -> bool:
    """Whether a command line that a run has recorded is that of this process, apart from renamed settings and `resume`."""
    return migrate_command(recorded) == migrate_command(redact(command()))


@functools.cache
def code_digest(root: Path = ROOT) -> str:
    """A digest of the code of this project, committed or not: 32 hexadecimal digits.

    Docstrings, comments and layout do not count, so that a run can be resumed after a page was edited.

    Args:
        root: the folder with recipes/ and src/.
    """
    digest = hashlib.blake2b(digest_size=16)
    for path in sorted(path for folder in ("recipes", "src") for path in (root / folder).rglob("*.py")):
        digest.update(f"{path.relative_to(root)}\0{_without_docstrings(path.read_bytes())}\0".encode())
    return digest.hexdigest()


def _without_docstrings(source: bytes) -> str:
    """The code of a module without docstrings and comments, laid out in one way."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and ast.get_docstring(node):
            node.body = node.body[1:] or [ast.Pass()]
    return ast.unparse(tree)


def git(*arguments: str) -> str | None:
    """The output of a git command; None outside a git checkout, or where git is not installed."""
    try:
        process = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return process.stdout
