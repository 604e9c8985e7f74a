from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sklcomp.evolution._operators import (
    MUTATIONS,
    SELECTIONS,
    exchange_layers,
    fit_budget,
    flip_bits,
    flip_segment,
    move_widths,
    nan_is_worst,
    revive,
    select_rank,
    select_roulette,
    select_tournament,
    swap_genes,
    swap_segment,
)


def start(rng, n=20, n_genes=24):
    return rng.random((n, n_genes)) < 0.5


ORDER = [np.array([2, 0, 1]), np.array([3, 4, 5, 6]), np.array([7])]


def test_bitflip_changes_two_genes_on_average(rng):
    # 2 / n_genes each: a binomial of mean 2, whatever the length.
    for n_genes in (8, 100):
        population = start(rng, 4000, n_genes)
        changes = (MUTATIONS["bitflip"](population, rng) != population).sum(axis=1)
        assert changes.mean() == pytest.approx(2, abs=0.1)
        assert changes.var() == pytest.approx(2 * (1 - 2 / n_genes), rel=0.15)


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
        flip_segment,
        flip_bits,
        partial(move_widths, order=ORDER),
        partial(swap_genes, order=ORDER),
    ):
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


N_GENES = sum(map(len, ORDER))
# All of one population and a generator.
OPERATORS = {
    "swap_segment": swap_segment,
    "exchange_layers": partial(exchange_layers, order=ORDER),
    "flip_segment": flip_segment,
    "flip_bits": flip_bits,
    "move_widths": partial(move_widths, order=ORDER),
    "swap_genes": partial(swap_genes, order=ORDER),
}
each_operator = pytest.mark.parametrize("name", OPERATORS)


@each_operator
def test_same_generator_same_result_and_parents_are_left_alone(name, rng):
    parents = start(rng, 2, N_GENES)
    parents[1] = ~parents[0]
    before = parents.copy()
    first, again, other = (
        [OPERATORS[name](parents, np.random.default_rng(seed + k)) for k in range(20)]
        for seed in (0, 0, 1000)
    )
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)
    np.testing.assert_array_equal(parents, before)
    assert all(child.dtype == bool for child in first)
    assert not any(np.shares_memory(child, parents) for child in first)


def within(count, n, p):
    """Whether a count of n draws is within six deviations of what is expected."""
    return abs(count - n * p) <= 6 * np.sqrt(n * p * (1 - p)) + 1e-9


def test_roulette_picks_in_proportion_to_fitness(rng):
    fitness = np.array([1.0, 2.0, 0.0, 5.0])
    counts = np.bincount(select_roulette(fitness, 8000, rng), minlength=4)
    for count, share in zip(counts, fitness / fitness.sum(), strict=True):
        assert within(count, 8000, share)
    # Of negative fitness the worst gets nothing, the others what is above it.
    counts = np.bincount(select_roulette(fitness - 5, 8000, rng), minlength=4)
    for count, share in zip(counts, fitness / fitness.sum(), strict=True):
        assert within(count, 8000, share)


def test_rank_knows_the_order_only(rng):
    shares = np.array([4, 16, 1, 9]) / 30
    for fitness in ([2.0, 9.0, 1.0, 3.0], [-1.0, 1e9, -np.inf, 0.0], [2, 4, np.nan, 3]):
        counts = np.bincount(select_rank(np.array(fitness), 9000, rng), minlength=4)
        for count, share in zip(counts, shares, strict=True):
            assert within(count, 9000, share)


@pytest.mark.parametrize("size", [1, 2, 5])
def test_best_wins_a_tournament_unless_it_is_not_drawn(size, rng):
    fitness = np.array([1.0, 4.0, np.nan, 2.0])
    counts = np.bincount(select_tournament(fitness, 9000, rng, size), minlength=4)
    better = np.array([2, 0, 3, 1])
    for count, n in zip(counts, better, strict=True):
        share = ((4 - n) / 4) ** size - ((3 - n) / 4) ** size
        assert within(count, 9000, share)


@pytest.mark.parametrize("name", SELECTIONS)
def test_selection_follows_a_permutation_and_changes_nothing(name, rng):
    fitness = rng.random(6)
    before, places = fitness.copy(), rng.permutation(6)
    counts = [
        np.bincount(SELECTIONS[name](one, 9000, rng), minlength=6)
        for one in (fitness, fitness[places])
    ]
    share = counts[0][places] / 9000
    assert np.abs(counts[1] / 9000 - share).max() < 6 * np.sqrt(0.5 / 9000)
    np.testing.assert_array_equal(fitness, before)


def test_nan_is_less_than_anything_and_nothing_else_changes():
    found = nan_is_worst([1.0, np.nan, np.inf, -np.inf])
    np.testing.assert_array_equal(found, [1, -np.inf, np.inf, -np.inf])


def test_layers_come_whole_from_either_parent(rng):
    parents = np.array([[True] * 8, [False] * 8])
    for _ in range(30):
        children = exchange_layers(parents, rng, ORDER)
        for genes in ORDER:
            assert len({tuple(row) for row in children[:, genes].T.tolist()}) == 1
        np.testing.assert_array_equal(children[0], ~children[1])


def test_segments_are_contiguous(rng):
    parents = np.array([[True] * 8, [False] * 8])
    for operator in (swap_segment, flip_segment):
        for _ in range(50):
            for child, parent in zip(operator(parents, rng), parents, strict=True):
                changes = np.flatnonzero(child != parent)
                assert not len(changes) or len(changes) == np.ptp(changes) + 1


@pytest.mark.parametrize(("rate", "share"), [(0.0, 0), (1.0, 1), (0.25, 0.25)])
def test_share_of_bits_that_are_flipped(rate, share, rng):
    population = start(rng, 400, 30)
    changed = flip_bits(population, rng, rate) != population
    assert within(changed.sum(), changed.size, share)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.integers(0, 2**32 - 1))
def test_swapping_genes_keeps_their_number_in_every_segment(seed):
    rng = np.random.default_rng(seed)
    population = start(rng, 5, N_GENES)
    mutants = swap_genes(population, rng, ORDER)
    for old, new in zip(population, mutants, strict=True):
        moved = 0
        for genes in ORDER:
            lost = int(old[genes].sum()) - int(new[genes].sum())
            # All or none of a segment have nothing to swap with.
            has_both = 0 < old[genes].sum() < len(genes)
            assert lost == 0 or not has_both or abs(lost) <= 1
            moved += int((old[genes] != new[genes]).any())
        assert moved <= 1


def test_swapping_needs_one_that_lives_and_then_one_that_does_not(rng):
    # What was given up may come back at once; nothing else of the segment is lost.
    for genome in (np.ones((1, 8), bool), np.zeros((1, 8), bool)):
        for _ in range(30):
            mutant = swap_genes(genome, rng, ORDER)
            assert (mutant != genome).sum() <= 1


@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.integers(0, 2**32 - 1))
def test_one_segment_becomes_wider_by_its_best_or_narrower_by_its_worst(seed):
    rng = np.random.default_rng(seed)
    (old,) = start(rng, 1, N_GENES)
    (new,) = move_widths(old[None], rng, ORDER, share=0.5)
    touched = [genes for genes in ORDER if (old[genes] != new[genes]).any()]
    assert len(touched) <= 1
    for genes in touched:
        lost, won = old[genes] & ~new[genes], ~old[genes] & new[genes]
        assert not (lost.any() and won.any())
        # Of those that could go, the first of the order; of those to come, the last.
        if lost.any():
            assert lost[old[genes]][: lost.sum()].all()
        else:
            assert won[~old[genes]][-won.sum() :].all()


@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.integers(0, 2**32 - 1), st.integers(0, 5))
def test_reviving_brings_back_the_best_that_are_missing(seed, min_genes):
    population = start(np.random.default_rng(seed), 6, N_GENES)
    revived = revive(population, ORDER, min_genes)
    for old, new in zip(population, revived, strict=True):
        assert (new >= old).all()
        for genes in ORDER:
            wanted = max(int(old[genes].sum()), min(min_genes, len(genes)))
            assert new[genes].sum() == wanted
            won = (new & ~old)[genes]
            assert won[~old[genes]][len(won) - old[genes].sum() - won.sum() :].all()
    np.testing.assert_array_equal(revive(revived, ORDER, min_genes), revived)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.integers(0, 2**32 - 1), st.integers(0, 3), st.integers(3, 8))
def test_budgets_are_kept_and_filled_with_a_least_number_in_every_segment(
    seed, min_genes, limit
):
    rng = np.random.default_rng(seed)
    population = start(rng, 6, N_GENES)
    before = population.copy()
    least = sum(min(min_genes, len(genes)) for genes in ORDER)
    repaired = fit_budget(
        population, rng, ORDER, lambda genome: genome.sum() <= limit, min_genes
    )
    for genome in repaired:
        for genes in ORDER:
            assert genome[genes].sum() >= min(min_genes, len(genes))
        # As many as the budget allows, or as the segments must keep.
        assert genome.sum() == max(limit, least)
    np.testing.assert_array_equal(population, before)


def test_repair_of_what_fits_only_adds(rng):
    population = start(rng, 20, N_GENES)
    repaired = fit_budget(population, rng, ORDER, lambda genome: True)
    assert repaired.all()
    limit = 4
    narrow = population & (np.arange(N_GENES) < 3)
    repaired = fit_budget(narrow, rng, ORDER, lambda genome: genome.sum() <= limit, 0)
    assert (repaired >= narrow).all()
    assert (repaired.sum(axis=1) == limit).all()


def test_a_budget_that_cannot_be_kept_leaves_the_least(rng):
    repaired = fit_budget(start(rng, 9, N_GENES), rng, ORDER, lambda genome: False, 1)
    assert all(genome[genes].sum() == 1 for genome in repaired for genes in ORDER)
    # The most important of each.
    assert repaired[:, [genes[-1] for genes in ORDER]].mean() > 0.3
