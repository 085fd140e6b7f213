"""Keeps the secrets of the environment out of what is logged and recorded."""

import logging
import os
import re
from typing import Any
from urllib.parse import urlsplit, urlunsplit

NAMES = re.compile(r"(KEY|TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIALS?)(_|$)", re.IGNORECASE)  # of variables that hold secrets
IN_ADDRESS = re.compile(r"://[^/@\s]*:([^/@\s]+)@")  # the password of an address like https://user:password@host
SHORTEST = 6  # characters; what is shorter would be found within ordinary words
HIDDEN = "***"


def redacted(told: Any) -> Any:
    """A text, or what consists of dicts, lists and texts, with the secrets of the environment hidden."""
    if isinstance(told, dict):
        return {name: redacted(value) for name, value in told.items()}
    if isinstance(told, list | tuple):
        return type(told)(map(redacted, told))
    if isinstance(told, str):
        for secret in _secrets():
            told = told.replace(secret, HIDDEN)
    return told


def bare(address: str) -> str:
    """An address without the name and password that it may hold."""
    parts = urlsplit(address)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2])) if "@" in parts.netloc else address


class HidesSecrets(logging.Formatter):
    """The format of log lines."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        return redacted(super().format(record))


def _secrets() -> list[str]:
    """The longest first, since one may be part of another."""
    named = [value for name, value in os.environ.items() if NAMES.search(name)]
    passwords = [found[1] for value in os.environ.values() for found in IN_ADDRESS.finditer(value)]
    return sorted({secret for secret in [*named, *passwords] if len(secret) >= SHORTEST}, key=len, reverse=True)
