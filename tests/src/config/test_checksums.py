"""Checksums of files that are kept: unchanged files are not read again, and changed ones are noticed."""

import hashlib
import os

import pytest

from src import config, datasets
from src.config import checksums
from src.config.checksums import Checksums
from src.errors import UserError
from tests import own_data as files


@pytest.fixture
def read(monkeypatch):
    """The names of the files that are read from now on. Files count as settled at once."""
    monkeypatch.setattr(checksums, "SETTLED", -1.0)
    names, digest = [], hashlib.file_digest

    def count(file, name):
        names.append(os.path.basename(file.name))
        return digest(file, name)

    monkeypatch.setattr(hashlib, "file_digest", count)
    return names


def sums(folder, kept):
    """The checksums of all files of a folder, which are then kept."""
    of_files = Checksums(kept)
    result = {path.name: of_files.of(path) for path in sorted(folder.iterdir())}
    of_files.save()
    return result


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "files").mkdir()
    for name in "abc":
        (tmp_path / "files" / name).write_text(f"the text {name}")
    return tmp_path / "files"


def test_unchanged_files_are_read_once(folder, tmp_path, read):
    first = sums(folder, tmp_path / "kept.json")
    assert first == {name: hashlib.blake2b(f"the text {name}".encode()).hexdigest() for name in "abc"}
    assert sums(folder, tmp_path / "kept.json") == first
    assert read == ["a", "b", "c"]


def rewrite(path):
    path.write_text("the text B")


def rewrite_and_set_the_time_back(path):
    status = path.stat()
    path.write_text("the text B")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def replace(path):
    status = path.stat()
    other = path.with_name("other")
    other.write_text("the text B")
    os.utime(other, ns=(status.st_atime_ns, status.st_mtime_ns))
    other.rename(path)


@pytest.mark.parametrize("change", [rewrite, rewrite_and_set_the_time_back, replace])
def test_a_changed_file_of_the_same_size_is_noticed(folder, tmp_path, read, change):
    before = sums(folder, tmp_path / "kept.json")
    read.clear()
    change(folder / "b")
    after = sums(folder, tmp_path / "kept.json")
    assert read == ["b"]
    assert after == before | {"b": hashlib.blake2b(b"the text B").hexdigest()}


def test_a_file_that_has_just_been_written_is_read_again(folder, tmp_path, read, monkeypatch):
    monkeypatch.setattr(checksums, "SETTLED", 60.0)
    sums(folder, tmp_path / "kept.json")
    sums(folder, tmp_path / "kept.json")
    assert read == [*"abc", *"abc"]


def test_files_that_are_gone_are_forgotten(folder, tmp_path, read):
    sums(folder, tmp_path / "kept.json")
    (folder / "a").unlink()
    sums(folder, tmp_path / "kept.json")
    assert "files/a" not in (tmp_path / "kept.json").read_text()


@pytest.mark.parametrize("content", ["", "{", "\x00"])
def test_kept_checksums_that_cannot_be_read_are_replaced(folder, tmp_path, read, content):
    first = sums(folder, tmp_path / "kept.json")
    (tmp_path / "kept.json").write_text(content)
    read.clear()
    assert sums(folder, tmp_path / "kept.json") == sums(folder, tmp_path / "kept.json") == first
    assert read == ["a", "b", "c"]


def test_a_file_that_is_not_there_is_reported(tmp_path):
    with pytest.raises(UserError, match=r"nowhere cannot be read \(No such file or directory\); correct that"):
        Checksums(tmp_path / "kept.json").of(tmp_path / "nowhere")


def test_a_data_set_keeps_them_beside_what_is_prepared(settings, tmp_path, read):
    files.pictures(tmp_path / "flowers", count=6)
    typed = settings("dataset=images", f"dataset.path={tmp_path / 'flowers'}")
    prepared = tmp_path / "prepared"
    typed = typed.model_copy(update={"dataset": typed.dataset.model_copy(update={"data_dir": str(prepared)})})
    digest = config.with_digest(typed).dataset.digest
    assert not prepared.exists()  # nothing is left behind if the files turn out to be broken
    datasets.prepare(typed.dataset)
    assert config.with_digest(typed).dataset.digest == digest  # now they are kept
    read.clear()
    assert config.with_digest(typed).dataset.digest == digest
    assert read == []
    rewrite_and_set_the_time_back(tmp_path / "flowers" / "roses" / "04.png")
    assert config.with_digest(typed).dataset.digest != digest
    assert read == ["04.png"]
