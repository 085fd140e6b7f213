"""Commands that start at once: forked from a process that has TensorFlow, Keras, MLflow and Hydra imported.

The imports take seconds, which is most of what a short command costs. `Popen` here is `subprocess.Popen` for
`[sys.executable, "-m", module, …]`: a real process with its own pid, signals, exit status, working directory, environment
and terminal, which ends as an interpreter does; only its imports were done before. The server has touched no device, since
TensorFlow does not survive a fork once it has.

tests/test_forkserver.py shows that such a run equals one in a fresh process, bit for bit. A test of how a process starts
uses a fresh one.
"""

import ctypes
import functools
import gc
import importlib
import json
import os
import pkgutil
import runpy
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
AVAILABLE = sys.platform == "linux"  # elsewhere a process cannot adopt its grandchildren
_PR_SET_CHILD_SUBREAPER = 36  # of prctl(2)
_LONGEST_REQUEST = 1 << 17  # bytes
COMMANDS = tuple(f"src.{name}" for name in ("run", "evaluate", "generate", "reproduce", "compare", "sync"))
USED_LATER = (
    "ai_edge_litert.interpreter",
    "alembic.command",
    "git",
    "hydra_plugins.hydra_joblib_launcher.joblib_launcher",
    "hydra_plugins.hydra_submitit_launcher.submitit_launcher",
    "matplotlib.backends.backend_agg",
    "mlflow.pyfunc",
    "mlflow.store.tracking.sqlalchemy_store",
    "tree",
)


class Popen(subprocess.Popen):
    """A command that is forked from the server."""

    # The method of Popen that starts a process. All else, from pipes to signals and exit status, is Popen's own.
    def _execute_child(
        self, args, executable, preexec_fn, close_fds, pass_fds, cwd, env, startupinfo, creationflags, shell,
        stdin, stdin_ours, stdout_ours, stdout, stderr_ours, stderr, restore_signals, gid, gids, uid, umask, new_session, group,
    ):  # fmt: skip
        assert list(args[:2]) == [sys.executable, "-m"], args
        request = {
            "module": args[2],
            "arguments": list(args[3:]),
            "folder": os.path.abspath(cwd or "."),
            "environment": dict(os.environ if env is None else env),
            "new_session": new_session,
        }
        descriptors = [number if given == -1 else given for number, given in enumerate((stdin, stdout, stderr))]
        server = _server()
        socket.send_fds(server, [json.dumps(request).encode()], descriptors)
        self.pid = int(server.recv(64))
        self._child_created = True
        self._close_pipe_fds(stdin, stdin_ours, stdout_ours, stdout, stderr_ours, stderr)


@functools.cache
def _server() -> socket.socket:
    """The connection to this process's server, which ends with it."""
    # A forked command becomes a child of this process, which can then wait for it.
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        subprocess.Popen(
            [sys.executable, "-m", "tests.forkserver", str(theirs.fileno())],
            pass_fds=[theirs.fileno()], cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, stdin=subprocess.DEVNULL,
        )  # fmt: skip
    return ours


def _import() -> None:
    """Import what commands import, without initializing a device."""
    from src import terminal

    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"  # as terminal.load_tensorflow sets it
    with terminal.capture_stderr():
        import tensorflow  # noqa: F401
    # All of src but the commands, which have yet to run, and what libraries import only when it is used.
    modules = [package.name for package in pkgutil.walk_packages([str(ROOT / "src")], "src.")]
    for name in [*(module for module in modules if module not in COMMANDS), *USED_LATER]:
        importlib.import_module(name)
    from src.tracking import provenance
    from tests import database

    provenance.code_digest()  # half a second for each run otherwise; the code does not change while it is tested

    if database.TEMPLATE in os.environ:
        database.copy_from_now_on()
    gc.freeze()  # what was imported is not garbage, and pages that no collection writes to stay shared


def _serve(connection: socket.socket) -> dict:
    """Forks for each request; returns the request, in the forked process."""
    while True:
        request, descriptors, _, _ = socket.recv_fds(connection, _LONGEST_REQUEST, 3)
        if not request:
            sys.exit()
        if parent := os.fork():
            os.waitpid(parent, 0)
            for descriptor in descriptors:
                os.close(descriptor)
            continue
        parent = os.getpid()
        if os.fork():
            os._exit(0)
        while os.getppid() == parent:  # until it has ended, and the client has adopted this process
            time.sleep(0.001)
        connection.send(str(os.getpid()).encode())
        connection.close()
        for number, descriptor in enumerate(descriptors):
            os.dup2(descriptor, number)
            os.close(descriptor)
        return json.loads(request)


def _become(module: str, arguments: list[str], folder: str, environment: dict[str, str], new_session: bool) -> None:
    """Continue as `python -m module arguments`."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if new_session:
        os.setsid()
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    for name, number, mode in (("stdin", 0, "r"), ("stdout", 1, "w"), ("stderr", 2, "w")):
        lines = name == "stderr" or os.isatty(number)
        stream = open(number, mode, buffering=1 if lines else -1, closefd=False)  # noqa: SIM115
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)
    sys.argv[1:] = arguments
    sys.path[0] = folder
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    with socket.socket(fileno=int(sys.argv.pop())) as connection:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends pytest, and this without a traceback
        _import()
        request = _serve(connection)
    _become(**request)
