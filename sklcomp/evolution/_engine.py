"""The search for the best of all bit strings: ``evolve``.

Users call it with a fitness of their own; ``EvolutionaryPruner`` calls it with that of
a cut network.
"""

from collections.abc import Callable
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
    make_breeder,
    restore_known,
    restore_rng,
    save_known,
    save_rng,
    score_generation,
)
from sklcomp.utils._validation import refuse_masked


@dataclass(frozen=True)
class EvolutionResult:
    """What :func:`evolve` found.

    Attributes
    ----------
    best : ndarray of bool, shape (n_genes,)
        The fittest genome of all that were evaluated.
    best_fitness : float
        Its fitness.
    history : dict of str to ndarray
        For every generation, from that of the start: "best" and "mean" fitness, and
        "n_evaluations" so far.
    genomes : ndarray of bool, shape (n_evaluations, n_genes)
        Every genome that was evaluated, each once.
    fitness : ndarray of shape (n_evaluations,)
        Fitness of each of these genomes.
    """

    best: np.ndarray
    best_fitness: float
    history: dict[str, np.ndarray]
    genomes: np.ndarray
    fitness: np.ndarray


@refuse_masked
def evolve(
    fitness: Callable[[np.ndarray], float],
    population: np.ndarray,
    *,
    n_generations: int = 50,
    selection: str | Callable = "roulette",
    crossover: Callable = swap_segment,
    mutation: str | Callable = "segment",
    repair: Callable | None = None,
    crossover_rate: float = 0.7,
    mutation_rate: float = 0.1,
    child_mutation_rate: float = 0.0,
    elitism: int = 1,
    n_polish_steps: int = 0,
    n_jobs: int | None = None,
    rng: np.random.Generator,
    state: State | None = None,
    callback: Callable[[State], bool | None] | None = None,
) -> EvolutionResult:
    """Evolve a population of genomes towards higher fitness.

    A generation holds the best of the one before, and is filled by drawing: with
    ``crossover_rate`` two selected parents give two children, with ``mutation_rate``
    one selected individual is mutated, else one is copied. The defaults are the
    operators published with the co-evolutionary method (arXiv 1907.10804).

    Parameters
    ----------
    fitness : callable
        Genome, an ndarray of bool of shape (n_genes,) -> float; higher is better, NaN
        is worst. Called once for each distinct genome.
    population : array-like of bool, shape (n_individuals, n_genes)
        The start; at least two individuals.
    n_generations : int, default=50
        Generations after the start; 0 returns the best of the start.
    selection : {"roulette", "rank", "tournament"} or callable, default="roulette"
        ``(fitness, n, rng) -> indices``.
    crossover : callable, default=two-point exchange
        ``(parents (2, n_genes), rng) -> children (2, n_genes)``.
    mutation : {"segment", "bitflip"} or callable, default="segment"
        ``(population, rng) -> population``. "segment" flips all bits between two random
        cuts, "bitflip" each bit with probability 2 / n_genes.
    repair : callable, default=None
        ``(population, rng) -> population``, applied to the start and to all new
        individuals, for example to keep a budget. None changes nothing.
    crossover_rate, mutation_rate : float in [0, 1], default=0.7 and 0.1
        Their sum is at most 1; the rest are copies.
    child_mutation_rate : float in [0, 1], default=0.0
        Probability that a child of a crossover is mutated as well.
    elitism : int, default=1
        How many of the best go on unchanged into the next generation.
    n_polish_steps : int, default=0
        Mutations of the best genome after the last generation, each kept if better.
    n_jobs : int, default=None
        Threads (or workers of the joblib backend in use) that evaluate; the result
        does not depend on them.
    rng : numpy.random.Generator
        Source of all that is drawn; it is used up by the search.
    state : dict of str to ndarray, default=None
        A state that a callback was given: the search goes on from there. Of
        ``population`` only the number of genes is used then, and ``rng`` is not used.
    callback : callable, default=None
        Called with the state after each generation; True stops.

    Returns
    -------
    result : EvolutionResult
        Best genome, history, and all genomes that were evaluated.

    Raises
    ------
    ValueError
        If the population is no array of two rows or more, all individuals would go on
        unchanged, the rates sum to more than 1, or the name of a selection or mutation
        is unknown.

    Examples
    --------
    >>> import numpy as np
    >>> from sklcomp.evolution import evolve
    >>> rng = np.random.default_rng(0)
    >>> start = rng.random((20, 16)) < 0.5
    >>> result = evolve(np.sum, start, selection="tournament", rng=rng)
    >>> bool(result.best_fitness > start.sum(axis=1).max())
    True
    """
    # A copy, as a repair of the user may write into what it is given.
    population = np.array(population, dtype=bool)
    check_start(population, elitism, crossover_rate, mutation_rate)
    rates = crossover_rate, mutation_rate, child_mutation_rate, elitism
    breeder = make_breeder(selection, crossover, mutation, repair, *rates)
    evaluate = Evaluator(fitness, population.shape[1], n_jobs)
    history: dict[str, list[float]] = {"best": [], "mean": [], "n_evaluations": []}
    generation, stopped = 0, False
    # A saved population was repaired before it was saved. Another repair would draw
    # numbers that the uninterrupted run did not draw.
    if state is None:
        population = breeder.repair(population, rng)
    else:
        rng, population, generation = _restore(state, evaluate, history)
    # Fitness comes before the question whether to stop, so the history holds the start
    # of a search without generations, and the last generation of a stopped one.
    while True:
        worth = _judge(population, evaluate, generation, history)
        if stopped or generation >= n_generations:
            break
        population = breeder(population, worth, rng)
        generation += 1
        if callback is not None:
            # Taken before the new generation is evaluated, which is the long part: who
            # is interrupted there goes on from here.
            now = _snapshot(rng, population, generation, evaluate, history)
            stopped = bool(callback(now))
    _polish(evaluate, breeder, n_polish_steps, rng)
    return _collect(evaluate, history)


