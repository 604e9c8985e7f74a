import os
from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from joblib import parallel_config
from joblib.externals.loky.process_executor import TerminatedWorkerError

from sklcomp.evolution import evolve
from sklcomp.evolution._operators import (
    MUTATIONS,
    SELECTIONS,
    exchange_layers,
    fit_budget,
    flip_bits,
    flip_segment,
    move_widths,
    swap_genes,
    swap_segment,
)

ORDER = [np.array([2, 0, 1]), np.array([3, 4, 5, 6]), np.array([7])]


def start(rng, n=20, n_genes=24):
    return rng.random((n, n_genes)) < 0.5


@pytest.mark.parametrize("selection", SELECTIONS)
def test_one_max_is_solved(selection, rng):
    result = evolve(
        np.sum, start(rng), n_generations=150, selection=selection,
        mutation=flip_bits, mutation_rate=0.3, rng=rng,
    )  # fmt: skip
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
        lambda genome: worth[genome].sum(), start(rng, 30, 16), n_generations=60,
        selection="tournament", mutation=flip_bits, child_mutation_rate=0.5,
        repair=partial(fit_budget, order=order, fits=fits, min_genes=0), rng=rng,
    )  # fmt: skip
    assert result.best_fitness == best[-1]
    assert all(fits(genome) for genome in result.genomes)


@pytest.mark.parametrize(
    ("name", "function"), [("segment", flip_segment), ("bitflip", flip_bits)]
)
def test_a_mutation_can_be_named(name, function):
    found = [
        evolve(np.sum, start(np.random.default_rng(1)), mutation=mutation,
               rng=np.random.default_rng(2)).genomes
        for mutation in (name, function)
    ]  # fmt: skip
    np.testing.assert_array_equal(*found)


def test_bitflip_changes_two_genes_on_average(rng):
    # 2 / n_genes each: a binomial of mean 2, whatever the length.
    for n_genes in (8, 100):
        population = start(rng, 4000, n_genes)
        changes = (MUTATIONS["bitflip"](population, rng) != population).sum(axis=1)
        assert changes.mean() == pytest.approx(2, abs=0.1)
        assert changes.var() == pytest.approx(2 * (1 - 2 / n_genes), rel=0.15)


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
        np.sum, population, n_generations=0, n_polish_steps=1000, mutation=flip_bits,
        rng=rng,
    )  # fmt: skip
    assert fine.best.all()
    assert fine.best_fitness > rough.best_fitness


@pytest.mark.parametrize("n_jobs", [1, 2])
def test_same_seed_same_result(n_jobs):
    results = [
        evolve(np.sum, start(np.random.default_rng(1)), n_jobs=jobs, n_polish_steps=5,
               rng=np.random.default_rng(2))
        for jobs in (None, n_jobs)
    ]  # fmt: skip
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


@pytest.mark.parametrize("selection", SELECTIONS)
@pytest.mark.parametrize("values", ["equal", "nan", "negative", "zero", "infinite"])
def test_any_fitness_can_be_selected_from(selection, values, rng):
    worth = {
        "equal": np.full(6, 3.0),
        "nan": np.array([np.nan, 1, np.nan, 2, 0, np.nan]),
        "negative": -np.arange(6.0),
        "zero": np.zeros(6),
        "infinite": np.array([-np.inf, 1, 2, -np.inf, 3, 4]),
    }[values]
    picks = SELECTIONS[selection](worth, 4000, rng)
    assert picks.shape == (4000,)
    assert set(picks) <= set(range(6))
    counts = np.bincount(picks, minlength=6)
    if values in ("equal", "zero") and selection != "rank":
        assert counts.min() > 500
    if values in ("nan", "infinite"):
        worst = ~np.isfinite(worth)
        assert counts[worst].max() < counts[~worst].max()


@pytest.mark.parametrize("worst", [np.nan, -np.inf])
@pytest.mark.parametrize("selection", ["roulette", "rank", "tournament"])
def test_hopeless_individuals_are_survived(rng, worst, selection):
    result = evolve(
        lambda genome: worst if genome[0] else genome.sum(), start(rng), rng=rng,
        selection=selection, n_polish_steps=3,
    )  # fmt: skip
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


populations = st.integers(0, 2**32 - 1).map(
    lambda seed: np.random.default_rng(seed).random((2, 8)) < 0.5
)


@settings(max_examples=30, deadline=None, derandomize=True)
@given(populations, st.integers(0, 1000))
def test_operators_keep_what_they_must(parents, seed):
    rng = np.random.default_rng(seed)
    before = parents.copy()
    for cross in (swap_segment, partial(exchange_layers, order=ORDER)):
        children = cross(parents, rng)
        # Genes come from one parent each, and none is lost.
        np.testing.assert_array_equal(children.sum(axis=0), parents.sum(axis=0))
    for mutate in (
        flip_segment, flip_bits, partial(move_widths, order=ORDER),
        partial(swap_genes, order=ORDER),
    ):  # fmt: skip
        assert mutate(parents, rng).shape == parents.shape
    np.testing.assert_array_equal(parents, before)


def test_every_gene_can_change_and_so_can_the_last(rng):
    parents = np.array([[True] * 8, [False] * 8])
    flipped = [flip_segment(parents, rng) != parents for _ in range(200)]
    swapped = [swap_segment(parents, rng) != parents for _ in range(200)]
    for changes in (np.array(flipped), np.array(swapped)):
        assert changes.any(axis=(0, 1)).all()
        assert not changes.all()


def is_nested(genome):
    return all((np.diff(genome[genes].astype(int)) >= 0).all() for genes in ORDER)


def test_nested_genomes_stay_nested(rng):
    population = np.array([[0, 1, 0, 0, 1, 1, 1, 1], [1, 1, 1, 0, 0, 0, 1, 1]], bool)
    assert all(map(is_nested, population))

    def fits(genome):
        return genome.sum() <= 5

    for _ in range(50):
        population = exchange_layers(population, rng, ORDER)
        population = move_widths(population, rng, ORDER)
        population = fit_budget(population, rng, ORDER, fits)
        assert all(map(is_nested, population))
        assert all(map(fits, population))
        assert all(genome[genes].any() for genome in population for genes in ORDER)


def test_budget_is_filled_up(rng):
    # Whatever could be added to a repaired genome would break the budget.
    weight = np.array([1, 2, 3, 4, 5, 6, 7, 8])

    def fits(genome):
        return weight[genome].sum() <= 20

    for genome in fit_budget(rng.random((50, 8)) < 0.5, rng, ORDER, fits):
        assert fits(genome)
        for genes in ORDER:
            dead = genes[~genome[genes]]
            if len(dead):
                more = genome.copy()
                more[dead[-1]] = True
                assert not fits(more)


def test_mutation_is_never_asked_for_nothing(rng):
    sizes = []

    def mutate(population, rng):
        sizes.append(len(population))
        return np.stack([~genome for genome in population])

    start = rng.random((6, 9)) < 0.5
    evolve(np.sum, start, mutation=mutate, child_mutation_rate=0.3, rng=rng)
    assert min(sizes) == 1
