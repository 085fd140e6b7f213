"""Decisions that the workers of a cluster take together, so that all take them after the same step."""

from src import signals
from src.cluster import Cluster

INTERVAL = 10  # steps from one decision to the next


class Agreement:
    """Whether to stop, and whether to save a checkpoint, decided every few steps and at the end of each epoch.

    Args:
        cluster: the workers.
        steps: of an epoch.
    """

    def __init__(self, cluster: Cluster, steps: int):
        self.cluster, self.steps = cluster, steps
        self.stop = False

    def decide(self, step: int, save: bool) -> bool:
        """Whether to save a checkpoint now, which the chief decides; and set `stop` if any worker was asked to stop.

        Args:
            step: of the epoch, from 1.
            save: whether this worker would save one.
        """
        self.cluster.raise_failure()
        if step % INTERVAL and step != self.steps:
            return False
        decisions = self.cluster.exchange([signals.stop_requested(), save])
        self.stop = any(stop for stop, _ in decisions)
        return self.stop or bool(decisions[0][1])
