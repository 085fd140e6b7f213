"""How a command starts and ends: its arguments, `--help`, signals, its exit status."""

import logging
import os
import sys
import textwrap
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NoReturn

from src import signals
from src.errors import UserError
from src.redaction import redact
from src.terminal import log_to_terminal

RUN = "a finished run: its id, the beginning of its id, its name, or last (the newest one)"
RECORD = "whether this becomes a run in MLflow, linked to the model and the data: true or false (true)"
WIDTH = 100  # characters of a line of help


@dataclass(frozen=True)
class Usage:
    """What `--help` prints about a command.

    Attributes:
        command: as it is typed, with the settings that it needs: "python -m src.evaluate run=<run>".
        summary: what it does, in a sentence or two.
        examples: command lines.
        settings: {name: description}, in the order in which they are shown.
    """

    command: str
    summary: str
    examples: Sequence[str]
    settings: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        sections = [f"{textwrap.fill(self.summary, WIDTH)}\n", f"Usage: {self.command}\n"]
        if self.settings:
            indent = max(map(len, self.settings)) + 4
            lines = [
                textwrap.fill(f"  {name:<{indent - 2}}{description}", WIDTH, subsequent_indent=" " * indent)
                for name, description in self.settings.items()
            ]
            sections.append("\n".join(["Settings:", *lines, ""]))
        sections.append("\n".join(["Examples:", *(f"  {example}" for example in self.examples)]))
        return "\n".join(sections)


def run_command(main: Callable[[Sequence[str]], int], usage: Usage | None = None, interrupted: str = "Stopped.") -> NoReturn:
    """Run a command with the arguments of this process and exit.

    The exit status is what `main` returns; 2 after a `UserError`, which is printed as it is; 130 after Ctrl-C or a signal.

    Args:
        main: the command; takes the arguments.
        usage: printed instead if one of the arguments is --help or -h; None if `main` does so itself.
        interrupted: printed after Ctrl-C or a signal.
    """
    signals.install_handlers()
    log_to_terminal()
    logging.raiseExceptions = False  # a full disk would show a traceback for every line of a log
    arguments = sys.argv[1:]
    try:
        if usage and not {"--help", "-h"}.isdisjoint(arguments):
            print(usage)
            sys.exit(0)
        status = main(arguments)
        sys.stdout.flush()  # here, and not at exit, a reader that is gone can be handled
        sys.exit(status)
    except UserError as error:
        exit_with_error(error)
    except BrokenPipeError:  # what reads the output has seen enough, like head
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what is still buffered
        sys.exit(0)
    except KeyboardInterrupt:
        print(interrupted, file=sys.stderr)
        sys.exit(130)


def exit_with_error(error: UserError) -> NoReturn:
    """Print what the user can put right, without secrets, and exit with status 2."""
    print(redact(str(error)), file=sys.stderr)
    sys.exit(2)


def parse_bool(name: str, value: str) -> bool:
    """Parse the value of a setting that is true or false.

    Raises:
        UserError: it is neither.
    """
    if value not in ("true", "false"):
        raise UserError(f"{name}={value} is neither true nor false; write {name}=true or {name}=false.")
    return value == "true"


def parse_key_values(
    arguments: Sequence[str], valid: Collection[str] | None = None, required: Sequence[str] = (), example: str = "run=last"
) -> dict[str, str]:
    """Parse arguments of the form key=value; of a key that is given twice the last value counts.

    Args:
        arguments: of a command line.
        valid: the keys that are accepted; None: all.
        required: keys that must be given.
        example: of such an argument, for messages.

    Returns:
        {key: value}, both as typed.

    Raises:
        UserError: an argument is not of this form, a key is not valid, or a required one is missing.
    """
    values = {}
    for argument in arguments:
        key, separator, value = argument.partition("=")
        if not key or not separator:
            raise UserError(f"'{argument}' cannot be read; write setting=value, like {example}.")
        if valid is not None and key not in valid:
            raise UserError(f"There is no setting '{key}'; available: {', '.join(valid) or 'none'}.")
        values[key] = value
    for key in required:
        if key not in values:
            raise UserError(f"The setting '{key}' is missing; write it like {example}.")
    return values
