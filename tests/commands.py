"""Commands as a user types them: `python -m src.run model=lstm`, in a folder of its own."""

import os
import subprocess
import sys
from pathlib import Path

from tests import forkserver

ROOT = Path(__file__).resolve().parent.parent
WEIGHTS_ONLY = ("tracking.log_model=false", "tracking.log_figures=false")  # for runs whose model and figures no test looks at


def environment(**variables: str) -> dict[str, str]:
    """The environment of a command started elsewhere than in the project's folder."""
    return {**os.environ, "PYTHONPATH": str(ROOT), **variables}


def start(
    folder: Path, *arguments: str, module: str = "src.run", fresh: bool = False, output=subprocess.PIPE,
    errors=subprocess.STDOUT, own_session: bool = False, **variables: str,
) -> subprocess.Popen:  # fmt: skip
    """`python -m module arguments` in a folder, which goes on while the test does.

    Args:
        folder: where it runs.
        arguments: of the command.
        module: which command.
        fresh: imports everything itself, instead of being forked from a process that has (tests/forkserver.py).
        output, errors: where it writes, as for `subprocess.Popen`.
        own_session: whether it leads a session and a group of processes, as what a terminal starts does.
        variables: of its environment, besides those of the tests.
    """
    popen = subprocess.Popen if fresh or not forkserver.AVAILABLE else forkserver.Popen
    return popen(
        [sys.executable, "-m", module, *arguments], cwd=folder, env=environment(**variables), stdout=output, stderr=errors,
        text=True, start_new_session=own_session,
    )  # fmt: skip


def run(folder: Path, *arguments: str, timeout: float = 240, **more) -> subprocess.CompletedProcess:
    """The same, when it has ended; its output and its errors apart.

    Args:
        folder, arguments, more: as for `start`.
        timeout: seconds.
    """
    with start(folder, *arguments, errors=subprocess.PIPE, **more) as process:
        try:
            output, errors = process.communicate(timeout=timeout)
        except BaseException:
            process.kill()
            raise
    return subprocess.CompletedProcess(process.args, process.returncode, output, errors)


def until(process: subprocess.Popen, sentence: str) -> str:
    """What a process prints up to a line that contains the sentence."""
    printed = ""
    for line in process.stdout:
        printed += line
        if sentence in line:
            return printed
    raise AssertionError(printed)
