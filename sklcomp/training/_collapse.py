"""Spreads: whether a student answers all examples alike because its features do.

``TeacherLoss`` keeps one during a training with an embedding loss.
"""

from typing import Any

import torch
from torch import Tensor

from sklcomp.training._nets import first_output

# Share of its first spread below which something has fallen into a point.
COLLAPSED = 0.1
# Share of its first value above which a task loss has stayed where it was.
STUCK = 0.8


class Spreads:
    """Mean variances, within a batch, of a student's features and of its answers.

    Those of the first batch, before any step, are what the last epoch is held against.
    """

    def __init__(self) -> None:
        self.first: Tensor | None = None
        self.last: Tensor | None = None
        self._total, self._n = torch.zeros(2), 0

    @torch.no_grad()
    def add(self, features: Tensor, output: Any) -> None:
        """Take in a batch of a training step."""
        answers = first_output(output).flatten(1)
        # Squares of half precision overflow.
        both = (features.float(), answers.float())
        spreads = torch.stack([one.var(0, correction=0).mean().cpu() for one in both])
        if self.first is None:
            self.first = spreads
        self._total = self._total + len(features) * spreads
        self._n += len(features)

    def end_epoch(self) -> None:
        """Note the means of an epoch."""
        if self._n:
            self.last = self._total / self._n
            self._total, self._n = torch.zeros(2), 0

    @property
    def shares(self) -> tuple[float, float]:
        """What is left of the first spreads: of the features, of the answers."""
        if self.first is None or self.last is None:
            return 1.0, 1.0
        left = self.last / self.first.clamp_min(torch.finfo(torch.float32).tiny)
        return float(left[0]), float(left[1])

    @property
    def have_collapsed(self) -> bool:
        """Whether little is left of both."""
        return max(self.shares) < COLLAPSED
