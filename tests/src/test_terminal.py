"""What a process writes to its terminal."""

import io
import logging
import os
import subprocess
import sys

import pytest

from src import terminal
from src.training.callbacks import epoch_line
from tests.commands import environment


@pytest.fixture
def clock(monkeypatch):
    """A clock that tests set: clock[0] seconds."""
    now = [0.0]
    monkeypatch.setattr(terminal.time, "monotonic", lambda: now[0])
    return now


def test_the_time_left_is_estimated_without_the_first_step_which_is_traced(clock):
    training = terminal.Phase("Training", total=101)
    assert str(training) == "Training: 0 %, 0:00"
    clock[0] = 60.0
    training.update(1, note="epoch 1/10")
    assert training.seconds_left is None
    clock[0] = 70.0
    training.update(21)
    assert training.seconds_left == pytest.approx(80 / 2)  # 20 steps in 10 s
    assert str(training) == "Training, epoch 1/10: 21 %, 1:10, 0:40 left"
    assert training.line().startswith("━" * 6 + "─" * 24 + " Training")


def test_steps_that_are_not_counted_have_no_bar(clock):
    phase = terminal.Phase("Fitting the baselines")
    clock[0] = 3723.4
    assert phase.line() == "Fitting the baselines: 1:02:03 …"


def test_a_log_names_a_phase_that_takes_long(monkeypatch, caplog):
    monkeypatch.setattr(terminal, "ANNOUNCE_AFTER", 0.0)
    with caplog.at_level(logging.INFO, "src.terminal"):
        with terminal.phase("Exporting"):
            until_logged(caplog, "Exporting …")
        with terminal.phase("Loading", announce=False):
            assert not [message for message in caplog.messages if "Loading" in message]
        monkeypatch.setattr(terminal, "ANNOUNCE_AFTER", 60.0)
        with terminal.phase("Reading"):
            pass
    assert caplog.messages == ["Exporting …"]
    assert not terminal.display.phases


def test_a_log_repeats_a_phase_when_nothing_else_is_said(monkeypatch, caplog):
    for name in ("ANNOUNCE_AFTER", "REPEAT_AFTER"):
        monkeypatch.setattr(terminal, name, 0.0)
    with caplog.at_level(logging.INFO, "src.terminal"), terminal.phase("Training", total=4):
        terminal.update(1)
        until_logged(caplog, "Training: 25 %, 0:01")


def until_logged(caplog, message):
    for _ in range(500):
        if message in caplog.messages:
            return
        terminal.time.sleep(0.01)
    raise AssertionError(caplog.messages)


def test_every_line_of_a_parallel_job_has_its_prefix(monkeypatch):
    out, errors = io.StringIO(), io.StringIO()
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", errors)
    handler = terminal.TerminalHandler()
    with terminal.prefix_lines("[2/3]  "):
        handler.emit(logging.LogRecord("src", logging.INFO, "", 0, "a table\nof two lines", None, None))
        print("a part", end="")
        print(" of a line")
        print("UserWarning: careful\n  where()", file=sys.stderr)
    assert out.getvalue() == "[2/3]  a table\n[2/3]  of two lines\n[2/3]  a part of a line\n"
    assert errors.getvalue() == "[2/3]  UserWarning: careful\n[2/3]    where()\n"
    assert sys.stdout is out


def test_the_line_of_an_epoch_is_readable():
    metrics = {
        "epoch/train/loss": 0.25634, "epoch/train/accuracy": 0.92341, "epoch/val/loss": 12345.678, "epoch/val/accuracy": 0.9,
        "learning_rate": 3e-4, "examples_per_second": 42880.4,
    }  # fmt: skip
    assert epoch_line(3, 20, metrics, 75.0) == (
        "epoch 3/20  1:15 left  train: loss 0.2563, accuracy 92.34 %  val: loss 12,346, accuracy 90.00 %  lr 0.0003\n"
        "            42,880 examples/s"
    )
    many = metrics | {f"epoch/train/gradient_norm_{index}": 1.5e-7 for index in range(20)}
    lines = epoch_line(20, 20, many, 0.0).splitlines()
    assert max(map(len, lines)) <= terminal.WIDTH
    assert "gradient norm 3 1.50e-07" in " ".join(line.strip() for line in lines)
    assert lines[0].startswith("epoch 20/20  train: loss")


def test_a_reader_that_has_seen_enough_ends_a_command_quietly():
    program = "from src import cli; cli.run_command(lambda arguments: print('line\\n' * 100_000) or 0)"
    ours, theirs = os.pipe()
    with subprocess.Popen([sys.executable, "-c", program], env=environment(), stdout=theirs, stderr=subprocess.PIPE) as process:
        os.close(theirs)
        assert os.read(ours, 4) == b"line"
        os.close(ours)
        assert process.stderr.read() == b""
    assert process.returncode == 0
