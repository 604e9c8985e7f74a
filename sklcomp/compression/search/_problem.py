"""PruningProblem: one network, the genomes of its cuts, and what each cut costs.

Both pruners make one for each network, and their fitness decodes genomes by it.
"""

from collections.abc import Sequence
from functools import partial
from numbers import Integral
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from sklcomp.evolution._operators import (
    exchange_layers,
    fit_budget,
    flip_segment,
    move_widths,
    revive,
    swap_genes,
    swap_segment,
)
from sklcomp.nn import (
    collect_covariances,
    elimination_order,
    keep_fraction,
    trace_channels,
)
from sklcomp.nn._running import device_of, reestimate_batch_norms
from sklcomp.nn.surgery._compensation import Repairs
from sklcomp.nn.surgery._cost import ChannelCost
from sklcomp.nn.surgery._cut import prune_remembering
from sklcomp.nn.surgery._graph import freeze_genes, tie_inner_widths

# Uniform networks of these shares are scored too, so that the front spans all sizes.
FRONT_SHARES = (0.1, 0.2, 0.3, 0.45, 0.6, 0.8, 1.0)
# Examples that covariances, and statistics of batch norms, are taken of.
N_EXAMPLES = 2000


class PruningProblem:
    """Everything that a search over the channels of one network needs.

    Parameters
    ----------
    module : nn.Module
        The unpruned network; never changed.
    X : Tensor
        Training examples.
    max_params, max_macs : float, int or None
        Budgets: shares, or absolute numbers.
    importance : {"obs", "l1", "group", "random"}
        What orders the genes of a segment.
    compensate : bool
        Whether decoded networks are repaired.
    ignored_layers : sequence of str
        Layers that keep all channels.
    min_channels : int
        Genes that every segment keeps.
    rng : numpy.random.Generator
        Source of randomness.
    inner_width : bool, default=True
        Whether residual branches have widths of their own.
    n_examples : int
        Examples that statistics are taken of, at most.
    """

    def __init__(
        self,
        module: nn.Module,
        X: Tensor,
        *,
        max_params: Any,
        max_macs: Any,
        importance: str,
        compensate: bool,
        ignored_layers: Sequence[str],
        min_channels: int,
        rng: np.random.Generator,
        inner_width: bool = True,
        n_examples: int = N_EXAMPLES,
    ):
        self.module, self.min_channels = module, min_channels
        device = device_of(module)
        graph = trace_channels(module, X[:2].to(device))
        # The paper has one segment for the trunk and the branches of residual blocks,
        # so that its sums line up by themselves.
        graph = graph if inner_width else tie_inner_widths(graph)
        self.graph = _without_layers(graph, ignored_layers)
        if not self.graph.n_genes:
            msg = f"no channel of {type(module).__name__} can be removed: {self.graph}"
            raise ValueError(msg)
        self.cost = ChannelCost(module, self.graph, X[:1].to(device))
        self.full_cost = self.cost(np.ones(self.graph.n_genes, bool))
        given = {"max_params": max_params, "max_macs": max_macs}
        self.budget = tuple(
            absolute_budget(limit, full)
            for limit, full in zip(given.values(), self.full_cost, strict=True)
        )
        # Before the covariances, which take long: what cannot be met is said first.
        self._check_budget(given)
        # The first draw of a search. The order of the draws must stay, or a seed would
        # give another start.
        rows = rng.permutation(len(X))[:n_examples]
        self.statistics = X[torch.from_numpy(rows)].to(device)
        # Of the network that nothing is cut from, once for the whole search. They need
        # no labels, and serve the repair as well as the order.
        self.covariances = None
        if compensate or importance == "obs":
            self.covariances = collect_covariances(module, self.graph, self.statistics)
        self.compensation = self.covariances if compensate else None
        self._repairs = Repairs()
        self.order = self._rank(importance, rng)

    def _rank(self, importance: str, rng: np.random.Generator) -> list[np.ndarray]:
        if importance == "random":
            return [rng.permutation(genes) for genes in self.graph.segments]
        if importance == "obs":
            # The surgeon reads the layers that use a channel; where there is none to
            # read, the norm of all weights that go with it takes its place.
            return elimination_order(
                self.module, self.graph, self.covariances, norm="group"
            )
        return elimination_order(self.module, self.graph, norm=importance)

    def _check_budget(self, given: dict[str, Any]) -> None:
        least = np.zeros(self.graph.n_genes, bool)
        for genes in self.graph.segments:
            least[genes[-self.min_channels :]] = True
        for (name, value), limit, cost, full in zip(
            given.items(), self.budget, self.cost(least), self.full_cost, strict=True
        ):
            if cost > limit:
                msg = (
                    f"{name}={value} cannot be reached: with {self.min_channels} "
                    f"channels in every group {cost:,} of {full:,} are left. Raise "
                    f"{name}, or free layers that are frozen or ignored."
                )
                raise ValueError(msg)

    @property
    def has_budget(self) -> bool:
        """Whether any budget was given."""
        return bool(np.isfinite(self.budget).any())

    def fits(self, genome: np.ndarray) -> bool:
        """Whether a genome keeps the budget."""
        costs = self.cost(genome)
        return all(
            cost <= limit for cost, limit in zip(costs, self.budget, strict=True)
        )

    def decode(self, genome: np.ndarray) -> nn.Module:
        """The network of a genome, repaired if the problem says so."""
        # Individuals differ in few layers, so most repairs were computed before.
        return prune_remembering(
            self.module, self.graph, genome, self.compensation, self._repairs
        )

    def finish(self, genome: np.ndarray) -> nn.Module:
        """The decoded network, with batch norms estimated anew for what they read."""
        module = self.decode(genome)
        if self.compensation is not None:
            reestimate_batch_norms(module, self.statistics)
        return module

    def uniform(self, share: float) -> np.ndarray:
        """The genome that keeps this share of each segment, its best genes."""
        return keep_fraction(self.graph, self.order, share)

    def uniform_front(self) -> np.ndarray:
        """Uniform genomes, from a tenth of every segment to all of it."""
        genomes = [self.uniform(share) for share in FRONT_SHARES]
        return revive(np.array(genomes), self.order, self.min_channels)

    def repair(self, population: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Keep the budget, and a least number of channels in every segment."""
        if self.has_budget:
            # Fitting also adds genes: what the budget leaves free would be lost.
            return fit_budget(population, rng, self.order, self.fits, self.min_channels)
        return revive(population, self.order, self.min_channels)

    def start(self, recipe: Any, rng: np.random.Generator) -> np.ndarray:
        """The first population."""
        n, is_nested = recipe.population_size, recipe.genes == "nested"
        if recipe.operators == "segments":
            # Fair coins, as published, so that about half of every layer is left.
            return rng.random((n, self.graph.n_genes)) < 0.5
        # The best that needs no search goes first: the elite keeps it until it is
        # beaten.
        population = [self.widest_uniform()]
        for k in range(1, n):
            # Drawn for every individual, used or not, so that the draws after it stay
            # where they are.
            shares = rng.uniform(0.15, 1, len(self.order))
            if not is_nested and k > n // 2:
                # The other half follows the order even if the genes are free. Of all
                # changes to the published operators a start by importance helped most:
                # on LeNet, at a tenth of the parameters, the error after tuning fell
                # from 4.13 to 1.24 %.
                density = rng.uniform(0.15, 1)
                population.append(rng.random(self.graph.n_genes) < density)
            else:
                population.append(keep_fraction(self.graph, self.order, shares))
        return np.array(population)

    def widest_uniform(self) -> np.ndarray:
        """The largest equal share of all segments that keeps the budget."""
        low, high = 0.0, 1.0
        # Halving gets ever nearer to 1, and never there.
        if self.fits(self.uniform(1.0)):
            return self.uniform(1.0)
        # Twenty halvings tell shares apart that differ by a millionth: less than a
        # channel.
        for _ in range(20):
            middle = (low + high) / 2
            low, high = (
                (middle, high) if self.fits(self.uniform(middle)) else (low, middle)
            )
        # A share of zero is refused; the smallest leaves one gene in each segment.
        return self.uniform(max(low, 1e-6))

    def operators(self, recipe: Any) -> dict[str, Any]:
        """Crossover, mutation and repair for ``evolve`` and ``coevolve``."""
        is_nested = recipe.genes == "nested"
        if recipe.operators == "segments":
            return {
                "crossover": swap_segment,
                "mutation": flip_segment,
                "repair": self.repair,
            }
        widths = partial(move_widths, order=self.order)
        swaps = partial(swap_genes, order=self.order)

        def mutate(population: np.ndarray, rng: np.random.Generator) -> np.ndarray:
            # Swaps would leave genomes that are not nested. Free ones have half of
            # each.
            operator = widths if is_nested or rng.random() < 0.5 else swaps
            mutants = operator(population, rng)
            # A fifth are mutated twice, as in our measurements: .4 once and .1 twice.
            return operator(mutants, rng) if rng.random() < 0.2 else mutants

        crossover = partial(exchange_layers, order=self.order)
        return {"crossover": crossover, "mutation": mutate, "repair": self.repair}


def _without_layers(graph: Any, ignored: Sequence[str]) -> Any:
    """The graph with all channels of these layers kept."""
    reasons = {
        int(gene): "is in ignored_layers"
        for layer in ignored
        for gene in graph.genes_of(layer)
    }
    return freeze_genes(graph, reasons) if reasons else graph


def absolute_budget(limit: Any, full: int) -> float:
    """A budget as a number: a float up to 1 is a share, an int a count."""
    if limit is None:
        return np.inf
    # 1 is one parameter, and 1.0 is all of them.
    if isinstance(limit, Integral):
        return float(limit)
    if limit > 1:
        msg = f"a budget of {limit}; give a share up to 1.0, or an integer number."
        raise ValueError(msg)
    return float(limit) * full
