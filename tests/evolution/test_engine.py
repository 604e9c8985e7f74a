import os
from functools import partial

import numpy as np
import pytest
from joblib import parallel_config
from joblib.externals.loky.process_executor import TerminatedWorkerError

from sklcomp.evolution import evolve
from sklcomp.evolution._operators import (
    SELECTIONS,
    fit_budget,
    flip_bits,
    flip_segment,
)


def start(rng, n=20, n_genes=24):
    return rng.random((n, n_genes)) < 0.5


@pytest.mark.parametrize("selection", SELECTIONS)
def test_one_max_is_solved(selection, rng):
    result = evolve(
        np.sum,
        start(rng),
        n_generations=150,
        selection=selection,
        mutation=flip_bits,
        mutation_rate=0.3,
        rng=rng,
    )
    assert result.best.all()
    assert result.best_fitness == 24


def test_knapsack_is_solved_by_repair(rng):
    # Against the optimum by dynamic programming.
    worth, weight = rng.integers(1, 30, 16), rng.integers(1, 20, 16)
    capacity = weight.sum() // 2
    best = np.zeros(capacity + 1, int)
    for value, size in zip(worth, weight, strict=True):
        best[size:] = np.maximum(best[size:], best[:-size] + value)
    order = [np.argsort(worth / weight)]

    def fits(genome):
        return weight[genome].sum() <= capacity

    result = evolve(
        lambda genome: worth[genome].sum(),
        start(rng, 30, 16),
        n_generations=60,
        selection="tournament",
        mutation=flip_bits,
        child_mutation_rate=0.5,
        repair=partial(fit_budget, order=order, fits=fits, min_genes=0),
        rng=rng,
    )
    assert result.best_fitness == best[-1]
    assert all(fits(genome) for genome in result.genomes)


@pytest.mark.parametrize(
    ("name", "function"), [("segment", flip_segment), ("bitflip", flip_bits)]
)
def test_a_mutation_can_be_named(name, function):
    found = [
        evolve(
            np.sum,
            start(np.random.default_rng(1)),
            mutation=mutation,
            rng=np.random.default_rng(2),
        ).genomes
        for mutation in (name, function)
    ]
    np.testing.assert_array_equal(*found)


def test_every_genome_is_evaluated_once(rng):
    asked = []

    def fitness(genome):
        asked.append(genome.tobytes())
        return genome.sum()

    result = evolve(fitness, start(rng), n_generations=20, rng=rng)
    assert len(asked) == len(set(asked)) == len(result.genomes)
    assert result.history["n_evaluations"][-1] == len(asked) < 20 * 21
    np.testing.assert_array_equal(result.genomes.sum(axis=1), result.fitness)


@pytest.mark.parametrize("elitism", [1, 2, 5])
def test_the_best_never_gets_worse(elitism, rng):
    table = rng.random(2**10)

    def fitness(genome):
        return table[int(genome @ 2 ** np.arange(10))]

    result = evolve(fitness, start(rng, 11, 10), elitism=elitism, rng=rng)
    assert (np.diff(result.history["best"]) >= 0).all()
    assert result.best_fitness == result.fitness.max() == fitness(result.best)


def test_no_generation_returns_the_best_of_the_start(rng):
    population = start(rng)
    result = evolve(np.sum, population, n_generations=0, rng=rng)
    assert result.best_fitness == population.sum(axis=1).max()
    assert len(result.history["best"]) == 1


def test_polish_keeps_what_is_better(rng):
    population = start(rng, 4)
    rough = evolve(np.sum, population, n_generations=0, rng=rng)
    fine = evolve(
        np.sum,
        population,
        n_generations=0,
        n_polish_steps=1000,
        mutation=flip_bits,
        rng=rng,
    )
    assert fine.best.all()
    assert fine.best_fitness > rough.best_fitness


