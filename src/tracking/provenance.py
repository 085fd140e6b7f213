"""Where a run comes from: what was typed, the code, the versions of the stack, the machine."""

import functools
import hashlib
import importlib.metadata
import os
import platform
import shlex
import subprocess
import sys
from pathlib import Path

from src.config.command_line import COMMAND

CODE = "code"  # tag: digest of it
STACK = ("tensorflow", "keras", "tensorflow-datasets", "hydra-core", "mlflow", "numpy")
ROOT = Path(__file__).resolve().parents[2]
SURROUNDINGS = {
    CODE,
    "git.commit",
    "git.dirty",
    "python",
    "backend",
    "machine",
    "device",
    *(f"version.{package}" for package in STACK),
}


def stack() -> dict[str, str]:
    """What results depend on besides settings and data."""
    import keras  # not for those that only want to know the code

    from src.training import strategies

    found = {
        CODE: code(),
        "backend": keras.config.backend(),
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}",
        "device": strategies.device_names(),
        **{f"version.{package}": importlib.metadata.version(package) for package in STACK},
    }
    commit = git("rev-parse", "HEAD")
    if commit:
        found |= {"git.commit": commit.strip(), "git.dirty": str(bool(git("diff", "HEAD"))).lower()}
    return found


def command() -> str:
    """What was typed; in a job of a sweep, which may run anywhere, what was typed for the sweep."""
    return os.environ.get(COMMAND) or shlex.join(["python", "-m", "src.run", *sys.argv[1:]])


@functools.cache
def code() -> str:
    """A digest of the code of this project, committed or not: 32 hexadecimal digits."""
    digest = hashlib.blake2b(digest_size=16)
    for path in sorted(path for folder in ("recipes", "src") for path in (ROOT / folder).rglob("*.py")):
        digest.update(f"{path.relative_to(ROOT)}\0".encode() + path.read_bytes())
    return digest.hexdigest()


def git(*arguments: str) -> str | None:
    """What git says; nothing outside a git checkout, or where git is not installed."""
    try:
        done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout
