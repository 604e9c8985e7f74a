import threading

import numpy as np
import pytest

from sklcomp.evolution import coevolve
from sklcomp.evolution._operators import flip_bits, flip_segment, swap_segment


def start(rng, sizes=((9, 4), (7, 3))):
    return [rng.random(size) < 0.5 for size in sizes]


def size(genome, partner):
    return genome.sum()


def likeness(genome, partner):
    return 0.0 if partner is None else np.mean(genome == partner)


def number(genome):
    return -1 if genome is None else int(genome @ 2 ** np.arange(len(genome)))


def make_game(seed=3):
    """Two tables of random fitness, in which all depends on the partner."""
    tables = np.random.default_rng(seed).random((2, 17, 17))
    return [
        lambda genome, partner, table=table: table[number(genome), number(partner)]
        for table in tables
    ]


def follow(fitness, starts, **settings):
    """The result, and the populations of every generation."""
    generations = [starts]

    def keep(state):
        generations.append([state["population_a"], state["population_b"]])

    return coevolve(fitness, starts, callback=keep, **settings), generations


def replay(fitness, generations):
    """By hand: for each generation, population and individual, whom it met and how."""
    met, bests = [], [None, None]
    for populations in generations:
        met.append([])
        for own, population in enumerate(populations):
            partner = bests[1 - own]
            met[-1].append(
                [(each, partner, fitness[own](each, partner)) for each in population]
            )
        bests = [max(side, key=lambda meeting: meeting[2])[0] for side in met[-1]]
    return met, bests


def assert_same(one, other):
    for name, values in one.history.items():
        np.testing.assert_array_equal(values, other.history[name])
    for side in (0, 1):
        np.testing.assert_array_equal(one.best[side], other.best[side])
        np.testing.assert_array_equal(one.best_fitness[side], other.best_fitness[side])
        np.testing.assert_array_equal(one.genomes[side], other.genomes[side])
        np.testing.assert_array_equal(one.fitness[side], other.fitness[side])


def exchanged(pair):
    return pair[1], pair[0]


def test_two_problems_of_their_own_are_both_solved(rng):
    result = coevolve(
        size,
        start(rng, [(20, 24), (15, 16)]),
        n_generations=150,
        selection="tournament",
        mutation=flip_bits,
        mutation_rate=0.3,
        rng=rng,
    )
    assert result.best[0].all()
    assert result.best[1].all()
    assert result.best_fitness == (24, 16)
    assert (np.diff(result.history["best_a"]) >= 0).all()


@pytest.mark.parametrize("selection", ["roulette", "tournament"])
def test_two_who_want_to_be_alike_agree(selection, rng):
    starts = start(rng, [(20, 12), (15, 12)])
    result = coevolve(
        likeness,
        starts,
        n_generations=60,
        selection=selection,
        mutation=flip_bits,
        mutation_rate=0.3,
        rng=rng,
    )
    np.testing.assert_array_equal(*result.best)
    assert result.best_fitness == (1, 1)


@pytest.mark.parametrize("elitism", [0, 1, 3])
def test_partner_is_the_best_of_the_generation_before(elitism, rng):
    # And every pair is evaluated once, though bests of long ago come back.
    fitness, calls = make_game(), []

    def record(own):
        def call(genome, partner):
            calls.append((own, number(genome), number(partner), len(genome)))
            return fitness[own](genome, partner)

        return call

    result, generations = follow(
        (record(0), record(1)), start(rng), n_generations=30, elitism=elitism, rng=rng
    )
    met, bests = replay(fitness, generations)
    pairs = [
        (own, number(genome), number(partner), len(genome))
        for sides in met
        for own, side in enumerate(sides)
        for genome, partner, _ in side
    ]
    assert sorted(calls) == sorted(set(pairs))
    assert result.history["n_evaluations"][-1] == len(calls) < len(pairs) / 2
    for own in (0, 1):
        np.testing.assert_array_equal(result.best[own], bests[own])


def test_none_is_the_partner_at_the_start_and_never_after(rng):
    starts, now, nobody = start(rng), [0], []

    def fitness(genome, partner):
        nobody.append((now[0], partner is None))
        return genome.sum()

    def callback(state):
        now[0] = int(state["generation"])

    coevolve(fitness, starts, n_generations=5, callback=callback, rng=rng)
    assert {generation for generation, _ in nobody} >= {0, 1}
    assert all(alone == (generation == 0) for generation, alone in nobody)


def test_fitness_is_that_with_the_partner_met_last(rng):
    fitness = make_game()
    result, generations = follow(fitness, start(rng), n_generations=30, rng=rng)
    met, _ = replay(fitness, generations)
    for own in (0, 1):
        latest = {
            number(genome): value for sides in met for genome, _, value in sides[own]
        }
        numbers = [number(genome) for genome in result.genomes[own]]
        assert dict(zip(numbers, result.fitness[own], strict=True)) == latest
        assert result.best_fitness[own] == latest[number(result.best[own])]


