"""Selections, crossovers, mutations and repairs of bit strings.

``evolve``, ``coevolve`` and the pruners put a search together from them. A population
is a boolean array of shape (n_individuals, n_genes). All but the selections take one
and a generator, and return a new one. An ``order`` is a list with one array of genes
for each segment, the least important first. Genomes in which every segment keeps the
last of its order are called nested, and the operators that take an order leave them
nested, but for ``swap_genes``.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

Order = Sequence[np.ndarray]


def nan_is_worst(fitness: Any) -> np.ndarray:
    """Fitness with minus infinity for NaN."""
    return np.where(np.isnan(fitness), -np.inf, fitness)


def select_roulette(
    fitness: np.ndarray, n: int, rng: np.random.Generator
) -> np.ndarray:
    """Picks with probability in proportion to fitness.

    Fitness that is not positive is shifted so that the worst gets nothing; where all
    are equal, all get the same.
    """
    # The published fitness is positive and its share of the sum is the probability.
    # Ours may be negative, such as minus a divergence, and needs the shift.
    worth = np.where(np.isfinite(fitness), fitness, np.nan)
    least = np.nanmin(worth) if np.isfinite(worth).any() else 0.0
    worth = np.nan_to_num(worth - min(least, 0.0))
    total = worth.sum()
    share = worth / total if total > 0 else np.full(len(worth), 1 / len(worth))
    return rng.choice(len(fitness), n, p=share)


def select_rank(fitness: np.ndarray, n: int, rng: np.random.Generator) -> np.ndarray:
    """Picks with probability in proportion to the squared rank."""
    # Ranks, since raw fitness has little pressure where all values are alike; the
    # square adds to it.
    rank = np.argsort(np.argsort(nan_is_worst(fitness))) + 1.0
    return rng.choice(len(fitness), n, p=rank**2 / (rank**2).sum())


def select_tournament(
    fitness: np.ndarray, n: int, rng: np.random.Generator, size: int = 3
) -> np.ndarray:
    """The best of ``size`` individuals that are drawn at random, n times."""
    # Three, as in our measurements; what it gained there over roulette was within the
    # spread of the seeds.
    rivals = rng.integers(len(fitness), size=(n, size))
    worth = nan_is_worst(fitness)[rivals]
    return rivals[np.arange(n), worth.argmax(axis=1)]


SELECTIONS: dict[str, Callable] = {
    "roulette": select_roulette,
    "rank": select_rank,
    "tournament": select_tournament,
}


def _cut(n_genes: int, rng: np.random.Generator) -> slice:
    # The end is exclusive, so it may be n_genes: else the last gene never changed.
    start, stop = np.sort(rng.integers(0, n_genes + 1, size=2))
    return slice(start, stop)


def swap_segment(parents: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Two children of two parents that swap what lies between two cut points."""
    children = parents.copy()
    part = _cut(parents.shape[1], rng)
    children[:, part] = parents[::-1, part]
    return children


def exchange_layers(
    parents: np.ndarray, rng: np.random.Generator, order: Order
) -> np.ndarray:
    """Two children that get every segment from either parent."""
    children = parents.copy()
    # Whole segments: a cut within one would give children that are not nested.
    for genes in order:
        if rng.random() < 0.5:
            children[:, genes] = parents[::-1][:, genes]
    return children


