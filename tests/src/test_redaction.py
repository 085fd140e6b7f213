"""Secrets of the environment do not get into logs and records."""

import logging

import pytest

from src.redaction import RedactingFormatter, redact, strip_credentials


@pytest.mark.parametrize(
    "name", ["API_KEY", "GITHUB_TOKEN", "MLFLOW_TRACKING_PASSWORD", "AWS_SECRET_ACCESS_KEY", "client_secret", "SECRET_FILE"]
)
def test_values_of_variables_with_such_names_are_masked(monkeypatch, name):
    monkeypatch.setenv(name, "open sesame")
    assert redact("say open sesame twice: open sesame") == "say *** twice: ***"
    assert redact({"a": ["open sesame", 1, None], "b": {"c": "shut"}}) == {"a": ["***", 1, None], "b": {"c": "shut"}}


@pytest.mark.parametrize(("name", "value"), [("KEYBOARD", "german"), ("TOKENIZERS_PARALLELISM", "false"), ("API_KEY", "short")])
def test_other_values_are_kept(monkeypatch, name, value):
    monkeypatch.setenv(name, value)
    assert redact(f"it is {value}") == f"it is {value}"


def test_the_password_in_a_uri_is_masked(monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://me:open-sesame@mlflow.example.org/path")
    assert redact("open-sesame") == "***"
    assert strip_credentials("https://me:open-sesame@mlflow.example.org:5000/path") == "https://mlflow.example.org:5000/path"
    assert strip_credentials("sqlite:///mlflow.db") == "sqlite:///mlflow.db"


def test_log_lines_are_redacted(monkeypatch):
    monkeypatch.setenv("API_KEY", "open sesame")
    record = logging.LogRecord("src", logging.INFO, __file__, 1, "the key is %s", ("open sesame",), None)
    assert RedactingFormatter("%(message)s").format(record) == "the key is ***"
