"""The search for the best of two kinds of bit strings at once: ``coevolve``.

Each is judged with the best of the other. Users call it with fitness functions of their
own; ``CoEvolutionaryPruner`` calls it with those of two cut generators.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sklcomp.evolution._operators import (
    nan_is_worst,
    swap_segment,
)
from sklcomp.evolution._population import (
    Breeder,
    Evaluator,
    State,
    check_start,
    finite_mean,
    key_of,
    make_breeder,
    restore_known,
    restore_rng,
    save_known,
    save_rng,
    score_generation,
)
from sklcomp.utils._validation import refuse_masked

HISTORY = ("best_a", "mean_a", "best_b", "mean_b", "n_evaluations")


@dataclass(frozen=True)
class CoevolutionResult:
    """What :func:`coevolve` found.

    Attributes
    ----------
    best : tuple of two ndarray of bool, shapes (n_genes_a,) and (n_genes_b,)
        The fittest genome of the last generation of each population.
    best_fitness : tuple of two floats
        Their fitness, each with the other's best of the generation before.
    history : dict of str to ndarray
        For every generation, from that of the start: "best_a", "mean_a", "best_b" and
        "mean_b", the fitness in each population, and "n_evaluations" so far in both.
        A best may fall, as its partner changes.
    genomes : tuple of two ndarray of bool, shapes (n_distinct, n_genes)
        Every genome of each population that was evaluated, each once; those that were
        met last come last.
    fitness : tuple of two ndarray of shape (n_distinct,)
        Fitness of each with the last partner that it met.
    """

    best: tuple[np.ndarray, np.ndarray]
    best_fitness: tuple[float, float]
    history: dict[str, np.ndarray]
    genomes: tuple[np.ndarray, np.ndarray]
    fitness: tuple[np.ndarray, np.ndarray]


@refuse_masked
def coevolve(
    fitness: Callable | Sequence[Callable],
    populations: Sequence[np.ndarray],
    *,
    n_generations: int = 50,
    selection: str | Callable = "roulette",
    crossover: Callable | Sequence[Callable] = swap_segment,
    mutation: str | Callable | Sequence[str | Callable] = "segment",
    repair: Callable | Sequence[Callable | None] | None = None,
    crossover_rate: float = 0.7,
    mutation_rate: float = 0.1,
    child_mutation_rate: float = 0.0,
    elitism: int = 1,
    n_jobs: int | None = None,
    rng: np.random.Generator,
    state: State | None = None,
    callback: Callable[[State], bool | None] | None = None,
) -> CoevolutionResult:
    """Evolve two populations whose fitness depends on each other.

    Every individual is scored with a partner, the best of the other population in the
    generation before; so the order of the two does not matter. Each population breeds
    as in :func:`evolve`.

    Parameters
    ----------
    fitness : pair of callables
        One for each population, or one that serves both: ``(genome, partner) ->
        float``, with ndarrays of bool of shapes (n_genes,) of this population and of
        the other; higher is better, NaN is worst. The partner is None in the
        generation of the start. Called once for each distinct pair.
    populations : pair of array-likes of bool, shapes (n_individuals, n_genes)
        The starts, at least two individuals each; their shapes may differ.
    n_generations : int, default=50
        Generations after the start; 0 returns the bests of the start.
    selection : {"roulette", "rank", "tournament"} or callable, default="roulette"
        ``(fitness, n, rng) -> indices``, in both populations.
    crossover : callable or pair of callables, default=two-point exchange
        ``(parents (2, n_genes), rng) -> children (2, n_genes)``.
    mutation : {"segment", "bitflip"}, callable or pair of these, default="segment"
        ``(population, rng) -> population``; the names as in :func:`evolve`.
    repair : callable or pair of callables, default=None
        ``(population, rng) -> population``, applied to the starts and to all new
        individuals, for example to keep a budget. None, alone or in a pair, changes
        nothing.
    crossover_rate, mutation_rate : float in [0, 1], default=0.7 and 0.1
        Their sum is at most 1; the rest are copies.
    child_mutation_rate : float in [0, 1], default=0.0
        Probability that a child of a crossover is mutated as well.
    elitism : int, default=1
        How many of the best of each population go on unchanged. They are scored again
        when their partner is another.
    n_jobs : int, default=None
        Threads (or workers of the joblib backend in use) that evaluate both
        populations side by side; the result does not depend on them.
    rng : numpy.random.Generator
        Source of all randomness; each population gets a stream of its own.
    state : dict of str to ndarray, default=None
        A state that a callback was given: the search goes on from there. Of
        ``populations`` only the shapes are used then, and ``rng`` is not used.
    callback : callable, default=None
        Called with the state after each generation; True stops.

    Returns
    -------
    result : CoevolutionResult
        Best genomes, history, and all genomes that were evaluated.

    Raises
    ------
    ValueError
        If a population is no array of two rows or more, all its individuals would go on
        unchanged, the rates sum to more than 1, a pair has not two parts, or the name
        of a selection or mutation is unknown.

    References
    ----------
    Shu et al., "Co-Evolutionary Compression for Unpaired Image Translation", ICCV 2019,
    arXiv 1907.10804.

    Examples
    --------
    The first population is rewarded for being like the second, and the second for every
    bit that is set.

    >>> import numpy as np
    >>> from sklcomp.evolution import coevolve
    >>> def likeness(genome, partner):
    ...     return 0 if partner is None else np.sum(genome == partner)
    >>> def size(genome, partner):
    ...     return np.sum(genome)
    >>> rng = np.random.default_rng(0)
    >>> starts = rng.random((2, 20, 8)) < 0.5
    >>> result = coevolve((likeness, size), starts, selection="tournament", rng=rng)
    >>> [int(best.sum()) for best in result.best]
    [8, 8]
    """
    # Copies, as a repair of the user may write into what it is given.
    starts = [np.array(each, dtype=bool) for each in _pair(populations, "populations")]
    for start in starts:
        check_start(start, elitism, crossover_rate, mutation_rate)
    rates = crossover_rate, mutation_rate, child_mutation_rate, elitism
    operators = zip(
        _pair(crossover, "crossover"),
        _pair(mutation, "mutation"),
        _pair(repair, "repair"),
        strict=True,
    )
    breeders = [make_breeder(selection, *own, *rates) for own in operators]
    game = _Game(_pair(fitness, "fitness"), starts[0].shape[1])
    evaluate = Evaluator(game, 2 + sum(start.shape[1] for start in starts), n_jobs)
    history: dict[str, list[float]] = {name: [] for name in HISTORY}
    stopped = False
    if state is None:
        now = _begin(starts, breeders, rng)
    else:
        now = _restore(state, evaluate, history)
    while True:
        worths = _judge(now, evaluate, history)
        if stopped or now.number >= n_generations:
            break
        now = _breed(now, worths, breeders)
        if callback is not None:
            stopped = bool(callback(_snapshot(now, evaluate, history)))
    # Of the last generation, not of all: fitness with different partners does not
    # compare.
    return _collect(_bests(now, worths), game, evaluate, history)


def _pair(value: Any, name: str) -> tuple[Any, Any]:
    """One for each population; a callable, a name or None serves both."""
    serves_both = value is None or callable(value) or isinstance(value, str)
    pair = (value, value) if serves_both else tuple(value)
    if len(pair) != 2:
        msg = f"{name} has {len(pair)} parts; give 2, one for each population."
        raise ValueError(msg)
    return pair


@dataclass(frozen=True)
class _Generation:
    """Two populations, and the bests of the generation before (zeros at the start)."""

    number: int
    populations: list[np.ndarray]
    bests: list[np.ndarray]
    rngs: list[np.random.Generator]

    def meetings(self) -> np.ndarray:
        """Bit strings of each individual and its partner.

        The first bit tells whether the individual is of the second population, the
        next whether it has a partner; a genome of each population follows. So one
        evaluator serves both populations, and knows every pair that has met.
        """
        met = self.number > 0
        (all_a, all_b), (best_a, best_b) = self.populations, self.bests
        return np.array(
            [np.concatenate([[False, met], a, best_b]) for a in all_a]
            + [np.concatenate([[True, met], best_a, b]) for b in all_b]
        )


@dataclass(frozen=True)
class _Game:
    """Fitness of a meeting."""

    fitness: tuple[Callable, Callable]
    n_genes_a: int

    def genes(self, meetings: np.ndarray) -> list[np.ndarray]:
        return np.split(meetings[..., 2:], [self.n_genes_a], axis=-1)

    def __call__(self, meeting: np.ndarray) -> float:
        side, genes = int(meeting[0]), self.genes(meeting)
        partner = genes[1 - side] if meeting[1] else None
        return self.fitness[side](genes[side], partner)


def _begin(
    starts: list[np.ndarray], breeders: list[Breeder], rng: np.random.Generator
) -> _Generation:
    # Seeds are drawn, as a generator with a restored state spawns others every time.
    # A stream for each population, so that neither draws what the other would have got.
    rngs = [np.random.default_rng(seed) for seed in rng.integers(2**32, size=(2, 4))]
    populations = [
        breeder.repair(start, own)
        for breeder, start, own in zip(breeders, starts, rngs, strict=True)
    ]
    nobody = [np.zeros(start.shape[1], dtype=bool) for start in starts]
    return _Generation(0, populations, nobody, rngs)


def _judge(
    now: _Generation, evaluate: Evaluator, history: dict[str, list[Any]]
) -> list[np.ndarray]:
    """Fitness of both populations, entered into the history."""
    meetings = now.meetings()
    values = score_generation(meetings, evaluate, now.number)
    for key in map(key_of, meetings):
        # What met last goes last, where the latest fitness is looked for.
        evaluate.known[key] = evaluate.known.pop(key)
    worths = np.split(nan_is_worst(values), [len(now.populations[0])])
    for name, worth in zip("ab", worths, strict=True):
        history[f"best_{name}"].append(float(worth.max()))
        history[f"mean_{name}"].append(finite_mean(worth))
    history["n_evaluations"].append(len(evaluate.known))
    return worths


def _bests(now: _Generation, worths: list[np.ndarray]) -> list[np.ndarray]:
    pairs = zip(now.populations, worths, strict=True)
    return [population[worth.argmax()] for population, worth in pairs]


def _breed(
    now: _Generation, worths: list[np.ndarray], breeders: list[Breeder]
) -> _Generation:
    populations = [
        breeder(population, worth, rng)
        for breeder, population, worth, rng in zip(
            breeders, now.populations, worths, now.rngs, strict=True
        )
    ]
    # The bests of this generation are the partners in the next, as in the paper. The
    # published program takes the partner of B from the new A, so that there the order
    # of the two matters.
    return _Generation(now.number + 1, populations, _bests(now, worths), now.rngs)


def _snapshot(
    now: _Generation, evaluate: Evaluator, history: dict[str, list[Any]]
) -> State:
    """All that is needed to go on, as plain arrays."""
    state = {"generation": np.array(now.number), **save_known(evaluate, history)}
    for k, name in enumerate("ab"):
        state[f"population_{name}"] = now.populations[k].copy()
        state[f"best_{name}"] = now.bests[k].copy()
        state[f"rng_{name}"] = save_rng(now.rngs[k])
    return state


def _restore(
    state: State, evaluate: Evaluator, history: dict[str, list[Any]]
) -> _Generation:
    """Fill the evaluator and the history of a run that goes on."""
    restore_known(state, evaluate, history)
    return _Generation(
        int(state["generation"]),
        [state[f"population_{name}"].astype(bool) for name in "ab"],
        [state[f"best_{name}"].astype(bool) for name in "ab"],
        [restore_rng(state[f"rng_{name}"]) for name in "ab"],
    )


def _collect(
    bests: list[np.ndarray],
    game: _Game,
    evaluate: Evaluator,
    history: dict[str, list[float]],
) -> CoevolutionResult:
    meetings, values = evaluate.genomes(), np.array(list(evaluate.known.values()))
    genomes, fitness = [], []
    for side, genes in enumerate(game.genes(meetings)):
        own = meetings[:, 0] == side
        # Read backwards, the latest meeting of a genome is its first.
        _, back = np.unique(genes[own][::-1], axis=0, return_index=True)
        latest = np.sort(own.sum() - 1 - back)
        genomes.append(genes[own][latest])
        fitness.append(values[own][latest])
    # Each genome is there once, so one value is found; item() would fail if not.
    worth = [
        float(fitness[side][(genomes[side] == best).all(axis=1)].item())
        for side, best in enumerate(bests)
    ]
    return CoevolutionResult(
        best=(bests[0], bests[1]),
        best_fitness=(worth[0], worth[1]),
        history={name: np.array(values) for name, values in history.items()},
        genomes=(genomes[0], genomes[1]),
        fitness=(fitness[0], fitness[1]),
    )