def flip_segment(population: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Every bit between two cut points is flipped."""
    mutants = population.copy()
    # As published. It destroys many a good individual, so that only the published
    # recipes use it.
    for mutant in mutants:
        part = _cut(len(mutant), rng)
        mutant[part] = ~mutant[part]
    return mutants


def flip_bits(
    population: np.ndarray, rng: np.random.Generator, rate: float | None = None
) -> np.ndarray:
    """Every bit is flipped with the probability ``rate``, by default 2 / n_genes."""
    # Two bits on average, however long a genome is.
    rate = 2 / population.shape[1] if rate is None else rate
    return population ^ (rng.random(population.shape) < rate)


MUTATIONS: dict[str, Callable] = {"segment": flip_segment, "bitflip": flip_bits}


def move_widths(
    population: np.ndarray, rng: np.random.Generator, order: Order, share: float = 0.1
) -> np.ndarray:
    """One segment becomes wider or narrower.

    By how many genes is drawn from an exponential distribution, whose mean is this
    share of the segment.
    """
    mutants = population.copy()
    for mutant in mutants:
        genes = order[int(rng.integers(len(order)))]
        # One gene at least. Small steps are likely and large ones remain possible.
        step = 1 + int(rng.exponential(share * len(genes)))
        if rng.random() < 0.5:
            mutant[_lowest(mutant, genes)[:step]] = False
        else:
            mutant[_highest(mutant, genes)[:step]] = True
    return mutants


def swap_genes(
    population: np.ndarray, rng: np.random.Generator, order: Order
) -> np.ndarray:
    """In one segment a gene dies, likely a poor one, and one that was dead lives.

    The new one is likely a good one.
    """
    mutants = population.copy()
    for mutant in mutants:
        genes = order[int(rng.integers(len(order)))]
        # First out, then in: a full segment stays full. The other order would take a
        # gene from it.
        for gone, value in ((_lowest, False), (_highest, True)):
            found = gone(mutant, genes)
            if len(found):
                # The first is the likeliest; the mean is a quarter of the way down.
                at = min(int(rng.exponential(len(found) / 4)), len(found) - 1)
                mutant[found[at]] = value
    return mutants


def _lowest(genome: np.ndarray, genes: np.ndarray) -> np.ndarray:
    """Living genes, the least important first."""
    return genes[genome[genes]]


def _highest(genome: np.ndarray, genes: np.ndarray) -> np.ndarray:
    """Dead genes, the most important first."""
    return genes[~genome[genes]][::-1]


def revive(population: np.ndarray, order: Order, min_genes: int) -> np.ndarray:
    """Bring back the most important genes where a segment has too few."""
    revived = population.copy()
    for genome in revived:
        for genes in order:
            # A layer without channels is no layer. The published product variant
            # revives one at random; here the order says which.
            missing = max(0, min_genes - int(genome[genes].sum()))
            genome[_highest(genome, genes)[:missing]] = True
    return revived


def fit_budget(
    population: np.ndarray,
    rng: np.random.Generator,
    order: Order,
    fits: Callable[[np.ndarray], bool],
    min_genes: int = 1,
) -> np.ndarray:
    """Drop the least important genes until a genome fits, then add while it does.

    The segment of each step is drawn at random. Each segment keeps ``min_genes``, or
    all if it has fewer.
    """
    # The least number first and the budget second: where both cannot be met, a network
    # that exists is worth more than one that fits.
    repaired = revive(population, order, min_genes)
    for genome in repaired:
        _shrink(genome, rng, order, fits, min_genes)
        # The last gene to go may have been large: what room it left is filled, as a
        # budget is there to be used up.
        _grow(genome, rng, order, fits)
    return repaired


def _shrink(
    genome: np.ndarray,
    rng: np.random.Generator,
    order: Order,
    fits: Callable,
    min_genes: int,
) -> None:
    wide = [genes for genes in order if genome[genes].sum() > min_genes]
    while wide and not fits(genome):
        # At random: the order ranks the genes within a segment, and says nothing of two
        # segments.
        k = int(rng.integers(len(wide)))
        living = _lowest(genome, wide[k])
        genome[living[0]] = False
        if len(living) - 1 <= min_genes:
            wide.pop(k)


def _grow(
    genome: np.ndarray, rng: np.random.Generator, order: Order, fits: Callable
) -> None:
    narrow = [genes for genes in order if not genome[genes].all()]
    while narrow:
        k = int(rng.integers(len(narrow)))
        dead = _highest(genome, narrow[k])
        genome[dead[0]] = True
        # Sizes only rise from here on, so a segment that no longer fits need not be
        # tried again.
        if not fits(genome):
            genome[dead[0]] = False
            narrow.pop(k)
        elif len(dead) == 1:
            narrow.pop(k)
