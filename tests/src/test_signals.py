"""A process that is asked to stop stops, also where an exception is dropped."""

import subprocess
import sys

from tests.commands import environment

PROGRAM = """
import os, signal
from src import signals

signals.listen()

class Deaf:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGTERM)
        for _ in range(10_000):
            pass

signals.check()
deaf = Deaf()
del deaf
print("not heard")
try:
    signals.check()
except KeyboardInterrupt:
    print("heard")
"""


PATIENT = """
import os, signal
from src import signals

signals.listen()
signals.put_off(until_checked=True)
os.kill(os.getpid(), signal.SIGTERM)
print("put off", signals.asked())
try:
    os.kill(os.getpid(), signal.SIGTERM)
except KeyboardInterrupt:
    print("the second is not")
try:
    signals.check()
except KeyboardInterrupt:
    print("heard")
"""


def test_a_request_can_be_put_off_once():
    done = subprocess.run([sys.executable, "-c", PATIENT], env=environment(), capture_output=True, text=True, check=False)
    assert done.stdout.split("\n") == ["put off True", "the second is not", "heard", ""], done.stderr


def test_a_request_that_a_finalizer_drops_is_heard_later():
    done = subprocess.run([sys.executable, "-c", PROGRAM], env=environment(), capture_output=True, text=True, check=False)
    assert done.stdout.split("\n") == ["not heard", "heard", ""], done.stderr
    assert "Exception ignored" in done.stderr
