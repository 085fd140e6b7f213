"""A network on this machine: hosts that are network namespaces. It needs the command `ip` and root."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Self

from tests import commands


class Network:
    """Two hosts, and a line between them that can be cut."""

    AVAILABLE = shutil.which("ip") is not None and os.geteuid() == 0
    hosts = ("10.77.0.1", "10.77.0.2")

    def __enter__(self) -> Self:
        self.names = [f"experiments{os.getpid()}{side}" for side in "ab"]
        self.devices = [f"veth{os.getpid()}{side}" for side in "ab"]
        try:
            for name in self.names:
                _ip(f"netns add {name}")
            _ip(f"link add {self.devices[0]} type veth peer name {self.devices[1]}")
            for name, device, host in zip(self.names, self.devices, self.hosts):
                _ip(f"link set {device} netns {name}")
                _ip(f"-n {name} addr add {host}/24 dev {device}")
                _ip(f"-n {name} link set {device} up")
                _ip(f"-n {name} link set lo up")
        except subprocess.CalledProcessError:
            self.__exit__()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        for name in self.names:
            subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)

    def start(self, host: int, folder: Path, module: str, *arguments: str, **variables: str) -> subprocess.Popen:
        """`python -m module arguments` in a folder, on a host; as `commands.start`."""
        return subprocess.Popen(
            ["ip", "netns", "exec", self.names[host], sys.executable, "-m", module, *arguments], cwd=folder,
            env=commands.environment(**variables), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip

    def switch(self, state: str) -> None:
        """Set the line "up" or "down"."""
        _ip(f"-n {self.names[0]} link set {self.devices[0]} {state}")


def _ip(line: str) -> None:
    subprocess.run(["ip", *line.split()], check=True, capture_output=True)
