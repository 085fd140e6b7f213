"""Checksums of files, kept in a file of their own so that what has not changed is not read again."""

import contextlib
import hashlib
import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

from src.errors import UserError

SETTLED = 2.0  # seconds without a change, after which another one gives a file other times; FAT's are as coarse as that


class Checksums:
    """The checksums of files. A file is read unless its size, times and inode are those that are kept with its checksum.

    The trap: a file can be changed twice within the resolution of the clock that gives it its times, and read in between. So
    checksums of files that have just been changed are not kept; but where a network file system's clock is seconds behind, the
    first of the two may be. (To set the time of modification back, as `cp -p` does, deceives nobody: the time of the change of
    status is set by the system.)

    Args:
        kept: the JSON file that keeps them, {path: [size, two times in ns, inode, checksum]}.
    """

    def __init__(self, kept: Path):
        self._kept = kept
        self._before: dict[str, list[Any]] = {}
        self._now: dict[str, list[Any]] = {}
        with contextlib.suppress(OSError, ValueError):  # there are none, or they cannot be used
            self._before = json.loads(kept.read_text(encoding="utf-8"))

    def of(self, file: Path) -> str:
        """The checksum of a file's content: BLAKE2b, 128 hexadecimal digits.

        Raises:
            UserError: it cannot be read.
        """
        key = str(file.absolute())
        try:
            status = file.stat()
            state = [status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino]
            *before, checksum = self._before.get(key, [""])
            if before == state:
                self._now[key] = [*state, checksum]
                return str(checksum)
            settled = time.time() - max(status.st_mtime, status.st_ctime) > SETTLED
            with open(file, "rb") as content:
                checksum = hashlib.file_digest(content, "blake2b").hexdigest()
        except OSError as error:
            raise UserError(
                f"{file} cannot be read ({error.strerror}); correct that, or choose another dataset.path."
            ) from None
        if settled:
            self._now[key] = [*state, checksum]
        return checksum

    def save(self) -> None:
        """Keep the checksums of the files that were asked for, and no others, if that is possible."""
        folder = self._kept.parent
        if self._now == self._before or not os.access(folder, os.W_OK):
            return
        with tempfile.NamedTemporaryFile(
            "w", dir=folder, delete=False, encoding="utf-8"
        ) as file:  # renamed when it is complete
            json.dump(self._now, file)
        os.replace(file.name, self._kept)
