"""How many replicas each shard has, and who has said so: front ends carry it, so that it outlives the keeper."""

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Scale:
    """A number of replicas. Its times are of the head node's clock, on which every keeper runs."""

    replicas: int
    begun: float = math.inf
    """Seconds since the epoch when front ends began to share it; infinite while one of them alone wishes it."""
    ordered: float = 0.0
    """Seconds since the epoch when an operator ordered it; 0 if none has."""

    def outranks(self, other: "Scale") -> bool:
        """Return whether this number holds where the other was said, too: the last order does, and if there is none, the first wish."""
        return (self.ordered, -self.begun) > (other.ordered, -other.begun)
