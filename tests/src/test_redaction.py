"""No secret of the environment gets into what is logged or recorded."""

import logging

import pytest

from src.redaction import HidesSecrets, bare, redacted


@pytest.mark.parametrize(
    "name", ["API_KEY", "GITHUB_TOKEN", "MLFLOW_TRACKING_PASSWORD", "AWS_SECRET_ACCESS_KEY", "client_secret", "SECRET_FILE"]
)
def test_what_a_variable_of_such_a_name_holds_is_hidden(monkeypatch, name):
    monkeypatch.setenv(name, "open sesame")
    assert redacted("say open sesame twice: open sesame") == "say *** twice: ***"
    assert redacted({"a": ["open sesame", 1, None], "b": {"c": "shut"}}) == {"a": ["***", 1, None], "b": {"c": "shut"}}


@pytest.mark.parametrize(("name", "value"), [("KEYBOARD", "german"), ("TOKENIZERS_PARALLELISM", "false"), ("API_KEY", "short")])
def test_what_is_no_secret_stays(monkeypatch, name, value):
    monkeypatch.setenv(name, value)
    assert redacted(f"it is {value}") == f"it is {value}"


def test_the_password_of_an_address_is_hidden(monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://me:open-sesame@mlflow.example.org/path")
    assert redacted("open-sesame") == "***"
    assert bare("https://me:open-sesame@mlflow.example.org:5000/path") == "https://mlflow.example.org:5000/path"
    assert bare("sqlite:///mlflow.db") == "sqlite:///mlflow.db"


def test_a_line_of_the_log_hides_it(monkeypatch):
    monkeypatch.setenv("API_KEY", "open sesame")
    record = logging.LogRecord("src", logging.INFO, __file__, 1, "the key is %s", ("open sesame",), None)
    assert HidesSecrets("%(message)s").format(record) == "the key is ***"
