"""A small network as a pruning problem."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from sklcomp.compression import SearchRecipe
from sklcomp.compression.search._problem import (
    FRONT_SHARES,
    PruningProblem,
    absolute_budget,
)
from sklcomp.compression.search._results import (
    fittest_within,
    front_of,
    kept_channels,
    pareto_front,
)
from sklcomp.nn import (
    CycleGANGenerator,
    count_macs,
    count_parameters,
    elimination_order,
    mask_channels,
    prune_channels,
    trace_channels,
)

X = torch.from_numpy(np.random.default_rng(0).standard_normal((60, 5))).float()


def mlp():
    torch.manual_seed(1)
    return nn.Sequential(
        nn.Linear(5, 9),
        nn.BatchNorm1d(9),
        nn.ReLU(),
        nn.Linear(9, 6),
        nn.ReLU(),
        nn.Linear(6, 3),
    ).eval()


def make_problem(module=None, **settings):
    settings = {
        "max_params": None,
        "max_macs": None,
        "importance": "group",
        "compensate": False,
        "ignored_layers": (),
        "min_channels": 1,
        "rng": np.random.default_rng(0),
    } | settings
    return PruningProblem(module or mlp(), X, **settings)


def same_weights(first, second):
    pairs = zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    return all(torch.equal(one, two) for one, two in pairs)


def is_nested(genome, problem):
    return all(
        (np.diff(genome[genes].astype(int)) >= 0).all() for genes in problem.order
    )


@pytest.mark.parametrize("kind", [np.float32, np.float64, float])
def test_shares_of_any_float(kind):
    assert absolute_budget(kind(0.5), 100) == 50
    assert absolute_budget(kind(1), 100) == 100
    assert absolute_budget(np.int32(1), 100) == 1
    with pytest.raises(ValueError, match=r"a budget of 1.5; give a share"):
        absolute_budget(kind(1.5), 100)


@pytest.mark.parametrize("limit", [None, 7, np.int64(7), 0.0, 0.31])
def test_a_budget_is_a_share_a_number_or_none(limit):
    found = absolute_budget(limit, 50)
    if limit is None:
        assert found == np.inf
    elif limit == 7:
        assert found == 7
    else:
        assert found == limit * 50


def test_cost_of_a_genome_is_that_of_its_network(rng):
    problem = make_problem()
    for _ in range(5):
        genome = problem.repair(rng.random((1, 15)) < 0.5, rng)[0]
        small = problem.decode(genome)
        assert problem.cost(genome) == (
            count_parameters(small),
            count_macs(small, (5,)),
        )
    whole = np.ones(15, bool)
    assert problem.cost(whole) == problem.full_cost
    assert same_weights(problem.decode(whole), problem.module)


@pytest.mark.parametrize("compensate", [False, True])
def test_decoded_is_cut_and_repaired_if_asked(compensate, rng):
    problem = make_problem(compensate=compensate)
    genome = problem.repair(rng.random((1, 15)) < 0.5, rng)[0]
    want = prune_channels(
        problem.module,
        problem.graph,
        genome,
        problem.covariances if compensate else None,
    )
    for found in (problem.decode(genome), problem.decode(genome)):
        for name, value in want.state_dict().items():
            torch.testing.assert_close(found.state_dict()[name], value)
    if not compensate:
        masked = mask_channels(problem.module, problem.graph, genome)
        torch.testing.assert_close(problem.decode(genome)(X), masked(X))


def test_module_and_examples_are_left_alone(rng):
    module, examples = mlp().train(), X.clone()
    before = copy.deepcopy(module)
    problem = make_problem(module, compensate=True, importance="obs", max_params=0.5)
    problem.finish(problem.widest_uniform())
    assert same_weights(module, before)
    assert module.training
    assert torch.equal(X, examples)


def test_finished_networks_have_the_statistics_of_what_they_read(rng):
    problem = make_problem(compensate=True)
    genome = problem.uniform(0.5)
    module = problem.finish(genome)
    read = module[0](problem.statistics).detach()
    torch.testing.assert_close(
        module[1].running_mean, read.mean(0), rtol=1e-4, atol=1e-5
    )
    torch.testing.assert_close(module[1].running_var, read.var(0), rtol=1e-4, atol=1e-5)
    # Without a repair, of what was cut out nothing is estimated anew.
    plain = make_problem()
    assert same_weights(plain.finish(genome), plain.decode(genome))


@pytest.mark.parametrize("budget", [
    {"max_params": 0.4}, {"max_macs": 0.35}, {"max_params": 70}, {"max_params": 0.5,
                                                                  "max_macs": 60},
])  # fmt: skip
def test_repaired_genomes_keep_every_budget_and_the_least_channels(budget, rng):
    problem = make_problem(min_channels=2, **budget)
    assert problem.has_budget
    population = rng.random((12, 15)) < rng.random((12, 1))
    repaired = problem.repair(population, rng)
    full = dict(zip(("max_params", "max_macs"), problem.full_cost, strict=True))
    for genome in repaired:
        costs = dict(zip(full, problem.cost(genome), strict=True))
        for name, limit in budget.items():
            assert costs[name] <= (limit * full[name] if limit < 1 else limit)
        assert problem.fits(genome)
        assert all(genome[genes].sum() >= 2 for genes in problem.order)
        # One more channel would break it.
        for gene in np.flatnonzero(~genome):
            more = genome.copy()
            more[gene] = True
            is_next = [
                genes[~genome[genes]][-1] == gene
                for genes in problem.order
                if not genome[genes].all()
            ]
            assert not any(is_next) or not problem.fits(more)


def test_without_a_budget_repair_only_revives(rng):
    problem = make_problem(min_channels=3)
    assert not problem.has_budget
    population = rng.random((9, 15)) < 0.3
    repaired = problem.repair(population, rng)
    assert (repaired >= population).all()
    for old, new in zip(population, repaired, strict=True):
        for genes in problem.order:
            assert new[genes].sum() == max(3, old[genes].sum())


def test_uniform_is_the_best_of_every_segment():
    problem = make_problem()
    for share in (0.2, 0.5, 1.0):
        genome = problem.uniform(share)
        assert is_nested(genome, problem)
        for genes in problem.order:
            assert genome[genes].sum() == max(1, round(share * len(genes)))


@pytest.mark.parametrize("limit", [0.3, 0.5, 0.77, 1.0])
def test_widest_uniform_is_the_largest_share_that_fits(limit):
    problem = make_problem(max_params=limit)
    widest = problem.widest_uniform()
    assert problem.fits(widest)
    for share in np.linspace(0.01, 1, 200):
        other = problem.uniform(share)
        if problem.fits(other):
            assert problem.cost(other) <= problem.cost(widest)


def test_uniform_front_spans_all_sizes_and_keeps_the_least():
    problem = make_problem(min_channels=2)
    front = problem.uniform_front()
    assert len(front) == len(FRONT_SHARES)
    assert front[-1].all()
    costs = [problem.cost(genome)[0] for genome in front]
    assert (np.diff(costs) >= 0).all()
    assert all(genome[genes].sum() >= 2 for genome in front for genes in problem.order)


@pytest.mark.parametrize("is_nested_form", [True, False])
def test_first_population_begins_with_the_widest_uniform(is_nested_form):
    problem = make_problem(max_params=0.5)
    genes = "nested" if is_nested_form else "free"
    recipe = SearchRecipe(genes=genes, population_size=20)
    first, again = (problem.start(recipe, np.random.default_rng(3)) for _ in range(2))
    np.testing.assert_array_equal(first, again)
    np.testing.assert_array_equal(first[0], problem.widest_uniform())
    assert len({genome.tobytes() for genome in first}) > 10
    nested = [is_nested(genome, problem) for genome in first]
    assert all(nested) if is_nested_form else all(nested[:10])
    assert all(nested) == is_nested_form


def test_paper_begins_with_fair_coins():
    problem = make_problem()
    recipe = SearchRecipe.named("paper").replace(population_size=2000)
    population = problem.start(recipe, np.random.default_rng(0))
    # Six deviations of a mean of 2000 bits.
    assert np.abs(population.mean(axis=0) - 0.5).max() < 6 * 0.5 / 2000**0.5


@pytest.mark.parametrize("name", ["default", "paper"])
def test_operators_of_a_recipe_give_what_can_be_decoded(name, rng):
    problem = make_problem(max_params=0.6)
    is_free = name == "paper"
    recipe = SearchRecipe.named(name).replace(population_size=8)
    operators = problem.operators(recipe)
    population = problem.repair(problem.start(recipe, rng), rng)
    for _ in range(10):
        children = operators["crossover"](population[:2], rng)
        mutants = operators["mutation"](population[2:], rng)
        population = operators["repair"](np.concatenate([children, mutants]), rng)
        assert all(map(problem.fits, population))
        if not is_free:
            assert all(is_nested(genome, problem) for genome in population)
    assert problem.decode(population[0])(X).shape == (60, 3)


def test_free_genes_may_be_any(rng):
    problem = make_problem()
    mutation = problem.operators(SearchRecipe(genes="free"))["mutation"]
    population = problem.start(SearchRecipe(population_size=6), rng)
    seen = [is_nested(g, problem) for _ in range(40) for g in mutation(population, rng)]
    assert not all(seen)
    assert any(seen)


@pytest.mark.parametrize("importance", ["obs", "l1", "group", "random"])
def test_order_is_that_of_the_importance(importance):
    problem = make_problem(importance=importance)
    for genes, order in zip(problem.graph.segments, problem.order, strict=True):
        assert sorted(order) == sorted(genes)
    again = make_problem(importance=importance)
    for one, two in zip(problem.order, again.order, strict=True):
        np.testing.assert_array_equal(one, two)
    if importance in ("l1", "group"):
        assert problem.covariances is None
        want = elimination_order(problem.module, problem.graph, norm=importance)
        for one, two in zip(problem.order, want, strict=True):
            np.testing.assert_array_equal(one, two)
    if importance == "obs":
        assert problem.covariances is not None
        assert problem.compensation is None


def test_statistics_are_of_some_of_the_examples():
    problem = make_problem(n_examples=20)
    rows = {tuple(row) for row in X.tolist()}
    found = {tuple(row) for row in problem.statistics.tolist()}
    assert len(found) == 20
    assert found < rows
    assert len(make_problem(n_examples=500).statistics) == len(X)


def test_ignored_layers_keep_all_channels(rng):
    problem = make_problem(ignored_layers=["0"], max_params=0.7)
    assert problem.graph.frozen["0"] == "is in ignored_layers"
    small = problem.decode(problem.widest_uniform())
    assert small[0].out_features == 9
    assert small[3].out_features < 6
    with pytest.raises(ValueError, match="no layer 'none' makes channels"):
        make_problem(ignored_layers=["none"])


def test_inner_widths_are_those_of_the_trunk_where_they_have_none_of_their_own():
    images = torch.rand(4, 3, 8, 8)
    sizes = {}
    for inner_width in (True, False):
        problem = PruningProblem(
            CycleGANGenerator(3, 2),
            images,
            max_params=None,
            max_macs=None,
            importance="l1",
            compensate=False,
            ignored_layers=(),
            min_channels=1,
            rng=np.random.default_rng(0),
            inner_width=inner_width,
        )
        sizes[inner_width] = problem.graph.n_genes
    # Two blocks, each with an inner width of its own.
    assert sizes[True] == sizes[False] + 2 * 12


@pytest.mark.parametrize(("settings", "message"), [
    ({"max_params": 3}, r"max_params=3 cannot be reached: with 1 channels in every"),
    ({"max_macs": 0.01, "min_channels": 2}, "max_macs=0.01 cannot .* with 2 channels"),
    ({"max_params": 1.5}, "a budget of 1.5; give a share up to 1.0, or an integer"),
    ({"ignored_layers": ["0", "3"]}, "no channel of Sequential can be removed"),
])  # fmt: skip
def test_problems_without_a_solution_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        make_problem(**settings)


def dominates(one, two):
    return all(a <= b for a, b in zip(one, two, strict=True)) and one != two


@pytest.mark.parametrize("n", [1, 2, 15])
def test_front_is_what_nothing_dominates(n, rng):
    costs = rng.integers(0, 5, (n, 2))
    fitness = rng.integers(0, 4, n).astype(float)
    values = [(-f, *c) for f, c in zip(fitness.tolist(), costs.tolist(), strict=True)]
    want = {
        k
        for k, own in enumerate(values)
        if not any(dominates(other, own) for other in values)
    }
    front = pareto_front(costs, fitness)
    assert set(front.tolist()) == want
    assert (np.diff(costs[front, 0]) >= 0).all()
    # Whatever the order, and in any units.
    places = rng.permutation(n)
    again = pareto_front(7 * costs[places], fitness[places] - 100)
    assert {tuple(row) for row in costs[front]} == {
        tuple(row) for row in costs[places][again]
    }


def test_networks_without_a_fitness_are_on_the_front_only_alone():
    costs = np.array([[1, 1], [2, 2], [3, 3]])
    assert pareto_front(costs, np.array([np.nan, 1.0, -np.inf])).tolist() == [1]
    assert pareto_front(costs, np.array([np.nan, -np.inf, np.nan])).tolist() == [0]


def test_front_comes_with_its_costs(rng):
    problem = make_problem()
    genomes = problem.repair(rng.random((9, 15)) < 0.6, rng)
    fitness = rng.random(9)
    front = front_of(problem, genomes, fitness)
    for genome, n_parameters, n_macs in zip(
        front["genomes"], front["n_parameters"], front["n_macs"], strict=True
    ):
        assert problem.cost(genome) == (n_parameters, n_macs)
    assert fitness.max() in front["fitness"]


def test_kept_channels_are_those_of_the_smaller_network(rng):
    problem = make_problem()
    genome = problem.repair(rng.random((1, 15)) < 0.5, rng)[0]
    kept, small = kept_channels(problem.graph, genome), problem.decode(genome)
    for layer in ("0", "3", "5"):
        old, new = (m.get_submodule(layer).bias for m in (problem.module, small))
        assert torch.equal(old[torch.from_numpy(kept[layer])], new)


FRONT = {
    "genomes": np.eye(4, dtype=bool), "fitness": np.array([0.1, 0.5, 0.7, 0.6]),
    "n_parameters": np.array([10, 20, 40, 50]), "n_macs": np.array([9, 30, 25, 60]),
}  # fmt: skip


@pytest.mark.parametrize(("max_params", "max_macs", "best"), [
    (None, None, 2), (0.5, None, 2), (39, None, 1), (0.1, None, 0), (None, 26, 2),
    (None, 24, 0), (40, 0.3, 2), (30, 0.3, 1), (30, 29, 0),
])  # fmt: skip
def test_fittest_within_budgets(max_params, max_macs, best):
    found = fittest_within(FRONT, (100, 100), max_params, max_macs)
    assert found.tolist() == FRONT["genomes"][best].tolist()


@pytest.mark.parametrize(("max_params", "max_macs", "message"), [
    (9, None, "max_params=9 is less than the search has seen: the least is 10"),
    (None, 0.05, "max_macs=0.05 is less than the search has seen: the least is 9"),
    (45, 8, "max_macs=8 is less .* seen within max_params=45: the least is 9"),
])  # fmt: skip
def test_budgets_below_the_front_are_named(max_params, max_macs, message):
    with pytest.raises(ValueError, match=message):
        fittest_within(FRONT, (100, 100), max_params, max_macs)


def test_traced_graph_of_the_problem_is_that_of_the_network():
    problem = make_problem()
    graph = trace_channels(mlp(), X[:2])
    assert repr(problem.graph) == repr(graph)
