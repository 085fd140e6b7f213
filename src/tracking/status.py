"""How a run ended, which is the truth: FINISHED, FAILED with the reason, or KILLED; and all of it is told, sooner or later."""

import contextlib
import logging
import traceback
from collections.abc import Callable, Iterator

from src.errors import DiskFullError, PrunedError, ResumableError, UserError, enough_space
from src.redaction import redacted
from src.tracking.client import address, first_line
from src.tracking.outbox import Journal
from src.tracking.run_logger import Account
from src.tracking.uploader import Delivery, deliver

log = logging.getLogger(__name__)

LATER = "What it was not told is kept in mlruns/unfinished; the next run tells it, or: python -m src.sync"
WITHOUT_A_WORD = "Its process ended without a word: it was killed, for want of memory perhaps, or the machine went down."


@contextlib.contextmanager
def told(account: Account, begin: Callable[[], None]) -> Iterator[None]:
    """What happens in the block is told to MLflow while it happens, and how it ended.

    FINISHED if the block ended; KILLED on Ctrl-C or a signal, or if a search gives it up; FAILED on any other exception, with
    its last line as the tag `failure` and its traceback among the artifacts. The log goes along in each case.

    Args:
        account: of the run, whose journal is locked by this process.
        begin: tells who the run is.
    """
    journal, status, hopeless = account.journal, "FAILED", False
    with journal.put_away(), Delivery(journal) as delivery:
        with enough_space():
            begin()
        try:
            with enough_space():
                yield
            status = "FINISHED"
        except KeyboardInterrupt:  # Ctrl-C, or a signal that `src.run` turns into it
            status = "KILLED"
            raise
        except PrunedError as error:
            status, hopeless = "KILLED", True
            account.tags(failure=str(error))
            raise
        except Exception as error:
            hopeless = isinstance(error, UserError) and not isinstance(error, ResumableError)  # it would fail again
            if isinstance(error, DiskFullError):
                journal.spend_reserve()
            with _as_far_as_there_is_room():
                account.tags(failure=f"{type(error).__name__}: {error}"[:5000])
                account.texts(redacted({"traceback.txt": traceback.format_exc()}))
            raise
        finally:
            with _as_far_as_there_is_room():
                account.log()
            with _as_far_as_there_is_room():
                account.end(status)
            if status == "FINISHED" or hopeless:
                journal.know(over=True)
            if not delivery.flush():
                uri, why = address(), first_line(delivery.why)
                log.warning("MLflow at %s does not answer (%s). %s", uri, why, LATER)
            account.run_id = journal.facts.get("run_id")


@contextlib.contextmanager
def _as_far_as_there_is_room() -> Iterator[None]:
    """What cannot be written does not hide why the run ended."""
    try:
        yield
    except OSError as error:
        log.warning("Not all of how this run ended could be written down (%s).", error)


def settle() -> list[str]:
    """Tells MLflow what runs of this folder have left untold, of those whose process is gone.

    One that has not said how it ended was killed; it can still go on.

    Returns:
        Of those that have something to tell still, what is in the way.
    """
    left = []
    for journal in Journal.all():
        if not journal.claim():
            continue
        told = {event.kind for event in journal.pending()}
        if "begun" not in journal.facts and "begin" not in told:
            journal.remove()  # it was killed before it was a run
            continue
        with journal.put_away():
            if "status" not in journal.facts and "end" not in told:
                account = Account(journal)
                account.log()
                account.tags(failure=WITHOUT_A_WORD)
                account.end("KILLED")
            why = deliver(journal)
            if why is not None:
                left.append(first_line(why))
    return left
