"""The encoding of files of text."""

from pathlib import Path

from src.errors import UserError


def python_encoding(encoding: str) -> str:
    """The encoding to open a file with: that of the settings, where UTF-8 may begin with a byte order mark, as Excel writes."""
    return "utf-8-sig" if encoding == "utf-8" else encoding


def encoding_error(path: Path, encoding: str) -> UserError:
    """The error for a file with another encoding, with the first line that cannot be decoded."""
    with open(path, "rb") as file:
        line = next((number for number, raw in enumerate(file, 1) if not _can_decode(raw, encoding)), 1)
    return UserError(f"{path}, line {line}: this is no text in {encoding}; type its encoding, as in dataset.encoding=latin-1.")


def _can_decode(raw: bytes, encoding: str) -> bool:
    try:
        raw.decode(encoding)
    except UnicodeError:
        return False
    return True
