"""Uploads the events of an outbox to MLflow, in order, while the run goes on; what cannot be uploaded stays in the outbox."""

import logging
import threading
import time
from collections.abc import Iterator
from typing import Any, Self

from src.tracking.client import PERMANENT_ERRORS
from src.tracking.outbox import METRICS_EVENT, Event, Outbox
from src.tracking.requests import send

log = logging.getLogger(__name__)

FLUSH_TIMEOUT = 5.0  # seconds that the end of a run waits for a server that does not answer
MAX_BATCH = 20  # metrics events in one request; MLflow accepts up to 1,000 metrics
POLL_INTERVAL = 0.25  # seconds between two checks for new events
MIN_RETRY_DELAY, MAX_RETRY_DELAY = 0.5, 30.0  # seconds; the delay doubles with each failed attempt


class Uploader:
    """Context manager that uploads the events of an outbox from a thread. This process holds the lock of the outbox.

    Attributes:
        failing_since: time.monotonic() of the first of the failed attempts in a row; None if the last one succeeded.
        last_error: of the last attempt; None if it succeeded.
    """

    def __init__(self, outbox: Outbox):
        self.outbox = outbox
        self.failing_since: float | None = None
        self.last_error: Exception | None = None
        self._flushing, self._stop = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._work, name="uploader", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self._stop.set()
        self._thread.join()

    def flush(self) -> bool:
        """Wait until the outbox is empty, or until MLflow has not answered for FLUSH_TIMEOUT. Return whether it is empty."""
        start = time.monotonic()
        self._flushing.set()
        while not self.outbox.is_empty:
            if self.failing_since is not None and time.monotonic() - max(self.failing_since, start) > FLUSH_TIMEOUT:
                return False
            time.sleep(0.02)
        return True

    def _work(self) -> None:
        delay = MIN_RETRY_DELAY
        while not self._stop.is_set():
            self.last_error = upload(self.outbox)
            if self.last_error is None:
                self.failing_since, delay = None, MIN_RETRY_DELAY
                self._stop.wait(POLL_INTERVAL)
            else:
                self.failing_since = self.failing_since or time.monotonic()
                if self._flushing.is_set():
                    self._stop.wait(MIN_RETRY_DELAY)
                else:
                    self._flushing.wait(delay)
                    delay = min(2 * delay, MAX_RETRY_DELAY)


def upload(outbox: Outbox) -> Exception | None:
    """Upload the pending events, oldest first. Return the error if not all of them could be uploaded.

    An event that MLflow rejects for good is moved to `rejected/`, with a warning; but the start of a run is retried.
    """
    for events in _batches(outbox.pending()):
        try:
            send(outbox, events)
        except Exception as error:  # anything that the network, the server or the database can raise
            if events[0].kind == "start" or getattr(error, "error_code", None) not in PERMANENT_ERRORS:
                log.debug("MLflow does not answer", exc_info=True)
                return error
            log.warning("MLflow rejects %s of a run: %s", events[0].kind, error)
            for event in events:
                event.reject(outbox.rejected)
        else:
            for event in events:
                event.delete()
    return None


def _batches(events: list[Event]) -> Iterator[list[Event]]:
    """Groups of events for one request each: consecutive metrics together, every other event alone."""
    batch: list[Event] = []
    for event in events:
        if batch and (event.kind != METRICS_EVENT or len(batch) == MAX_BATCH):
            yield batch
            batch = []
        if event.kind == METRICS_EVENT:
            batch.append(event)
        else:
            yield [event]
    if batch:
        yield batch
