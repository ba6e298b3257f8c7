"""Which sample trains in which step, and by how much."""

from dataclasses import dataclass
from functools import lru_cache

import torch

from calculator.memory.healing import HEALING_EPOCHS

LARGEST_STEP = 1.5e-4
"""A step moves the logarithm of a factor by about so much at most. Larger ones do harm: they go
the same way everywhere, and 1e-3 raised the divergence even on the samples that train."""
WARMING = 0.1
"""Steps grow over this share of all steps, and shrink over all of them."""


@dataclass(frozen=True)
class Schedule:
    """The steps of a training, each by one sample; every round takes them in another order."""

    samples: int
    epochs: int = HEALING_EPOCHS

    @property
    def steps(self) -> int:
        """All steps."""
        return self.epochs * self.samples

    def sample(self, step: int) -> int:
        """The sample of a step, which counts from 0."""
        epoch, place = divmod(step, self.samples)
        return _order(self.samples, epoch)[place]

    def size(self, step: int) -> float:
        """How far a step goes."""
        grown = min((step + 1) / (WARMING * self.steps), 1.0)
        return LARGEST_STEP * grown * (1 - step / self.steps)

    def checks_before(self, step: int) -> int:
        """How many checks are due before a step: one before the first, one after each round."""
        return step // self.samples + 1


@lru_cache(maxsize=2)
def _order(samples: int, epoch: int) -> list[int]:
    generator = torch.Generator().manual_seed(epoch)
    order: list[int] = torch.randperm(samples, generator=generator).tolist()
    return order
