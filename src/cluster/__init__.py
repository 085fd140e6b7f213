"""Several processes, mostly on several machines, that train one model: who they are, and what they tell each other.

addresses    the workers, from the settings, TF_CONFIG or SLURM
connection   messages over a socket
cluster      the workers meet, agree, and learn at once when one of them ends
local        workers on this machine, for trying it out

The gradients do not pass through here: TensorFlow sends them itself (`src.training.strategies`).
"""

from src.cluster.addresses import Addresses, find
from src.cluster.cluster import Cluster

__all__ = ["Addresses", "Cluster", "find"]
