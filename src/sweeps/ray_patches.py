"""The use of a private argument of Ray. A test holds its reason: tests/src/sweeps/test_ray_patches.py."""

from typing import Any

# Arguments of `ray.init` that keep a local cluster from being reached from other machines; by default its processes listen on
# the address of this machine in the network, and no public argument changes that.
LOOPBACK: dict[str, Any] = {"_node_ip_address": "127.0.0.1"}
