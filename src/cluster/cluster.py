"""The workers meet, agree, and learn at once when one of them ends.

The chief, worker 0, has a connection to each other worker; the others have one to the chief. Over them the workers compare what
they were started with, decide together when to stop and to save, and send the chief what it records. A process that ends closes
its connections, which the others notice within milliseconds; a machine or a network that is gone sends no signs of life.
"""

import contextlib
import json
import logging
import socket
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from typing import Any

from src.cluster.addresses import Addresses, split
from src.cluster.connection import END, FAILURE, MESSAGE, REPORT, STOPPED, Connection, frame
from src.errors import UserError, WorkerError

log = logging.getLogger(__name__)

PATIENCE = 5.0  # seconds in which the reason for an error of TensorFlow is learned: its own connections may notice it first
RETRY = 0.2  # seconds between two attempts to reach the chief


class Cluster:
    """The workers of a run, as one of them sees the others.

    Args:
        addresses: of all workers.
        timeout: seconds without a sign of life after which a worker is lost.

    Attributes:
        on_failure: called when another worker has failed, so that this one need not wait for it any longer.
    """

    def __init__(self, addresses: Addresses, timeout: float):
        self.addresses, self.timeout = addresses, timeout
        self.on_failure: Callable[[str], None] = lambda message: None
        self._on_report: Callable[[int, dict[str, float]], None] = lambda index, metrics: None
        self._connections: dict[int, Connection] = {}
        self._failure: str | None = None
        self._lock, self._failed = threading.Lock(), threading.Event()

    @property
    def index(self) -> int:
        """Of this worker."""
        return self.addresses.index

    @property
    def size(self) -> int:
        """Number of workers."""
        return len(self.addresses.workers)

    @property
    def is_chief(self) -> bool:
        """Whether this worker records the run."""
        return self.index == 0

    def name(self, index: int) -> str:
        """A worker, as sentences begin with it."""
        return f"{'The chief' if index == 0 else f'Worker {index}'} ({self.addresses.workers[index]})"

    # --- the beginning

    def meet(self, wait: float) -> None:
        """Connect to the other workers.

        Args:
            wait: seconds to wait for them at most.

        Raises:
            UserError: they do not come, or the address of this worker is not one of this machine.
        """
        host, port = split(self.addresses.workers[0])
        deadline = time.monotonic() + wait
        if self.is_chief:
            self._accept(host, port, deadline, wait)
        else:
            self._connect(host, port, deadline, wait)

    def _accept(self, host: str, port: int, deadline: float, wait: float) -> None:
        with _listen(host, port, deadline) as server:
            while len(self._connections) < self.size - 1:
                server.settimeout(max(deadline - time.monotonic(), 0.001))
                try:
                    connected, _ = server.accept()
                except TimeoutError:
                    missing = [self.name(index) for index in range(1, self.size) if index not in self._connections]
                    raise UserError(
                        f"{', '.join(missing)} cannot be reached after {wait:.0f} s; type the command there, too, or a larger "
                        "strategy.wait."
                    ) from None
                self._welcome(connected)

    def _welcome(self, connected: socket.socket) -> None:
        connected.settimeout(self.timeout)
        with contextlib.suppress(OSError):  # of whatever else connects to the port
            index = int.from_bytes(connected.recv(4), "big")  # the first that a worker sends
            if 0 < index < self.size and index not in self._connections:
                self._connections[index] = self._connection(connected, index)
                return
            there_is = f"is a worker {index} already" if index in self._connections else f"are {self.size} workers, from 0"
            connected.sendall(frame(FAILURE, f"there {there_is}; correct strategy.index, or the list of workers.".encode()))
        connected.close()

    def _connect(self, host: str, port: int, deadline: float, wait: float) -> None:
        while True:
            try:
                connected = socket.create_connection((host, port), timeout=self.timeout)
                break
            except OSError as error:
                if time.monotonic() > deadline:
                    reason = error.strerror or "no answer"
                    raise UserError(
                        f"The chief ({host}:{port}) cannot be reached after {wait:.0f} s ({reason}); type the command there, "
                        "too, or a larger strategy.wait."
                    ) from None
                time.sleep(RETRY)
        connected.sendall(self.index.to_bytes(4, "big"))
        self._connections[0] = self._connection(connected, 0)

    def _connection(self, connected: socket.socket, index: int) -> Connection:
        return Connection(
            connected, self.timeout,
            on_failure=lambda event: self._fail(index, event),
            on_report=lambda content: self._on_report(index, json.loads(content)),
        )  # fmt: skip

    # --- messages; all workers call the same methods in the same order

    def gather(self, content: bytes) -> list[bytes]:
        """What each worker passes, on the chief; empty on the others.

        Raises:
            WorkerError: a worker has failed.
        """
        if self.is_chief:
            return [content, *(self._receive(index) for index in sorted(self._connections))]
        self._connections[0].send(MESSAGE, content)
        return []

    def broadcast(self, content: bytes = b"") -> bytes:
        """What the chief passes, on all workers.

        Raises:
            WorkerError: a worker has failed.
        """
        if not self.is_chief:
            return self._receive(0)
        for connection in self._connections.values():
            connection.send(MESSAGE, content)
        return content

    def exchange(self, value: Any) -> list[Any]:
        """What each worker passes, of JSON's types, on all workers.

        Raises:
            WorkerError: a worker has failed.
        """
        gathered = self.gather(json.dumps(value).encode())
        merged = b"[" + b",".join(gathered) + b"]"
        return list(json.loads(self.broadcast(merged)))

    @contextlib.contextmanager
    def reports_to(self, on_report: Callable[[int, dict[str, float]], None]) -> Iterator[None]:
        """In the block, call a function of the chief with the index of a worker and the metrics that it reports."""
        ignore, self._on_report = self._on_report, on_report
        try:
            yield
        finally:
            self._on_report = ignore

    def report(self, metrics: dict[str, float]) -> None:
        """Send the chief metrics of this worker, at any time."""
        self._connections[0].send(REPORT, json.dumps(metrics).encode())

    def _receive(self, index: int) -> bytes:
        message = self._connections[index].receive()
        if message is None:
            self.raise_failure()
            raise WorkerError(f"{self.name(index)} ended before the others.")
        return message

    def check_equal(self, facts: dict[str, Any], what: str) -> None:
        """Check that all workers were started alike.

        Args:
            facts: {name: value, of JSON's types} of this worker.
            what: has to be the same, for the message: "the same settings".

        Raises:
            UserError: another worker has other facts.
        """
        chief, *others = self.exchange(facts)
        for index, other in enumerate(others, start=1):
            names = [name for name in {**chief, **other} if chief.get(name) != other.get(name)]
            if names:
                shown = ", ".join(f"{name}={other.get(name)} instead of {chief.get(name)}" for name in names[:3])
                more = f" and {len(names) - 3} more" if len(names) > 3 else ""
                raise UserError(f"{self.name(index)} has {shown}{more}; start all with {what}.")

    # --- the end

    def finish(self, error: BaseException | None = None) -> None:
        """Tell the others that this worker has ended.

        Args:
            error: why; None: as planned.
        """
        for connection in self._connections.values():
            if error is None:
                connection.send(END)
            elif not isinstance(error, WorkerError):
                connection.send(FAILURE, _describe(error).encode())
            elif self.is_chief and self._failure:  # for those that came later
                connection.send(FAILURE, self._failure.encode())
            connection.close()

    def wait_for_chief(self) -> None:
        """Wait until the chief has ended: it evaluates and records the model.

        Raises:
            WorkerError: it has failed.
        """
        self._connections[0].receive()
        self.raise_failure()

    @contextlib.contextmanager
    def explain_failure(self) -> Iterator[None]:
        """Turn an error that TensorFlow raises in the block when another worker fails into one that names it.

        Raises:
            WorkerError: another worker has failed.
        """
        try:
            yield
        except (UserError, KeyboardInterrupt):
            raise
        except Exception as error:
            if not self._failed.wait(min(self.timeout, PATIENCE)):
                raise
            traceback.clear_frames(error.__traceback__)  # thread pools of TensorFlow, which would outlive the interpreter
        self.raise_failure()

    def raise_failure(self) -> None:
        """Raise a WorkerError if another worker has failed, and a KeyboardInterrupt if it was stopped."""
        if self._failure is None:
            return
        if self._failure.endswith(STOPPED):
            log.info("%s", self._failure)
            raise KeyboardInterrupt
        raise WorkerError(
            f"{self._failure} Once that is corrected, type the same command again on all machines: the run resumes from its "
            "last checkpoint."
        )

    def _fail(self, index: int, event: str) -> None:
        with self._lock:
            if self._failure is not None:
                return
            reason = event.removeprefix("failed: ")  # may be what that worker has learned of another one
            self._failure = reason if reason.startswith(("Worker ", "The chief ")) else f"{self.name(index)} {event}"
        if self.is_chief:
            for other, connection in list(self._connections.items()):  # others may be coming meanwhile
                if other != index:
                    connection.send(FAILURE, self._failure.encode())
        self._failed.set()
        self.on_failure(self._failure)


def _listen(host: str, port: int, deadline: float) -> socket.socket:
    """A socket that listens at an address of this machine.

    Raises:
        UserError: it cannot.
    """
    while True:
        try:
            return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
        except OSError as error:
            # On Kubernetes the name of a container that has just started is not known yet.
            if isinstance(error, socket.gaierror) and time.monotonic() < deadline:
                time.sleep(RETRY)
                continue
            raise UserError(
                f"The chief cannot listen at {host}:{port} ({error.strerror}); its address has to be one of this machine, with "
                "a port that is free."
            ) from None


def _describe(error: BaseException) -> str:
    if isinstance(error, KeyboardInterrupt):
        return STOPPED
    return str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
