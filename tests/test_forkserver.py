"""A command forked from a process that has imported TensorFlow behaves like one in a fresh process."""

import os
import signal
import subprocess
import sys

import pytest

from tests import commands, faults, forkserver

pytestmark = pytest.mark.skipif(not forkserver.AVAILABLE, reason="commands are forked on Linux only")


LONGER = [("cnn", "mirrored"), ("lstm", "mirrored"), ("gan", "single")]


@pytest.mark.parametrize(
    ("recipe", "strategy"), [("lstm", "single"), *(pytest.param(*more, marks=pytest.mark.slow) for more in LONGER)]
)
def test_forked_run_equals_a_fresh_process_bit_for_bit(recipe, strategy):
    words = [*faults.overrides(recipe, strategy), "model.dropout=0.1"] if recipe != "gan" else faults.overrides(recipe)
    with faults.folders(2) as folders:
        for folder, fresh in zip(folders, (True, False)):
            done = commands.run(folder, *words, fresh=fresh)
            assert done.returncode == 0, done.stderr
            assert done.stderr == ""
        assert faults.read_outcome(folders[0]).same_as(faults.read_outcome(folders[1]))


PROGRAM = """
import atexit, os, sys

print(sys.argv[1:], os.getcwd(), sys.path[0], os.environ.get("PRESENT"), os.environ.get("ABSENT"), os.isatty(1), flush=True)
print(__name__, os.getsid(0) == os.getpid(), sys.stdin.read(), file=sys.stderr)
atexit.register(print, "ended")
if sys.argv[1:] == ["fail"]:
    raise ValueError("no such thing")
sys.exit(3)
"""


def test_forked_command_has_its_own_folder_environment_and_streams(tmp_path, monkeypatch):
    (tmp_path / "program.py").write_text(PROGRAM)
    monkeypatch.setenv("ABSENT", "removed by the next line")
    env = {name: value for name, value in os.environ.items() if name != "ABSENT"}
    for popen in (subprocess.Popen, forkserver.Popen):
        process = popen(
            [sys.executable, "-m", "program", "a", "b c"], cwd=tmp_path, env={**env, "PRESENT": "1"}, text=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
        )  # fmt: skip
        output, errors = process.communicate(timeout=60)
        assert output == f"['a', 'b c'] {tmp_path} {tmp_path} 1 None False\nended\n"
        assert errors == "__main__ True \n"
        assert process.returncode == 3


def test_exception_in_a_forked_command(tmp_path):
    (tmp_path / "program.py").write_text(PROGRAM)
    done = commands.run(tmp_path, "fail", module="program")
    assert done.returncode == 1
    assert done.stderr.endswith("ValueError: no such thing\n")
    assert done.stdout.endswith("ended\n")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
def test_signal_to_a_forked_command(tmp_path, number):
    (tmp_path / "waits.py").write_text("print('ready', flush=True)\nimport time\ntime.sleep(60)\n")
    process = commands.start(tmp_path, module="waits")
    assert commands.until(process, "ready") == "ready\n"
    assert process.poll() is None
    process.send_signal(number)
    process.communicate(timeout=60)
    assert process.returncode == -number


def test_fork_server_initializes_no_device(tmp_path):
    (tmp_path / "looks.py").write_text(
        "import sys\nloaded = {'tensorflow', 'keras', 'mlflow', 'hydra'} <= set(sys.modules)\n"
        "from tensorflow.python.eager import context\nprint(loaded, context.context_safe())\n"
    )
    assert commands.run(tmp_path, module="looks").stdout == "True None\n"