@pytest.mark.parametrize("n_jobs", [1, 2])
def test_same_seed_same_result(n_jobs):
    results = [
        evolve(
            np.sum,
            start(np.random.default_rng(1)),
            n_jobs=jobs,
            n_polish_steps=5,
            rng=np.random.default_rng(2),
        )
        for jobs in (None, n_jobs)
    ]
    np.testing.assert_array_equal(results[0].genomes, results[1].genomes)


@pytest.mark.parametrize("when", [1, 4, 9])
def test_stopped_and_resumed_is_uninterrupted(when, tmp_path):
    settings = {"n_generations": 10, "n_polish_steps": 3}
    begin = start(np.random.default_rng(1))
    whole = evolve(np.sum, begin, rng=np.random.default_rng(2), **settings)

    def save(state):
        if state["generation"] == when:
            np.savez(tmp_path / "state.npz", **state)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        evolve(np.sum, begin, rng=np.random.default_rng(2), callback=save, **settings)
    # Plain arrays: no pickle is needed to read them.
    state = dict(np.load(tmp_path / "state.npz", allow_pickle=False))
    rest = evolve(np.sum, begin, rng=np.random.default_rng(9), state=state, **settings)
    np.testing.assert_array_equal(whole.genomes, rest.genomes)
    for name, values in whole.history.items():
        np.testing.assert_array_equal(values, rest.history[name])


def test_callback_stops(rng):
    seen = []

    def stop(state):
        seen.append(int(state["generation"]))
        return seen[-1] == 3

    result = evolve(np.sum, start(rng), rng=rng, callback=stop)
    assert seen == [1, 2, 3]
    assert len(result.history["best"]) == 4


@pytest.mark.parametrize("worst", [np.nan, -np.inf])
@pytest.mark.parametrize("selection", ["roulette", "rank", "tournament"])
def test_hopeless_individuals_are_survived(rng, worst, selection):
    result = evolve(
        lambda genome: worst if genome[0] else genome.sum(),
        start(rng),
        rng=rng,
        selection=selection,
        n_polish_steps=3,
    )
    assert not result.best[0]
    assert np.isfinite(result.best_fitness)
    assert np.isfinite(result.history["mean"]).all()


def test_error_tells_the_generation(rng):
    calls = []

    def fitness(genome):
        calls.append(1)
        if len(calls) > 30:
            raise ZeroDivisionError
        return genome.sum()

    with pytest.raises(ZeroDivisionError) as caught:
        evolve(fitness, start(rng), rng=rng)
    assert "while generation 1 was evaluated" in caught.value.__notes__


def leave(genome):
    os._exit(1)


@pytest.mark.filterwarnings("ignore::UserWarning:joblib")
def test_worker_that_dies_is_told_with_its_generation(rng):
    with (
        parallel_config(backend="loky"),
        pytest.raises(TerminatedWorkerError) as caught,
    ):
        evolve(leave, start(rng), n_jobs=2, rng=rng)
    assert "while generation 0 was evaluated" in caught.value.__notes__


@pytest.mark.parametrize(
    ("n", "settings", "message"),
    [
        (1, {}, "at least 2 individuals"),
        (4, {"elitism": 4}, "elitism=4 of 4 individuals.*at most 3"),
        (4, {"crossover_rate": 0.8, "mutation_rate": 0.3}, "sum to more than 1"),
        (4, {"selection": "best"}, "selection='best'; choose one of roulette, rank"),
        (4, {"mutation": "flip"}, "mutation='flip'; choose one of segment, bitflip"),
    ],
)
def test_bad_settings(n, settings, message, rng):
    with pytest.raises(ValueError, match=message):
        evolve(np.sum, start(rng, n), rng=rng, **settings)


def test_mutation_is_never_asked_for_nothing(rng):
    sizes = []

    def mutate(population, rng):
        sizes.append(len(population))
        return np.stack([~genome for genome in population])

    start = rng.random((6, 9)) < 0.5
    evolve(np.sum, start, mutation=mutate, child_mutation_rate=0.3, rng=rng)
    assert min(sizes) == 1
