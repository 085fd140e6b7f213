"""How a command starts and ends: its arguments, signals, its exit status."""

import logging
import sys
from collections.abc import Callable, Sequence
from typing import NoReturn

from src import signals
from src.errors import UserError
from src.redaction import redact
from src.terminal import log_to_terminal


def command(body: Callable[[], int]) -> NoReturn:
    """A command line: ends with the status that `body` returns, 2 after a mistake, said in a sentence, or 130 if stopped."""
    signals.install_handlers()
    log_to_terminal()
    logging.raiseExceptions = False  # a full disk would show a traceback for every line of a log
    try:
        sys.exit(body())
    except UserError as error:
        print(redact(str(error)), file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("Stopped.", file=sys.stderr)
        sys.exit(130)


def pairs(arguments: Sequence[str], known: Sequence[str]) -> dict[str, str]:
    """{key: value} of the words key=value of a command line, of which `run=<id>` has to be one.

    Raises:
        UserError: a word is none, a key is not known, or `run` is missing.
    """
    said = {}
    for word in arguments:
        key, is_pair, value = word.partition("=")
        if not is_pair:
            raise UserError(f"'{word}' cannot be read; write key=value, like run=<id>.")
        if key not in known:
            raise UserError(f"There is no setting '{key}'; known: {', '.join(known)}.")
        said[key] = value
    if "run" not in said:
        raise UserError("The setting 'run' is missing; write run=<id>.")
    return said
