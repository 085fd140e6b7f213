"""Exceptions whose text is a message to the user."""

import contextlib
import errno
from collections.abc import Iterator


class UserError(Exception):
    """An error that the user can correct. Its text is one sentence that says what is wrong and what to type instead.

    Commands print it without a traceback and exit with status 2, as command lines do for an invalid option.
    """


class ResumableError(UserError):
    """An error that ends a run which can be resumed once its cause is corrected."""


class WorkerError(ResumableError):
    """Another worker of a run on several machines has failed, or cannot be reached."""


class OutOfMemoryError(ResumableError):
    """Out of memory. Resumable: with fewer processes beside it the run may succeed."""


class DiskFullError(ResumableError):
    """A disk is full."""

    def __init__(self) -> None:
        super().__init__(
            "No space is left on the disk of mlruns, or on that of temporary files; free some, and type the same command "
            "again: the run resumes from its last checkpoint."
        )


class SweepError(ResumableError):
    """Jobs of a sweep have failed.

    Args:
        failed: number of jobs that failed.
        jobs: number of jobs of the sweep.
        first: the failure of the first one.
    """

    def __init__(self, failed: int, jobs: int, first: str):
        super().__init__(
            f"{failed} of {jobs} jobs failed; the first: {first} Type the same command again to repeat the unfinished jobs."
        )


class PrunedError(Exception):
    """A search has pruned the job. Not an error of the user: the run ends as KILLED, with this text as the reason."""


@contextlib.contextmanager
def translate_disk_full() -> Iterator[None]:
    """Turn the OSError of a full disk into a message to the user.

    Raises:
        DiskFullError: a disk is full, or a quota is exceeded.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise DiskFullError from error
