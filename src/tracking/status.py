"""The final status of runs: FINISHED, FAILED with the reason, or KILLED; also of runs whose process was killed."""

import contextlib
import logging
import traceback
from collections.abc import Callable, Iterator

from src import terminal
from src.errors import DiskFullError, PrunedError, ResumableError, UserError, translate_disk_full
from src.redaction import redact
from src.tracking.client import short_message, tracking_uri
from src.tracking.outbox import Outbox
from src.tracking.run_logger import RunLogger
from src.tracking.uploader import Uploader, upload

log = logging.getLogger(__name__)

UPLOADED_LATER = "What is not uploaded yet is kept in mlruns/unfinished; the next run uploads it, or: python -m src.sync"
PROCESS_KILLED = "The process ended without a status: it was killed, perhaps for lack of memory, or the machine went down."


@contextlib.contextmanager
def track(run_logger: RunLogger, log_start: Callable[[], None], announce: bool = True) -> Iterator[None]:
    """Upload what the block logs, while it runs, and log how it ends.

    FINISHED if the block completes; KILLED on Ctrl-C, a signal, or if a search prunes the run; FAILED on any other exception,
    with its message as the tag `failure` and its traceback as an artifact. The log file becomes an artifact in each case.

    Args:
        run_logger: of the run; its outbox is locked by this process.
        log_start: logs the start of the run, or that it is resumed.
        announce: whether the terminal says at the end where to look at the run.
    """
    outbox, status, would_fail_again = run_logger.outbox, "FAILED", False
    with outbox.closing(), Uploader(outbox) as uploader:
        with translate_disk_full():
            log_start()
        try:
            with translate_disk_full():
                yield
            status = "FINISHED"
        except KeyboardInterrupt:  # Ctrl-C, or a signal (`src.signals`)
            status = "KILLED"
            raise
        except PrunedError as error:
            status, would_fail_again = "KILLED", True
            run_logger.set_tags(failure=str(error))
            raise
        except Exception as error:
            would_fail_again = isinstance(error, UserError) and not isinstance(error, ResumableError)
            if isinstance(error, DiskFullError):
                outbox.release_space()
            with _warn_on_os_error():
                run_logger.set_tags(failure=f"{type(error).__name__}: {error}"[:5000])
                run_logger.log_texts(redact({"traceback.txt": traceback.format_exc()}))
            raise
        finally:
            with _warn_on_os_error():
                run_logger.log_log_file()
            with _warn_on_os_error():
                run_logger.end(status)
            if status == "FINISHED" or would_fail_again:
                outbox.update_metadata(closed=True)
            with terminal.phase("Uploading to MLflow"):
                uploaded = uploader.flush()
            if not uploaded:
                reason = short_message(uploader.last_error)
                log.warning("MLflow at %s does not answer (%s). %s", tracking_uri(), reason, UPLOADED_LATER)
            run_logger.run_id = outbox.metadata.get("run_id")
            if announce:
                log.info("%s", run_logger.describe())


@contextlib.contextmanager
def _warn_on_os_error() -> Iterator[None]:
    """Log an OSError as a warning, so that it does not hide the exception that ended the run."""
    try:
        yield
    except OSError as error:
        log.warning("Not everything about the end of this run could be written (%s).", error)


def sync() -> list[str]:
    """Upload what the runs of this folder have left in their outboxes, of those runs whose process is gone.

    A run without a status was killed; its status becomes KILLED, and it can still be resumed.

    Returns:
        For each run that could not be uploaded completely, the error.
    """
    errors = []
    for outbox in Outbox.all():
        if not outbox.try_lock():
            continue
        pending = {event.kind for event in outbox.pending()}
        if "started" not in outbox.metadata and "start" not in pending:
            outbox.delete()  # killed before it logged anything
            continue
        with outbox.closing():
            if "status" not in outbox.metadata and "end" not in pending:
                run_logger = RunLogger(outbox)
                run_logger.log_log_file()
                run_logger.set_tags(failure=PROCESS_KILLED)
                run_logger.end("KILLED")
            error = upload(outbox)
            if error is not None:
                errors.append(short_message(error))
    return errors
