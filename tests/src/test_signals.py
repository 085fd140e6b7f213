"""Signals stop a process, even where Python drops the exception."""

import subprocess
import sys

from tests.commands import environment

SIGNAL_IN_FINALIZER = """
import os, signal
from src import signals

signals.install_handlers()

class Finalized:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGTERM)
        for _ in range(10_000):
            pass

signals.raise_if_requested()
finalized = Finalized()
del finalized
print("dropped")
try:
    signals.raise_if_requested()
except KeyboardInterrupt:
    print("raised")
"""


DEFERRED_SIGNAL = """
import os, signal
from src import signals

signals.install_handlers()
signals.defer(enabled=True)
os.kill(os.getpid(), signal.SIGTERM)
print("deferred", signals.stop_requested())
try:
    os.kill(os.getpid(), signal.SIGTERM)
except KeyboardInterrupt:
    print("the second is not")
try:
    signals.raise_if_requested()
except KeyboardInterrupt:
    print("raised")
"""


def test_the_first_signal_can_be_deferred():
    process = subprocess.run(
        [sys.executable, "-c", DEFERRED_SIGNAL], env=environment(), capture_output=True, text=True, check=False
    )
    assert process.stdout.split("\n") == ["deferred True", "the second is not", "raised", ""], process.stderr


def test_signal_dropped_in_a_finalizer_is_raised_later():
    process = subprocess.run(
        [sys.executable, "-c", SIGNAL_IN_FINALIZER], env=environment(), capture_output=True, text=True, check=False
    )
    assert process.stdout.split("\n") == ["dropped", "raised", ""], process.stderr
    assert "Exception ignored" in process.stderr