def _collect(evaluate: Evaluator, history: dict[str, list[float]]) -> EvolutionResult:
    # Of all that were met: after a polish, or with elitism=0, the best need not be in
    # the last population.
    genomes, values = evaluate.genomes(), np.array(list(evaluate.known.values()))
    at = int(nan_is_worst(values).argmax())
    return EvolutionResult(
        best=genomes[at],
        best_fitness=float(values[at]),
        history={name: np.array(values) for name, values in history.items()},
        genomes=genomes,
        fitness=values,
    )


def _judge(
    population: np.ndarray,
    evaluate: Evaluator,
    generation: int,
    history: dict[str, list[float]],
) -> np.ndarray:
    """Fitness of a generation, entered into the history."""
    worth = nan_is_worst(score_generation(population, evaluate, generation))
    history["best"].append(float(worth.max()))
    history["mean"].append(finite_mean(worth))
    # Distinct genomes, as they are what time was spent on.
    history["n_evaluations"].append(len(evaluate.known))
    return worth


def _polish(
    evaluate: Evaluator, breeder: Breeder, n_steps: int, rng: np.random.Generator
) -> None:
    """Accept mutations of the best genome as long as they are better."""
    values = nan_is_worst(list(evaluate.known.values()))
    best, worth = evaluate.genomes()[values.argmax()][None], values.max()
    # Not a part of the published method, whose recipe takes no such steps.
    for _ in range(n_steps):
        trial = breeder.repair(breeder.mutation(best, rng), rng)
        value = evaluate(trial)[0]
        # NaN compares as false, so it is never taken.
        if value > worth:
            best, worth = trial, value


def _snapshot(
    rng: np.random.Generator,
    population: np.ndarray,
    generation: int,
    evaluate: Evaluator,
    history: dict[str, list[Any]],
) -> State:
    """All that is needed to go on, as plain arrays."""
    return {
        # A copy, so that a callback that writes into its state leaves the search alone.
        "population": population.copy(),
        "generation": np.array(generation),
        "rng": save_rng(rng),
        **save_known(evaluate, history),
    }


def _restore(
    state: State, evaluate: Evaluator, history: dict[str, list[Any]]
) -> tuple[np.random.Generator, np.ndarray, int]:
    """Fill the evaluator and the history of a run that goes on."""
    restore_known(state, evaluate, history)
    return (
        restore_rng(state["rng"]),
        np.asarray(state["population"], dtype=bool),
        int(state["generation"]),
    )
