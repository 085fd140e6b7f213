"""Redaction of secrets: values of environment variables that must not appear in logs and in MLflow."""

import logging
import os
import re
from typing import Any
from urllib.parse import urlsplit, urlunsplit

SECRET_NAMES = re.compile(r"(KEY|TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIALS?)(_|$)", re.IGNORECASE)  # of environment variables
URI_PASSWORD = re.compile(r"://[^/@\s]*:([^/@\s]+)@")  # as in https://user:password@host
MIN_LENGTH = 6  # characters; shorter values would match within ordinary words
MASK = "***"


def redact(value: Any) -> Any:
    """Mask the secrets of the environment in a text, or in all texts of nested dicts, lists and tuples."""
    if isinstance(value, dict):
        return {name: redact(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(map(redact, value))
    if isinstance(value, str):
        for secret in _secrets():
            value = value.replace(secret, MASK)
    return value


def strip_credentials(uri: str) -> str:
    """Remove user name and password from a URI."""
    parts = urlsplit(uri)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2])) if "@" in parts.netloc else uri


class RedactingFormatter(logging.Formatter):
    """A log formatter that masks secrets."""

    def format(self, record: logging.LogRecord) -> str:
        """Format a record, secrets masked."""
        return redact(super().format(record))


def _secrets() -> list[str]:
    """The secrets of the environment, longest first since one may be part of another."""
    by_name = [value for name, value in os.environ.items() if SECRET_NAMES.search(name)]
    passwords = [match[1] for value in os.environ.values() for match in URI_PASSWORD.finditer(value)]
    return sorted({secret for secret in [*by_name, *passwords] if len(secret) >= MIN_LENGTH}, key=len, reverse=True)
