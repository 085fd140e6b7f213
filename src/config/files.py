"""The files of the user's own data that `dataset.path` names, and the split that each belongs to."""

import glob
import hashlib
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from src import terminal
from src.config.checksums import Checksums
from src.config.schema import Dataset, Settings
from src.errors import UserError

TABLES = (".csv", ".tsv", ".jsonl", ".ndjson", ".parquet")
EXTENSIONS: Mapping[str, tuple[str, ...]] = {  # of each builder of files; empty: any
    "texts": TABLES, "pairs": TABLES, "series": TABLES, "arrays": (".npz",), "corpus": (),
    "images": (".jpg", ".jpeg", ".png"), "audio": (".wav",),
}  # fmt: skip
EXAMPLES = {
    "texts": "reviews.csv", "pairs": "sentences.tsv", "series": "load.csv", "arrays": "digits.npz", "corpus": "'books/*.txt'",
    "images": "flowers", "audio": "words",
}  # fmt: skip
CONTENTS = {"images": "pictures", "audio": "clips"}  # what is in the folders of classes that these builders read
SUPPORTED = (
    "supported are images, audio clips, texts and pairs of texts, time series, arrays of images, and text files "
    "(dataset=images, audio, texts, pairs, series, arrays, corpus)"
)
SPLITS = {
    "train": "train", "training": "train", "validation": "validation", "valid": "validation", "val": "validation",
    "dev": "validation", "test": "test",
}  # fmt: skip
ANNOTATIONS = {"annotations", "bboxes", "boxes", "labels", "masks"}  # names of folders that hold no class of images
READING = ("builder", "inputs", "targets", "time", "encoding", "sample_rate", "skip_broken")  # what examples depend on
ALSO_READING = ("series_id", "resample")  # the same where they are set: earlier versions had none, and the same digests
DATA_DIR = "~/tensorflow_datasets"  # of prepared data, TFDS's default
MAX_NAMED = 5  # folders in a message


def check_path(section: Mapping[str, Any]) -> None:
    """Check `dataset.path` of the section `dataset`, before it is validated.

    Raises:
        UserError: a data set of files has no path or one that names no usable files, or another data set has a path.
    """
    builder, path = str(section.get("builder")), section.get("path")
    if builder in EXTENSIONS:
        if not path:
            raise UserError(f"dataset={builder} needs your own data; type for example dataset.path={EXAMPLES[builder]}.")
        if section.get("digest") is None:
            find_files(builder, str(path))
    elif path is not None:
        raise UserError(f"dataset.path works with dataset={', '.join(EXTENSIONS)}, not with the builder {builder}.")


def find_files(builder: str, path: str) -> dict[str, list[Path]]:
    """Find the files of a data set.

    A folder has the splits that its files, or folders, are named after: train.csv, validation.csv and test.csv.

    Args:
        builder: the kind of data, a key of `EXTENSIONS`.
        path: of a file or folder, or a glob.

    Returns:
        {split: files}, or, of images and audio, {split: the folders of the classes}. "train" is always there.

    Raises:
        UserError: there is no such file, it is empty, or it has another extension or structure.
    """
    location = Path(path).expanduser()
    if builder in CONTENTS:
        return _class_folders(builder, location)
    if location.is_dir():
        files = _in_folder(builder, location)
    elif location.exists():
        files = {"train": [location]}
    else:
        matches = sorted(Path(match) for match in glob.glob(str(location), recursive=True) if os.path.isfile(match))
        if not matches:
            reason = "matches no file" if glob.has_magic(path) else "does not exist"
            raise UserError(f"dataset.path={path} {reason}; relative paths start in {Path.cwd()}.")
        files = _by_split(matches) or {"train": matches}
    all_files = [file for of_split in files.values() for file in of_split]
    if builder == "arrays" and len(all_files) > 1:
        raise UserError(f"dataset.path={path} names {len(all_files)} files, but dataset=arrays reads one; type its path.")
    for file in all_files:
        _check_file(builder, file)
    return files


def default_name(path: str | None) -> str | None:
    """The name of a data set that is read from a path: that of the file or folder; of a glob that of its folder."""
    if not path:
        return None
    location = Path(path).expanduser()
    while glob.has_magic(location.name) and not location.exists():
        location = location.parent
    location = location.resolve()
    return location.stem if location.is_file() else location.name


def with_digest(settings: Settings) -> Settings:
    """The settings with the digest of the user's own files, so that a run is resumed only with the data it began with.

    Raises:
        UserError: the files are not there.
    """
    dataset = settings.dataset
    if dataset.path is None or dataset.digest is not None:
        return settings
    return settings.model_copy(update={"dataset": dataset.model_copy(update={"digest": digest_of(dataset)})})


