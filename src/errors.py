"""Exceptions that are messages to the user."""

import contextlib
import errno
from collections.abc import Iterator


class UserError(Exception):
    """Something the user can put right. Its text is one sentence saying what is wrong and what to type instead.

    It is printed without a traceback and ends the command with exit status 2, as a wrong option does everywhere else.
    """


class ResumableError(UserError):
    """One that ends a run which can go on, once that is put right."""


class OutOfMemoryError(ResumableError):
    """The memory did not suffice; on another day, or beside fewer processes, it may."""


class DiskFullError(ResumableError):
    """No space is left on a disk."""

    def __init__(self) -> None:
        super().__init__(
            "No space is left on the disk of mlruns, or on that of temporary files; make some, and type the same again: the "
            "run goes on from its last checkpoint."
        )


class SweepError(ResumableError):
    """Jobs of a sweep have failed."""

    def __init__(self, failed: int, jobs: int, first: str):
        super().__init__(
            f"{failed} of {jobs} jobs failed; the first: {first} Type the same again to run again what has not finished."
        )


class PrunedError(Exception):
    """A search gives a job up, since it is behind the others. That is no mistake: the run ends as KILLED, with this reason."""


@contextlib.contextmanager
def enough_space() -> Iterator[None]:
    """Says what to do where there is not.

    Raises:
        DiskFullError: a disk is full, or what one may put on it is used up.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise DiskFullError from error
