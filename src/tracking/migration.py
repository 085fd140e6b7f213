"""Weights of earlier versions of this project, under the names that layers have now."""

import shutil

import h5py

RENAMED = {
    "trunk": "backbone",  # recipes.gpt
    "what_seen": "what_to_glimpse",  # recipes.hard_attention
    "where_seen": "where_to_glimpse",
    "core_seen": "glimpse_to_core",
    "core_kept": "core_to_core",
    "propose": "core_to_mean",
    "expect": "core_to_baseline",
}


def migrate_weights(path: str, copy: str) -> str:
    """Return the path of weights that the current recipes load: `path`, or `copy` with layers renamed, where that is needed.

    Args:
        path: of a .weights.h5 file; it is not changed.
        copy: where a changed copy is written.
    """
    with h5py.File(path) as file:
        names: list[str] = []
        file.visit(names.append)
    if not any(_migrated(name) != name for name in names):
        return path
    shutil.copyfile(path, copy)
    with h5py.File(copy, "r+") as file:
        for name in sorted(names, key=len, reverse=True):  # a group after what is in it
            parent, _, last = name.rpartition("/")
            if last in RENAMED:
                file.move(name, f"{parent}/{RENAMED[last]}" if parent else RENAMED[last])
            elif _is_ablation(name):
                del file[name]
    return copy


def _migrated(name: str) -> str:
    return "" if _is_ablation(name) else "/".join(RENAMED.get(part, part) for part in name.split("/"))


def _is_ablation(name: str) -> bool:
    """The policy of hard attention was a weight once."""
    return name.endswith("glimpses/vars/1")