def test_history_is_of_each_population(rng):
    fitness = make_game()
    result, generations = follow(fitness, start(rng), n_generations=8, rng=rng)
    met, _ = replay(fitness, generations)
    for own, name in enumerate("ab"):
        values = [[value for *_, value in sides[own]] for sides in met]
        best, mean = result.history[f"best_{name}"], result.history[f"mean_{name}"]
        np.testing.assert_array_equal(best, np.max(values, axis=1))
        np.testing.assert_allclose(mean, np.mean(values, axis=1), rtol=1e-14)


@pytest.mark.parametrize("elitism", [1, 2])
def test_the_elite_goes_on_unchanged(elitism, rng):
    fitness = make_game()
    _, generations = follow(
        fitness, start(rng), n_generations=12, elitism=elitism, rng=rng
    )
    met, _ = replay(fitness, generations)
    for sides, after in zip(met[:-1], generations[1:], strict=True):
        for side, population in zip(sides, after, strict=True):
            elite = sorted(side, key=lambda meeting: -meeting[2])[:elitism]
            np.testing.assert_array_equal(
                population[:elitism], [genome for genome, *_ in elite]
            )


@pytest.mark.parametrize(
    ("names", "functions"),
    [("bitflip", flip_bits), (("segment", "bitflip"), (flip_segment, flip_bits))],
)
def test_mutations_can_be_named(names, functions):
    starts = start(np.random.default_rng(1))
    named, given = (
        coevolve(make_game(), starts, mutation=each, rng=np.random.default_rng(2))
        for each in (names, functions)
    )
    assert_same(named, given)


def test_exchanged_populations_give_the_exchanged_result(rng):
    # Operators that bring their own generators are the same wherever they serve.
    def flip(seed):
        own = np.random.default_rng(seed)
        return lambda population, rng: flip_bits(population, own, rate=0.3)

    def select_best(worth, n, rng):
        return np.argsort(-worth, kind="stable")[:n]

    settings = {
        "n_generations": 20,
        "selection": select_best,
        "crossover_rate": 0.0,
        "mutation_rate": 1.0,
        "rng": rng,
    }
    fitness, starts = make_game(), start(rng)
    there = coevolve(fitness, starts, mutation=(flip(1), flip(2)), **settings)
    back = coevolve(
        exchanged(fitness), exchanged(starts), mutation=(flip(2), flip(1)), **settings
    )
    assert len(there.genomes[0]) > len(starts[0])
    for name in ("best", "mean"):
        np.testing.assert_array_equal(
            there.history[f"{name}_a"], back.history[f"{name}_b"]
        )
    for name in ("best", "best_fitness", "genomes", "fitness"):
        for one, other in zip(
            getattr(there, name), exchanged(getattr(back, name)), strict=True
        ):
            np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("n_jobs", [1, 2])
def test_same_seed_same_result(n_jobs):
    results = [
        coevolve(
            make_game(),
            start(np.random.default_rng(1)),
            n_generations=10,
            n_jobs=jobs,
            rng=np.random.default_rng(2),
        )
        for jobs in (None, n_jobs)
    ]
    assert_same(*results)


def test_the_state_of_the_generator_is_all_that_counts(rng):
    # A generator that was restored has another seed sequence.
    restored = np.random.default_rng()
    starts = start(rng)
    restored.bit_generator.state = rng.bit_generator.state
    one, other = (coevolve(make_game(), starts, rng=each) for each in (rng, restored))
    assert_same(one, other)


def test_both_populations_are_evaluated_side_by_side():
    # Three of each: were they evaluated one population after the other, the third
    # would wait at the barrier alone.
    barrier = threading.Barrier(2, timeout=20)

    def fitness(genome, partner):
        barrier.wait()
        return genome.sum()

    starts = np.eye(3, dtype=bool)
    result = coevolve(
        fitness,
        (starts, starts),
        n_generations=0,
        n_jobs=2,
        rng=np.random.default_rng(0),
    )
    assert result.history["n_evaluations"].tolist() == [6]


@pytest.mark.parametrize("elitism", [0, 1])
def test_resumed_from_any_generation_is_uninterrupted(elitism, tmp_path):
    settings = {"n_generations": 8, "child_mutation_rate": 0.5, "elitism": elitism}
    starts = start(np.random.default_rng(1))

    def save(state):
        np.savez(tmp_path / f"{state['generation']}.npz", **state)

    whole = coevolve(
        make_game(), starts, rng=np.random.default_rng(2), callback=save, **settings
    )
    for generation in range(1, 9):
        # Plain arrays: no pickle is needed to read them.
        state = dict(np.load(tmp_path / f"{generation}.npz", allow_pickle=False))
        rest = coevolve(
            make_game(), starts, rng=np.random.default_rng(9), state=state, **settings
        )
        assert_same(whole, rest)


