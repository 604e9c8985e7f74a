"""SearchMixin: settings, budget and progress of a search, for both pruners."""

from collections.abc import Callable
from typing import Any

import numpy as np
from joblib import effective_n_jobs

from sklcomp.compression.search._problem import absolute_budget
from sklcomp.evolution._population import check_rates
from sklcomp.training._checkpoint import Record
from sklcomp.training._fit import Session
from sklcomp.utils._recipe import RecipeMixin, recipe_of

# Settings of a recipe that are arguments of ``evolve`` and ``coevolve``.
EVOLVING = (
    "n_generations", "selection", "crossover_rate", "mutation_rate",
    "child_mutation_rate", "elitism",
)  # fmt: skip


class SearchMixin(RecipeMixin):
    """For estimators that search for the channels to keep, as their recipe says."""

    def _check_search(self: Any) -> None:
        """Find the recipe; raise for what cannot be met, before anything is trained."""
        recipe = recipe_of(self, self._recipe_type)
        own = {
            name: getattr(self, name)
            for name in ("population_size", "n_generations")
            if getattr(self, name) is not None
        }
        self.recipe_ = recipe = recipe.replace(**own) if own else recipe
        if self.max_params is None and self.max_macs is None and recipe.needs_budget:
            msg = (
                "max_params=None and max_macs=None: give a budget, such as "
                'max_params=0.3, or take recipe="paper", which needs none.'
            )
            raise ValueError(msg)
        for limit in (self.max_params, self.max_macs):
            # Of no net yet: asked only for what it raises.
            absolute_budget(limit, 1)
        check_rates(
            recipe.population_size,
            recipe.elitism,
            recipe.crossover_rate,
            recipe.mutation_rate,
        )
        effective_n_jobs(self.n_jobs)  # 0 is an error

    def _start_of(
        self: Any, problems: Any, rng: np.random.Generator
    ) -> tuple[list[np.ndarray], dict[str, Any], dict[str, Any]]:
        """First populations, operators of each, and all other settings of a search."""
        # All that is drawn here, the problems in their order; it must stay, or a seed
        # would give another search.
        starts = [problem.start(self.recipe_, rng) for problem in problems]
        each = [problem.operators(self.recipe_) for problem in problems]
        operators = {name: tuple(own[name] for own in each) for name in each[0]}
        return (
            starts,
            operators,
            {name: getattr(self.recipe_, name) for name in EVOLVING},
        )

    def _after_generation(
        self: Any, record: Record, session: Session
    ) -> Callable[[dict[str, np.ndarray]], bool]:
        """A callback that keeps the state of a search, tells of it, and may stop it."""

        def after_generation(state: dict[str, np.ndarray]) -> bool:
            # Saved before the callbacks are asked: one of them may raise.
            record.save(lambda: state)
            self._tell_best({k: v for k, v in state.items() if "history_best" in k})
            return session.reporter(int(state["generation"]))

        return after_generation

    def _tell_best(self: Any, best: dict[str, np.ndarray]) -> None:
        """Print the best fitness of the latest generation that was scored."""
        if self.verbose:
            n_scored = min(map(len, best.values()))
            shown = " and ".join(f"{values[-1]:.5g}" for values in best.values())
            print(f"generation {n_scored - 1}: best fitness {shown}")  # noqa: T201
