"""Fitness: how good a cut network is, on examples held out for that.

``EvolutionaryPruner`` hands it to ``evolve``.
"""

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from sklcomp.compression.search._problem import PruningProblem
from sklcomp.nn._running import (
    FastLayout,
    evaluating,
    reestimate_batch_norms,
    use_batch_statistics,
)
from sklcomp.training._nets import OutputKind

# Examples in a forward: few enough for the caches of a processor, and enough for the
# statistics of a batch norm.
BATCH = 125


class Fitness:
    """Fitness of a genome on examples that nothing else is done with."""

    def __init__(
        self,
        problem: PruningProblem,
        task: OutputKind,
        X: np.ndarray,
        y: np.ndarray,
        kind: Any,
        trade_off: float,
    ):
        self.problem, self.task, self.y = problem, task, y
        device = problem.statistics.device
        self.X = torch.from_numpy(X).to(device)
        self.kind, self.trade_off = kind, trade_off
        # Statistics of a cut network differ, and are estimated anew when it is built.
        self.is_fresh = problem.compensation is not None
        # Once for the whole search, with the statistics of its own training: no
        # candidate changes the full network.
        self.target = self._logits(problem.module, self.X)
        # Tried on the whole network, whose views are those of all cut ones.
        whole = problem.decode(np.ones(problem.graph.n_genes, bool))
        self.layout = FastLayout(lambda X: self._logits(whole, X), self.X, whole)
        self.laid_X = self.layout(self.X)

    def __call__(self, genome: np.ndarray) -> float:
        module = self.layout(self.problem.decode(genome))
        if callable(self.kind):
            # A function of the user runs the module as it likes, so the statistics have
            # to be in it. Ours are those of each batch, and need no pass of their own.
            if self.is_fresh:
                reestimate_batch_norms(module, self.X)
            with evaluating(module):
                worth = float(self.kind(module, self.X.clone(), self._targets()))
        else:
            logits = self._logits(module, self.laid_X, self.is_fresh)
            if self.kind == "accuracy":
                worth = self.task.score(logits, self.y)
            else:
                # The divergence foretells the error after fine-tuning better than
                # accuracy does: on LeNets of equal widths, repaired, the rank
                # correlations were .85 and .68.
                worth = -float(self.task.divergence(self.target, logits))
        if self.trade_off:
            # Parameters: they are the size in our form of the published fitness.
            size = self.problem.cost(genome)[0] / self.problem.full_cost[0]
            worth += self.trade_off * (1 - size)
        return worth

    def _targets(self) -> Tensor:
        return torch.from_numpy(self.y).to(self.X.device)

    def _logits(self, module: nn.Module, X: Tensor, is_fresh: bool = False) -> Tensor:
        with evaluating(module):
            # A single example has no statistics.
            if is_fresh and len(X) > 1:
                use_batch_statistics(module)
            return torch.cat(
                [
                    self.task.logits(module(batch.clone()))
                    for batch in X.tensor_split(math.ceil(len(X) / BATCH))
                ]
            )
