"""What a search is asked for: fitness, budgets and the order of channels."""

import numpy as np
import pytest
import torch
from sklearn.frozen import FrozenEstimator

from sklcomp.compression import SearchRecipe
from sklcomp.nn import collect_covariances, count_parameters, elimination_order
from sklcomp.training._nets import hold_out
from tests.helpers.nets import Residual
from tests.helpers.recipes import QUICK, evolutionary_pruner


def split(y):
    """Rows to train on and rows held out, of a fit with random_state=0."""
    return hold_out(y, 1000, np.random.RandomState(0).randint(2**31 - 1))


def test_fitness_is_the_divergence_on_rows_held_out(digits, trained):
    # By numpy, from the probabilities of the two plain nets.
    X, y = digits
    pruner = evolutionary_pruner(
        FrozenEstimator(trained),
        max_params=0.5,
        compensate=False,
        finetune=False,
        **QUICK,
    ).fit(X, y)
    held = split(y)[1]
    assert len(held) == len(X) // 4
    p, q = (
        net.predict_proba(X[held]).astype(float) for net in (trained, pruner.estimator_)
    )
    divergence = (p * np.log(p / q)).sum(axis=1).mean()
    assert pruner.best_fitness_ == pytest.approx(-divergence, rel=1e-3)


def test_both_budgets_and_layers_that_stay(digits, trained):
    pruner = evolutionary_pruner(
        FrozenEstimator(trained),
        max_params=900,
        max_macs=0.5,
        min_channels=2,
        ignored_layers=["inner"],
        **QUICK,
    ).fit(*digits)
    assert pruner.report_.after["parameters"] <= 900
    assert pruner.report_.ratio("MACs") <= 0.5
    assert len(pruner.kept_channels_["inner"]) == 8
    assert len(pruner.kept_channels_["stem"]) >= 2
    assert "ignored_layers" in pruner.graph_.frozen["inner"]


@pytest.mark.parametrize("genes", ["nested", "free"])
@pytest.mark.parametrize("importance", ["obs", "l1", "group", "random"])
def test_every_importance_keeps_the_budget(digits, trained, genes, importance):
    pruner = evolutionary_pruner(
        FrozenEstimator(trained),
        max_params=0.5,
        genes=genes,
        importance=importance,
        finetune=False,
        **QUICK,
    ).fit(*digits)
    assert pruner.report_.ratio("parameters") <= 0.5
    assert (np.diff(pruner.history_["best"]) >= 0).all()


def test_importance_says_which_channels_go_first(digits, trained):
    X, y = digits
    found = {
        importance: evolutionary_pruner(
            FrozenEstimator(trained),
            max_params=0.5,
            importance=importance,
            finetune=False,
            **QUICK,
        ).fit(X, y)
        for importance in ("obs", "l1", "group", "random")
    }
    assert len({pruner.best_individual_.tobytes() for pruner in found.values()}) == 4
    # By hand, of one layer: those of least mean |w| are not kept.
    module, graph = trained.module_, found["obs"].graph_
    kept = found["l1"].kept_channels_["inner"]
    order = module.inner.weight.abs().mean(dim=(1, 2, 3)).argsort()
    assert 0 < len(kept) < 8
    assert set(kept) == set(order[-len(kept) :].tolist())
    rows = torch.from_numpy(X[split(y)[0]])
    orders = {
        "obs": elimination_order(
            module, graph, collect_covariances(module, graph, rows)
        ),
        "group": elimination_order(module, graph, norm="group"),
    }
    for importance, segments in orders.items():
        for genes in segments:
            alive = found[importance].best_individual_[genes]
            assert not alive[: -alive.sum()].any()


def test_the_papers_form_needs_no_budget(digits, trained):
    X, y = digits
    pruner = evolutionary_pruner(
        FrozenEstimator(trained), recipe="paper", trade_off=0.5, finetune=False, **QUICK
    ).fit(X, y)
    size = pruner.report_.ratio("parameters")
    assert 0 < size < 1
    # Accuracy of the cut net and the reward for its size.
    held = split(y)[1]
    accuracy = pruner.estimator_.score(X[held], y[held])
    assert pruner.best_fitness_ == pytest.approx(accuracy + 0.5 * (1 - size))
    # Cut and not repaired.
    kept = pruner.kept_channels_
    np.testing.assert_array_equal(
        pruner.module_.inner.weight.detach(),
        trained.module_.inner.weight.detach()[kept["inner"]][:, kept["stem"]],
    )


def test_own_fitness(digits, trained):
    seen = []

    def fitness(module, X, y):
        seen.append((type(module), X.shape, y.shape))
        return -count_parameters(module)

    pruner = evolutionary_pruner(
        FrozenEstimator(trained), recipe="paper", fitness="kl", trade_off=0, **QUICK
    )
    own = SearchRecipe(fitness=fitness, n_polish_steps=3)
    pruner.set_params(recipe=own, max_params=0.5).fit(*digits)
    assert set(seen) == {(Residual, (225, 64), (225,))}
    assert pruner.best_fitness_ == -count_parameters(pruner.module_)
