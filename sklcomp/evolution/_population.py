"""What both evolutions are made of: evaluation, breeding and the state of a search.

``evolve`` and ``coevolve`` call all of it.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from joblib import Parallel, delayed

from sklcomp.evolution._operators import MUTATIONS, SELECTIONS
from sklcomp.utils._messages import show

State = dict[str, np.ndarray]


def key_of(genome: np.ndarray) -> bytes:
    """A genome as bytes, eight genes in each, by which it is looked up."""
    return np.packbits(genome).tobytes()


class Evaluator:
    """Fitness of genomes, each computed once."""

    def __init__(self, fitness: Callable, n_genes: int, n_jobs: int | None):
        self.fitness, self.n_genes, self.n_jobs = fitness, n_genes, n_jobs
        self.known: dict[bytes, float] = {}

    def __call__(self, population: np.ndarray) -> np.ndarray:
        keys = [key_of(genome) for genome in population]
        # Elites and copies come back in every generation. Not to evaluate them again
        # saves 22-28 % of the calls with roulette, and about 70 % with rank and bit
        # flips.
        new = {
            key: genome
            for key, genome in zip(keys, population, strict=True)
            if key not in self.known
        }
        # Each gets a copy, as a fitness of the user may write into its genome.
        # Threads: torch and numpy release the lock, and processes would ship the data.
        values = Parallel(n_jobs=self.n_jobs, prefer="threads")(
            delayed(self.fitness)(genome.copy()) for genome in new.values()
        )
        for key, value in zip(new, values, strict=True):
            self.known[key] = float(value)
        return np.array([self.known[key] for key in keys])

    def genomes(self) -> np.ndarray:
        """All genomes with known fitness, in the order in which they were met."""
        # Bytes are all that is kept of a genome, an eighth of its booleans. The count
        # below cuts off the bits that fill up the last byte.
        packed = np.frombuffer(b"".join(self.known), np.uint8)
        packed = packed.reshape(len(self.known), -1)
        return np.unpackbits(packed, axis=1, count=self.n_genes).astype(bool)


def keep_all(population: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The repair that changes nothing."""
    return population


def find_operator(
    operator: str | Callable, named: dict[str, Callable], parameter: str
) -> Callable:
    """The operator of this name; an operator that is a function is taken as it is."""
    if not isinstance(operator, str):
        return operator
    if operator not in named:
        msg = f"{parameter}={show(operator)}; choose one of {', '.join(named)}."
        raise ValueError(msg)
    return named[operator]


def check_start(
    population: np.ndarray, elitism: int, crossover_rate: float, mutation_rate: float
) -> None:
    """Raise if a population cannot be evolved at these rates."""
    if population.ndim != 2 or len(population) < 2:
        msg = (
            f"population of shape {population.shape}; expected (n_individuals, "
            "n_genes) with at least 2 individuals."
        )
        raise ValueError(msg)
    check_rates(len(population), elitism, crossover_rate, mutation_rate)


def check_rates(
    n: int, elitism: int, crossover_rate: float, mutation_rate: float
) -> None:
    """Raise if n individuals cannot be evolved at these rates."""
    if not 0 <= elitism < n:
        msg = (
            f"elitism={elitism} of {n} individuals leaves no room for new ones; choose "
            f"at most {n - 1}."
        )
        raise ValueError(msg)
    # The sum of two rates that are meant to make 1 may exceed it by a rounding.
    if crossover_rate + mutation_rate > 1 + 1e-12:
        msg = (
            f"crossover_rate={crossover_rate} and mutation_rate={mutation_rate} sum "
            "to more than 1; lower one of them."
        )
        raise ValueError(msg)


@dataclass(frozen=True)
class Breeder:
    """Makes the next generation of a population from its fitness."""

    select: Callable
    crossover: Callable
    mutation: Callable
    repair: Callable
    crossover_rate: float
    mutation_rate: float
    child_mutation_rate: float
    elitism: int

    def __call__(
        self, population: np.ndarray, worth: np.ndarray, rng: np.random.Generator
    ) -> np.ndarray:
        # A stable sort, so that equals are taken in the same order by every build of
        # numpy.
        new = list(population[np.argsort(-worth, kind="stable")[: self.elitism]])
        while len(new) < len(population):
            # One draw decides what is made, with the published shares. The published
            # program tests for a copy first, which changes what a seed gives, and no
            # share. The order of all draws here must stay, or results of the same seed
            # would change.
            draw = rng.random()
            if draw < self.crossover_rate:
                children = self.crossover(population[self.select(worth, 2, rng)], rng)
                mutated = rng.random(2) < self.child_mutation_rate
                # A mutation of the user need not bear an empty population.
                if mutated.any():
                    children[mutated] = self.mutation(children[mutated], rng)
            else:
                # An array as index makes a copy: operators that work in place leave
                # parents alone.
                children = population[self.select(worth, 1, rng)]
                if draw < self.crossover_rate + self.mutation_rate:
                    children = self.mutation(children, rng)
            new.extend(self.repair(children, rng))
        # Both children of a crossover go in, as published, so the last may be one too
        # many.
        return np.array(new[: len(population)])


def make_breeder(
    selection: str | Callable,
    crossover: Callable,
    mutation: str | Callable,
    repair: Callable | None,
    *rates: Any,
) -> Breeder:
    """A breeder of operators by name or of the user's; ``rates`` are its last four."""
    return Breeder(
        find_operator(selection, SELECTIONS, "selection"),
        crossover,
        find_operator(mutation, MUTATIONS, "mutation"),
        repair or keep_all,
        *rates,
    )


def score_generation(
    population: np.ndarray, evaluate: Evaluator, generation: int
) -> np.ndarray:
    """Fitness of a generation; an error in it is given the generation's number."""
    try:
        return evaluate(population)
    # An interrupt gets the note as well: it tells how far a long search had come.
    except BaseException as error:
        error.add_note(f"while generation {generation} was evaluated")
        raise


def finite_mean(worth: np.ndarray) -> float:
    """Mean of the finite values; minus infinity if there are none."""
    # A single hopeless genome would make the mean of all minus infinity.
    finite = worth[np.isfinite(worth)]
    return float(finite.mean()) if len(finite) else -np.inf


def save_rng(rng: np.random.Generator) -> np.ndarray:
    # As text: the integers of a generator have 128 bits, and no array of numbers holds
    # them.
    return np.array(json.dumps(rng.bit_generator.state))


def save_known(evaluate: Evaluator, history: dict[str, list[Any]]) -> State:
    return {
        "genomes": evaluate.genomes(),
        "fitness": np.array(list(evaluate.known.values())),
        **{f"history_{name}": np.array(values) for name, values in history.items()},
    }


def restore_rng(text: np.ndarray) -> np.random.Generator:
    saved = json.loads(str(text))
    # The generator of the user may be of another kind than that of default_rng.
    bits = getattr(np.random, saved["bit_generator"])()
    bits.state = saved
    return np.random.Generator(bits)


def restore_known(
    state: State, evaluate: Evaluator, history: dict[str, list[Any]]
) -> None:
    for genome, value in zip(state["genomes"], state["fitness"], strict=True):
        evaluate.known[key_of(genome)] = float(value)
    for name, values in history.items():
        values.extend(state[f"history_{name}"].tolist())
