"""What a process writes to its terminal: its log, below it what goes on, and no noise from libraries."""

import contextlib
import gc
import importlib
import io
import logging
import os
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, TextIO, TypeVar

from src.redaction import RedactingFormatter

if TYPE_CHECKING:
    from rich.console import Group
    from rich.live import Live

log = logging.getLogger(__name__)
T = TypeVar("T")

WIDTH = 120  # columns that a line of the log may take
BAR_WIDTH = 30  # columns
ANNOUNCE_AFTER = 3.0  # seconds, after which a log that is no terminal names a phase
REPEAT_AFTER = 30.0  # seconds without any line, after which such a log shows the phase again


def load_tensorflow() -> None:
    """Import TensorFlow and Keras, and initialize the devices, without the messages that its libraries write to stderr.

    Some of these (on oneDNN, the CPU, missing GPUs) come before TF_CPP_MIN_LOG_LEVEL is read. They are shown if loading fails.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # the same messages, later
    if threads := os.environ.get("OMP_NUM_THREADS"):  # which joblib and Ray set for each of several parallel jobs
        for name in ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"):
            os.environ.setdefault(name, threads)
    with phase("Loading TensorFlow", announce=False), capture_stderr():  # the first line of a log names the device
        if "keras" not in sys.modules:
            gc.disable()
            importlib.import_module("keras")
            gc.freeze()  # what was imported is not garbage: a million objects that each collection would look through
            gc.enable()
        import tensorflow as tf

        tf.config.list_physical_devices()


# --- the log --------------------------------------------------------------------------------------------------------


class TerminalHandler(logging.StreamHandler):
    """Logs to what `sys.stdout` is at the time, above the phases that are shown there."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)  # as Python's own handler of last resort: `stream` cannot be set

    @property
    def stream(self) -> TextIO:
        return sys.stdout

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record."""
        display.last_line = time.monotonic()
        if display.live is None:
            super().emit(record)
            return
        from rich.text import Text

        display.live.console.print(Text(self.format(record)), soft_wrap=True)  # the terminal wraps what is too long


def log_to_terminal() -> None:
    """Log to stdout: this project's messages from INFO on, warnings of libraries. `src.run` replaces it by Hydra's logging."""
    terminal = TerminalHandler()
    terminal.setFormatter(RedactingFormatter("%(message)s"))
    logging.basicConfig(handlers=[terminal], level=logging.WARNING)
    logging.getLogger("src").setLevel(logging.INFO)
    for name in ("absl", "tensorflow"):
        logging.getLogger(name).setLevel(logging.ERROR)


@contextlib.contextmanager
def prefix_lines(prefix: str) -> Iterator[None]:
    """Put a prefix before each line that Python writes to stdout and stderr in the block, which tells parallel jobs apart."""
    with (
        contextlib.redirect_stdout(_PrefixedLines(sys.stdout, prefix)),
        contextlib.redirect_stderr(_PrefixedLines(sys.stderr, prefix)),
    ):
        yield


class _PrefixedLines(io.TextIOBase):
    """Writes whole lines, each with a prefix, so that those of several processes do not mix."""

    def __init__(self, stream: TextIO, prefix: str):
        self.target, self.prefix, self.partial = stream, prefix, ""

    def write(self, text: str) -> int:
        *lines, self.partial = (self.partial + text).split("\n")
        if lines:
            self.target.write("".join(f"{self.prefix}{line}\n" for line in lines))
            self.target.flush()
        return len(text)

    def fileno(self) -> int:
        return self.target.fileno()


# --- what goes on ---------------------------------------------------------------------------------------------------


class Phase:
    """A part of a command that can take seconds.

    Args:
        title: what goes on: "Evaluating on the test set".
        total: number of its steps; None if they are not counted.

    Attributes:
        completed: number of steps so far.
        note: shown behind the title.
    """

    def __init__(self, title: str, total: int | None = None):
        self.title, self.total, self.completed, self.note = title, total, 0, ""
        self.start = time.monotonic()
        self._first: tuple[float, int] | None = None  # time and count of the first update: tracing comes before it

    def update(self, completed: int, total: int | None = None, note: str | None = None) -> None:
        """Set the number of steps so far, and if they are given, the number of all steps and the note."""
        self.completed, self.total = completed, total or self.total
        self.note = self.note if note is None else note
        self._first = self._first or (time.monotonic(), completed)

    @property
    def seconds(self) -> float:
        """Seconds since it began."""
        return time.monotonic() - self.start

    @property
    def seconds_left(self) -> float | None:
        """Estimate of the seconds that it still takes; None if there is none yet."""
        if self._first is None or self.total is None or self.completed <= self._first[1]:
            return None
        rate = (self.completed - self._first[1]) / max(time.monotonic() - self._first[0], 1e-6)
        return (self.total - self.completed) / rate

    def __str__(self) -> str:
        fraction = min(self.completed / self.total, 1.0) if self.total else 0.0
        left = "" if self.seconds_left is None else f", {format_duration(self.seconds_left)} left"
        title = f"{self.title}, {self.note}" if self.note else self.title
        return f"{title}: {f'{100 * fraction:.0f} %, ' if self.total else ''}{format_duration(self.seconds)}{left}"

    def line(self) -> str:
        """The line in a terminal, with a bar if steps are counted."""
        if not self.total:
            return f"{self} …"
        filled = round(BAR_WIDTH * min(self.completed / self.total, 1.0))
        return f"{'━' * filled}{'─' * (BAR_WIDTH - filled)} {self}"


class _Display:
    """The phases of this process that have begun and not ended, the outermost first.

    Attributes:
        live: shows them below the log; None while there are none, and where stdout is no terminal.
        last_line: time.monotonic() of the last line of the log.
    """

    def __init__(self) -> None:
        self.phases: list[Phase] = []
        self.live: Live | None = None
        self.last_line = time.monotonic()

    def render(self) -> "Group":
        from rich.console import Group
        from rich.text import Text

        return Group(*(Text(phase.line(), no_wrap=True, overflow="ellipsis") for phase in self.phases))

    def start(self) -> None:
        from rich.console import Console
        from rich.live import Live

        self.live = Live(
            console=Console(file=sys.stdout, force_terminal=True), get_renderable=self.render, refresh_per_second=4,
            transient=True, redirect_stderr=sys.stderr.isatty(), vertical_overflow="crop",
        )  # fmt: skip
        self.live.start()

    def stop(self) -> None:
        if self.live is not None:
            self.live.stop()
            self.live = None


display = _Display()


@contextlib.contextmanager
def phase(title: str, total: int | None = None, announce: bool = True) -> Iterator[Phase]:
    """Show what goes on in the block: in a terminal a line with the time that it has taken, and a bar if steps are counted.

    Elsewhere, and in each of several parallel jobs, a line of the log says so if it takes long.

    Args:
        title: what goes on: "Evaluating on the test set".
        total: number of its steps; None if they are not counted.
        announce: whether there may be such a line of the log.
    """
    current, ended, thread = Phase(title, total), threading.Event(), None
    display.phases.append(current)
    if _is_terminal():
        if display.live is None:
            display.start()
    elif announce:
        thread = threading.Thread(target=_announce, args=(current, ended), daemon=True)
        thread.start()
    try:
        yield current
    finally:
        display.phases.remove(current)
        if not display.phases:
            display.stop()
        ended.set()
        if thread:
            thread.join()
        log.debug("%s: %.1f s", title, current.seconds)


def update(completed: int, total: int | None = None) -> None:
    """Set the number of steps of the innermost phase, if there is one."""
    if display.phases:
        display.phases[-1].update(completed, total)


def track(items: Iterable[T], total: int) -> Iterator[T]:
    """Yield items, and count them as the steps of the innermost phase."""
    for number, item in enumerate(items, start=1):
        yield item
        update(number, total)


def _is_terminal() -> bool:
    return sys.stdout.isatty() and os.environ.get("TERM") != "dumb"


def _announce(current: Phase, ended: threading.Event) -> None:
    """Log the title of a phase when it takes long, and how far it is when there has been no line for long."""
    if ended.wait(ANNOUNCE_AFTER):
        return
    log.info("%s …", current.title)
    while not ended.wait(1.0):
        if time.monotonic() - display.last_line > REPEAT_AFTER and display.phases[-1:] == [current]:
            log.info("%s", current)


def format_duration(seconds: float) -> str:
    """Minutes and seconds: 0:07, 12:34, 1:02:03."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


@contextlib.contextmanager
def capture_stderr() -> Iterator[None]:
    """Capture what this process, C++ libraries included, writes to stderr in the block; print it if the block raises."""
    sys.stderr.flush()
    terminal = os.dup(2)
    with tempfile.TemporaryFile() as captured:
        os.dup2(captured.fileno(), 2)
        try:
            yield
        except BaseException:
            captured.seek(0)
            os.write(terminal, captured.read())
            raise
        finally:
            sys.stderr.flush()
            os.dup2(terminal, 2)
            os.close(terminal)