def digest_of(settings: Dataset) -> str:
    """A digest of the files that `dataset.path` names and of how they are read: 16 hexadecimal digits.

    Raises:
        UserError: the files are not there.
    """
    digest = hashlib.blake2b(digest_size=8)
    also = [(name, value) for name in ALSO_READING if (value := getattr(settings, name)) is not None]
    digest.update(repr([*(getattr(settings, name) for name in READING), *also]).encode())
    checksums = Checksums(_kept_checksums(settings))
    with terminal.phase(f"Looking for changes of {settings.path}"):
        for split, paths in find_files(settings.builder, str(settings.path)).items():
            for path in paths:
                for file in files_in(path) if path.is_dir() else [path]:
                    digest.update(repr([split, str(file.relative_to(path.parent)), checksums.of(file)]).encode())
    checksums.save()
    return digest.hexdigest()


def _kept_checksums(settings: Dataset) -> Path:
    """The file that keeps the checksums of a data set's files, beside the prepared data; before there is any, none are kept."""
    folder = Path(settings.data_dir or os.environ.get("TFDS_DATA_DIR") or DATA_DIR).expanduser() / settings.builder
    path = hashlib.blake2b(os.path.abspath(str(settings.path)).encode(), digest_size=8).hexdigest()
    return folder / f".checksums-{path}.json"


def files_in(folder: Path) -> list[Path]:
    """All files in a folder and in those within it, sorted, without hidden ones."""
    files = (file for file in folder.rglob("*") if file.is_file())
    return sorted(file for file in files if not any(part.startswith(".") for part in file.relative_to(folder).parts))


def _check_file(builder: str, file: Path) -> None:
    extensions = EXTENSIONS[builder]
    if extensions and file.suffix.lower() not in extensions:
        raise UserError(f"{file} is no file for dataset={builder}, which reads {', '.join(extensions)}.")
    if not file.stat().st_size:
        raise UserError(f"{file} is empty; choose another dataset.path.")


def _in_folder(builder: str, folder: Path) -> dict[str, list[Path]]:
    extensions = EXTENSIONS[builder] or (".txt",)
    files = sorted(file for file in folder.iterdir() if file.is_file() and file.suffix.lower() in extensions)
    by_split = _by_split([file for file in files if _split_of(file)])
    if by_split:
        return by_split
    if builder == "corpus" and files:
        return {"train": files}
    names = ", ".join(f"{split}{extensions[0]}" for split in ("train", "validation", "test"))
    raise UserError(
        f"The folder {folder} has no train{extensions[0]}; name the files of its splits {names}, or type the path of one file."
    )


def _by_split(files: Iterable[Path]) -> dict[str, list[Path]]:
    """{split: files} if all are named after splits, and some after train; else empty."""
    by_split: dict[str, list[Path]] = {}
    for file in files:
        by_split.setdefault(_split_of(file), []).append(file)
    return {} if "" in by_split or "train" not in by_split else by_split


def _split_of(file: Path) -> str:
    """The split that a file is named after: train.csv, train-00001-of-00002.parquet; empty if there is none."""
    match = re.match(r"([a-z]+)([-_]\d.*)?\.", file.name.lower())
    return SPLITS.get(match[1], "") if match else ""


# --- folders of classes -----------------------------------------------------------------------------------------------


def _class_folders(builder: str, root: Path) -> dict[str, list[Path]]:
    if not root.is_dir():
        reason = "is a file" if root.exists() else "does not exist"
        raise UserError(f"dataset.path={root} {reason}; dataset={builder} reads a folder with a folder for each class.")
    folders = _folders(root)
    named = {split: folder for folder in folders if (split := SPLITS.get(folder.name.lower()))}
    splits = {split: _folders(folder) for split, folder in named.items()} if "train" in named else {"train": folders}
    names = {split: {folder.name for folder in of_split} for split, of_split in splits.items()}
    train = named.get("train", root) if "train" in named else root
    advice = f"put the {CONTENTS[builder]} of each class into a folder with its name"
    if not names["train"]:
        raise UserError(f"{train} has no folders; {advice}.")
    annotations = sorted(name for name in names["train"] if name.lower() in ANNOTATIONS)
    if builder == "images" and annotations:
        raise UserError(
            f"{train / annotations[0]} looks like annotations, but detection and segmentation are not supported; {SUPPORTED}."
        )
    if len(names["train"]) == 1:
        raise UserError(f"{train} has only one class, {names['train'].pop()}; classification needs at least two folders.")
    for split, of_split in names.items():
        if more := sorted(of_split - names["train"]):
            listed = ", ".join(more[:MAX_NAMED]) + (f" and {len(more) - MAX_NAMED} more" if len(more) > MAX_NAMED else "")
            raise UserError(f"{named[split]} has classes that {train} has not ({listed}); add them there, or remove them.")
        if not of_split:
            raise UserError(f"{named[split]} has no folders; {advice}.")
    return splits


def _folders(root: Path) -> list[Path]:
    return sorted(folder for folder in root.iterdir() if folder.is_dir() and not folder.name.startswith("."))
