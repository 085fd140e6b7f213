"""The digest of the code, which decides whether an interrupted run may be resumed."""

import pytest

from src.tracking.provenance import code_digest

MODULE = '''"""A module."""

RATE = 0.1  # a constant


def train(steps):
    """Train."""
    return "steps", steps * RATE
'''


@pytest.fixture
def digest(tmp_path):
    """digest(source): of a project with one module."""

    def of(source, name="model.py"):
        code_digest.cache_clear()
        folder = tmp_path / "recipes"
        folder.mkdir(exist_ok=True)
        for path in folder.iterdir():
            path.unlink()
        (folder / name).write_text(source, encoding="utf-8")
        return code_digest(tmp_path)

    yield of
    code_digest.cache_clear()


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"""A module."""', '"""A module that reached 99 %."""'),
        ('"""Train."""', '"""Train for a number of steps."""'),
        ('    """Train."""\n', ""),
        ("  # a constant", ""),
        ("\n\n\ndef", "\n\n# a section\n\ndef"),
        ("steps * RATE", "(steps * RATE)"),
    ],
    ids=["module docstring", "docstring", "no docstring", "comment", "layout", "parentheses"],
)
def test_code_digest_ignores_docstrings_comments_and_layout(digest, old, new):
    assert old in MODULE
    assert digest(MODULE.replace(old, new)) == digest(MODULE)


@pytest.mark.parametrize(("old", "new"), [("0.1", "0.2"), ("steps * RATE", "RATE * steps"), ('"steps"', '"step"')])
def test_code_digest_depends_on_code(digest, old, new):
    assert digest(MODULE.replace(old, new)) != digest(MODULE)


def test_code_digest_depends_on_module_names(digest):
    assert digest(MODULE, "renamed.py") != digest(MODULE)