def test_callback_stops(rng):
    seen = []

    def stop(state):
        seen.append(int(state["generation"]))
        return seen[-1] == 3

    result = coevolve(size, start(rng), rng=rng, callback=stop)
    assert seen == [1, 2, 3]
    assert len(result.history["best_a"]) == len(result.history["best_b"]) == 4


def test_no_generation_returns_the_bests_of_the_start(rng):
    starts = start(rng)
    result = coevolve(size, starts, n_generations=0, rng=rng)
    assert result.best_fitness == tuple(each.sum(axis=1).max() for each in starts)
    assert result.history["n_evaluations"].tolist() == [
        sum(len(np.unique(each, axis=0)) for each in starts)
    ]


@pytest.mark.parametrize("worst", [np.nan, -np.inf])
def test_the_worst_never_wins(worst, rng):
    def fitness(genome, partner):
        return worst if genome[0] else genome.sum()

    starts = start(rng)
    for genomes in starts:
        genomes[0, 0] = False
    result = coevolve(fitness, starts, rng=rng)
    assert not result.best[0][0]
    assert not result.best[1][0]
    assert np.isfinite(result.history["mean_a"]).all()


def test_a_start_without_any_fitness_is_survived(rng):
    def fitness(genome, partner):
        return np.nan if partner is None else genome.sum()

    result = coevolve(fitness, start(rng), selection="tournament", rng=rng)
    assert result.history["best_a"][0] == result.history["mean_b"][0] == -np.inf
    assert result.best_fitness == (4, 3)


def test_fitness_that_is_never_there_is_told(rng):
    result = coevolve(lambda *_: np.nan, start(rng), n_generations=3, rng=rng)
    assert np.isnan(result.best_fitness).all()


@pytest.mark.parametrize("sizes", [((3, 5), (8, 1)), ((2, 9), (5, 9))])
def test_populations_keep_their_shapes(sizes, rng):
    _, generations = follow(
        likeness if sizes[0][1] == sizes[1][1] else size,
        start(rng, sizes),
        n_generations=5,
        rng=rng,
    )
    assert len(generations) == 6
    for populations in generations:
        assert tuple(each.shape for each in populations) == sizes


@pytest.mark.parametrize("name", ["crossover", "mutation", "repair"])
def test_each_population_has_its_own_operator(name, rng):
    settings = {
        "crossover": {"crossover_rate": 1.0, "mutation_rate": 0.0},
        "mutation": {"crossover_rate": 0.0, "mutation_rate": 1.0},
        "repair": {"crossover": swap_segment},
    }[name]
    pair = (lambda all, rng: all | True, lambda all, rng: all & False)
    _, generations = follow(
        size, start(rng), n_generations=1, rng=rng, **settings, **{name: pair}
    )
    (first, second), elite = generations[1], int(name != "repair")
    assert first[elite:].all()
    assert not second[elite:].any()


def test_repair_of_one_population_leaves_the_other(rng):
    def empty(population, rng):
        return population & False

    starts = start(rng)
    result = coevolve(size, starts, n_generations=0, repair=(None, empty), rng=rng)
    assert result.best_fitness == (starts[0].sum(axis=1).max(), 0)


def test_error_tells_the_generation(rng):
    def fitness(genome, partner):
        return 1 / (partner is None)

    with pytest.raises(ZeroDivisionError) as caught:
        coevolve(fitness, start(rng), rng=rng)
    assert "while generation 1 was evaluated" in caught.value.__notes__


@pytest.mark.parametrize(
    ("sizes", "settings", "message"),
    [
        ([(4, 3), (1, 3)], {}, "at least 2 individuals"),
        ([(6, 3), (4, 3)], {"elitism": 4}, "elitism=4 of 4 individuals.*at most 3"),
        ([(4, 3)] * 2, {"crossover_rate": 0.95}, "sum to more than 1"),
        ([(4, 3)] * 3, {}, "populations has 3 parts; give 2"),
        ([(4, 3)] * 2, {"mutation": [flip_bits]}, "mutation has 1 parts; give 2"),
        ([(4, 3)] * 2, {"mutation": "flip"}, "mutation='flip'; choose one of segment"),
    ],
)
def test_bad_settings(sizes, settings, message, rng):
    with pytest.raises(ValueError, match=message):
        coevolve(size, start(rng, sizes), rng=rng, **settings)
