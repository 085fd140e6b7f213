"""The requirements files agree, and `pip install .` installs no module of the project."""

import ast
import importlib.metadata
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.commands import ROOT


def requirements(name):
    """The requirements in a file, without those of the files that it refers to."""
    lines = (line.partition("#")[0].strip() for line in (ROOT / name).read_text(encoding="utf-8").splitlines())
    return [Requirement(line) for line in lines if line and not line.startswith("-")]


def test_requirements_are_pinned_once_in_the_lock():
    lock = requirements("requirements-lock.txt")
    assert all(re.fullmatch(r"==[\w.]+", str(one.specifier)) for one in lock)
    names = [canonicalize_name(one.name) for one in lock]
    assert len(names) == len(set(names))
    assert [one.name.lower() for one in lock] == sorted(one.name.lower() for one in lock)
    pins = {canonicalize_name(one.name): str(one.specifier) for one in lock}
    files = {path.name for path in ROOT.glob("requirements*.txt")} - {"requirements-lock.txt"}
    for file in files:
        for one in requirements(file):
            if file == "requirements-bench.txt" or one.name.startswith(
                "nvidia-"
            ):  # what hardly anybody needs has pins of its own
                assert re.fullmatch(r"==[\w.]+", str(one.specifier)), f"{file}: {one}"
            else:
                assert str(one.specifier) in ("", pins[canonicalize_name(one.name)]), f"{file}: {one}"


# Listed for another reason than an import.
NOT_IMPORTED = {
    "hydra-joblib-launcher": "a plugin, which Hydra finds by itself",
    "importlib-resources": "TensorFlow Datasets imports it and does not declare it",
}
# Imported where it is there.
OPTIONAL = {"pynvml": "comes with the driver's tools; without it there are no energy counters of GPUs"}


def imported_modules():
    """Top-level names of the third-party modules that src/ and recipes/ import."""
    names = set()
    for path in [*(ROOT / "src").rglob("*.py"), *(ROOT / "recipes").rglob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                names.add(node.module)
    return {name.partition(".")[0] for name in names} - sys.stdlib_module_names - {"src", "recipes"}


def test_all_that_is_imported_is_listed_and_all_that_is_listed_is_imported():
    files = ("requirements.txt", "requirements-ray.txt", "requirements-slurm.txt", "requirements-onnx.txt")
    listed = {file: {canonicalize_name(one.name) for one in requirements(file)} for file in files}
    packages = importlib.metadata.packages_distributions()
    providers = {name: {canonicalize_name(package) for package in packages.get(name, [])} for name in imported_modules()}
    everywhere = set().union(*listed.values())
    assert {name for name in providers if not providers[name] & everywhere} == set(OPTIONAL)
    assert listed["requirements.txt"] - set().union(*providers.values()) == set(NOT_IMPORTED)


def test_pip_install_installs_no_modules():
    setup = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]
    assert setup["packages"] == setup["py-modules"] == []
    assert setup["dynamic"]["dependencies"] == {"file": ["requirements-lock.txt"]}


def test_wheel_has_only_metadata(tmp_path):
    for needed in ("setuptools", "wheel"):
        pytest.importorskip(needed)  # not every environment has them, and getting them takes a network
    for name in ("pyproject.toml", "README.md", "requirements-lock.txt"):
        shutil.copy(ROOT / name, tmp_path)
    for folder in ("recipes", "src", "conf"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    build = "from setuptools import build_meta; build_meta.build_wheel('.')"
    subprocess.run([sys.executable, "-c", build], cwd=tmp_path, capture_output=True, timeout=60, check=True)
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert names
    assert all(".dist-info/" in name for name in names), names
