"""The servers of a local Ray cluster cannot be reached from other machines."""

import ast
import subprocess
import sys

import pytest

from src.sweeps.ray_launcher import LOOPBACK
from tests.commands import environment

# Prints the addresses at which a process of the cluster listens.
PROGRAM = """
import ipaddress, psutil, ray

ray.init(num_cpus=1, include_dashboard=False)
ray.get(ray.remote(lambda: None).remote())
processes = [psutil.Process(), *psutil.Process().children(recursive=True)]
connections = [each for process in processes for each in process.net_connections("tcp")]
addresses = {ipaddress.ip_address(each.laddr.ip) for each in connections if each.status == psutil.CONN_LISTEN}
print([str(getattr(address, "ipv4_mapped", None) or address) for address in addresses])
"""


def test_servers_of_a_local_cluster_listen_on_loopback(tmp_path):
    pytest.importorskip("ray")
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], cwd=tmp_path, env=environment(**LOOPBACK), capture_output=True, text=True, check=True
    )
    assert set(ast.literal_eval(done.stdout.splitlines()[-1])) == {"127.0.0.1"}
