"""Workers on this machine, for trying out what runs on several."""

import contextlib
import os
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence

from src.cluster.addresses import Addresses

HOST = "127.0.0.1"
PATIENCE = 20  # seconds that workers have to end after the chief


@contextlib.contextmanager
def start(command: Sequence[str], count: int) -> Iterator[Addresses]:
    """Start the workers besides the chief, which this process becomes; in the end wait for them.

    Args:
        command: the command line of this process, without the settings of the cluster.
        count: number of workers, with the chief.
    """
    workers = tuple(f"{HOST}:{port}" for port in free_ports(count))
    cores = max(len(os.sched_getaffinity(0)) // count, 1) if hasattr(os, "sched_getaffinity") else 1
    environment = {"TF_NUM_INTRAOP_THREADS": str(cores), "TF_NUM_INTEROP_THREADS": str(cores), **os.environ}
    os.environ.update(environment)
    processes = []
    for index in range(1, count):
        settings = ["strategy.local=null", f"strategy.workers=[{','.join(workers)}]", f"strategy.index={index}"]
        processes.append(
            subprocess.Popen(
                [sys.executable, *command, *settings],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,  # the log; errors are on stderr
            )
        )
    try:
        yield Addresses(workers, 0)
    finally:
        for process in processes:  # they end when the chief does
            try:
                process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                process.kill()


def free_ports(count: int) -> list[int]:
    """Ports of this machine that nothing listens at."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server((HOST, 0))) for _ in range(count)]
        return [each.getsockname()[1] for each in sockets]
