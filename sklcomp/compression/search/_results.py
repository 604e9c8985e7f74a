"""What both pruners read off a search: Pareto fronts, kept channels, uniform nets."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from sklcomp.compression.search._problem import PruningProblem, absolute_budget
from sklcomp.evolution import CoevolutionResult, EvolutionResult


def pareto_front(costs: np.ndarray, fitness: np.ndarray) -> np.ndarray:
    """Indices of what nothing beats in fitness and all costs, by rising cost.

    Networks without a finite fitness are on it only if there are no others.
    """
    fitness = np.where(np.isfinite(fitness), fitness, -np.inf)
    values = np.column_stack([-fitness, costs])
    front = [
        k
        for k, own in enumerate(values)
        if (np.isfinite(own[0]) or not np.isfinite(fitness).any())
        and not ((values <= own).all(axis=1) & (values < own).any(axis=1)).any()
    ]
    order = np.lexsort([-fitness[front], costs[front, 0]])
    return np.array(front)[order]


def front_of(
    problem: PruningProblem, genomes: np.ndarray, fitness: np.ndarray
) -> dict[str, np.ndarray]:
    """The Pareto front of what was evaluated, with its costs."""
    costs = np.array([problem.cost(genome) for genome in genomes])
    front = pareto_front(costs, fitness)
    return {
        "genomes": genomes[front],
        "fitness": fitness[front],
        "n_parameters": costs[front, 0],
        "n_macs": costs[front, 1],
    }


def kept_channels(graph: Any, genome: np.ndarray) -> dict[str, np.ndarray]:
    """Layer -> indices of the channels that a genome keeps."""
    # The gene -1 stands for channels that stay, and finds the last entry.
    alive = np.append(genome, True)
    return {
        layer: np.flatnonzero(alive[genes]) for layer, genes in graph.layers.items()
    }


def fittest_within(
    front: dict[str, np.ndarray], full: Sequence[int], max_params: Any, max_macs: Any
) -> np.ndarray:
    """The fittest genome of a Pareto front that keeps these budgets."""
    fits = np.ones(len(front["fitness"]), bool)
    for name, sizes, limit, whole in (
        ("max_params", front["n_parameters"], max_params, full[0]),
        ("max_macs", front["n_macs"], max_macs, full[1]),
    ):
        # Of those that keep the other budget, so that the message names a size that can
        # be had.
        least = sizes[fits].min()
        fits &= sizes <= absolute_budget(limit, whole)
        if not fits.any():
            within = ""
            if name == "max_macs" and max_params is not None:
                within = f" within max_params={max_params}"
            msg = (
                f"{name}={limit} is less than the search has seen{within}: the "
                f"least is {least}. Fit anew with that budget."
            )
            raise ValueError(msg)
    best = np.flatnonzero(fits)[front["fitness"][fits].argmax()]
    return front["genomes"][best]


def with_uniform(
    problem: PruningProblem, score: Any, result: EvolutionResult
) -> EvolutionResult:
    """The result with uniform widths that it has not met, for the ends of its front."""
    # The front has each network once.
    met = {genome.tobytes() for genome in result.genomes}
    front = {genome.tobytes(): genome for genome in problem.uniform_front()}
    uniform = [genome for key, genome in front.items() if key not in met]
    if not uniform:
        return result
    found = np.array([score(genome) for genome in uniform])
    return replace(
        result,
        genomes=np.concatenate([result.genomes, uniform]),
        fitness=np.concatenate([result.fitness, found]),
    )


def with_uniform_pairs(
    problems: Any, directions: Any, result: CoevolutionResult
) -> CoevolutionResult:
    """The result with pairs of uniform widths, so that the fronts span all sizes."""
    genomes: Any = list(result.genomes)
    fitness: Any = list(result.fitness)
    for k in range(2):
        own, other = (
            problem.uniform_front() for problem in (problems[k], problems[1 - k])
        )
        found = [directions[k](*pair) for pair in zip(own, other, strict=True)]
        genomes[k] = np.concatenate([genomes[k], own])
        fitness[k] = np.concatenate([fitness[k], found])
    return replace(result, genomes=tuple(genomes), fitness=tuple(fitness))
