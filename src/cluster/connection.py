"""Messages between two workers over a socket."""

import contextlib
import queue
import socket
import struct
import threading
from collections.abc import Callable

STOPPED = "was stopped, by Ctrl-C or a signal."
PART = 2**20  # bytes that are sent or read at once
PATIENCE = 2.0  # seconds for the other worker to close its end
HEADER = struct.Struct(">cQ")  # kind, and number of bytes that follow
SIGN_OF_LIFE, MESSAGE, REPORT, FAILURE, END = b"s", b"m", b"r", b"f", b"e"


class Connection:
    """A connection to another worker, which is read by a thread of its own.

    Args:
        connected: the socket.
        timeout: seconds after which a worker that sends nothing counts as lost; each one sends signs of life.
        on_failure: called with what has happened to the other worker: "failed: …", in its own words, or that it is lost.
        on_report: called with what the other worker reports besides.

    Attributes:
        ended: whether the other worker has ended as planned.
    """

    def __init__(
        self, connected: socket.socket, timeout: float, on_failure: Callable[[str], None], on_report: Callable[[bytes], None]
    ):
        self._socket, self._timeout, self._on_failure, self._on_report = connected, timeout, on_failure, on_report
        self._sending = threading.Lock()
        self._messages: queue.Queue[bytes | None] = queue.Queue()
        self.ended = threading.Event()
        connected.settimeout(timeout)
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._reader = threading.Thread(target=self._read, name="worker connection", daemon=True)
        self._reader.start()
        threading.Thread(target=self._show_life, name="signs of life", daemon=True).start()

    def send(self, kind: bytes, content: bytes = b"") -> None:
        """Send a message. If that fails, the connection is of no more use, and the reading thread is told."""
        message = memoryview(frame(kind, content))
        try:
            with self._sending:
                for start in range(0, len(message), PART):  # each part has the time-out, however long the whole takes
                    self._socket.sendall(message[start : start + PART])
        except OSError:
            with contextlib.suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)

    def receive(self) -> bytes | None:
        """The next message, once it is there; None if the other worker has failed, has ended, or is lost."""
        message = self._messages.get()
        if message is None:
            self._messages.put(None)  # for the next call
        return message

    def close(self) -> None:
        """Close the connection, once the other worker has read all: what it still sends would make the system discard that."""
        self.ended.set()
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_WR)
        self._reader.join(PATIENCE)
        self._socket.close()

    def _read(self) -> None:
        try:
            self._read_messages()
        finally:  # whatever happens, nobody waits for another message
            self._messages.put(None)

    def _read_messages(self) -> None:
        try:
            while True:
                kind, size = HEADER.unpack(_read_exactly(self._socket, HEADER.size))
                content = _read_exactly(self._socket, size)
                if kind == MESSAGE:
                    self._messages.put(content)
                elif kind == REPORT:
                    self._on_report(content)
                elif kind == END:
                    self.ended.set()
                    self._messages.put(None)
                elif kind == FAILURE:
                    self.ended.set()
                    event = content.decode()
                    self._on_failure(event if event == STOPPED else f"failed: {event}")
                    self._messages.put(None)
        except TimeoutError:
            if not self.ended.is_set():
                self._on_failure(f"has sent no sign of life for {self._timeout:.0f} s.")
        except OSError:
            if not self.ended.is_set():
                self._on_failure("has ended.")

    def _show_life(self) -> None:
        while not self.ended.wait(self._timeout / 4):
            self.send(SIGN_OF_LIFE)


def frame(kind: bytes, content: bytes) -> bytes:
    """A message as it is sent."""
    return HEADER.pack(kind, len(content)) + content


def _read_exactly(connected: socket.socket, size: int) -> bytes:
    """The next `size` bytes.

    Raises:
        OSError: the connection has ended, or nothing has come for too long.
    """
    content = bytearray()
    while len(content) < size:
        part = connected.recv(min(size - len(content), PART))
        if not part:
            raise ConnectionResetError
        content += part
    return bytes(content)
