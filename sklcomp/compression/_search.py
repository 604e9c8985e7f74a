"""What both pruners' searches share: their settings, their budget, what they tell."""

from collections.abc import Callable
from typing import Any

import numpy as np
from joblib import effective_n_jobs

from sklcomp.compression._pruning import PruningProblem, absolute_budget
from sklcomp.evolution._population import check_rates
from sklcomp.training._checkpoint import Record
from sklcomp.training._fit import Session


class SearchMixin:
    """Settings of an estimator that searches for the channels to keep.

    A subclass names the table of its presets, by preset and kind of genes, and what the
    published form has in place of parameters.
    """

    _presets: dict[tuple[str, str], dict[str, Any]]
    _published: dict[str, Any]

    def _setting(self: Any, name: str) -> Any:
        """A parameter, or what the published form has in its place."""
        is_published = self.preset == "paper" and name in self._published
        return self._published[name] if is_published else getattr(self, name)

    @property
    def _is_nested(self) -> bool:
        return self._setting("genes") == "nested"

    def _search_values(self: Any) -> dict[str, Any]:
        """What the preset says, unless a parameter says something else."""
        values = dict(self._presets[self.preset, self._setting("genes")])
        own = {name: getattr(self, name, None) for name in values}
        return values | {k: v for k, v in own.items() if v is not None}

    def _check_search(self: Any) -> None:
        """Raise for what cannot be met, before anything is trained."""
        if self.max_params is None and self.max_macs is None and self.preset != "paper":
            msg = (
                "max_params=None and max_macs=None: give a budget, such as "
                'max_params=0.3, or take preset="paper", which needs none.'
            )
            raise ValueError(msg)
        for limit in (self.max_params, self.max_macs):
            absolute_budget(limit, 1)
        values = self._search_values()
        check_rates(
            values["population_size"], values["elitism"], values["crossover_rate"],
            values["mutation_rate"],
        )  # fmt: skip
        effective_n_jobs(self.n_jobs)  # 0 is an error

    def _start_of(
        self: Any, problems: Any, rng: np.random.Generator
    ) -> tuple[list[np.ndarray], dict[str, Any], dict[str, Any]]:
        """First populations, operators of each, and all other settings of a search."""
        values = self._search_values()
        n = values.pop("population_size")
        shape = self.preset, self._is_nested
        starts = [problem.start(n, rng, *shape) for problem in problems]
        each = [problem.operators(*shape) for problem in problems]
        operators = {name: tuple(own[name] for own in each) for name in each[0]}
        return starts, operators, values

    def _after_generation(
        self: Any, record: Record, session: Session
    ) -> Callable[[dict[str, np.ndarray]], bool]:
        """A callback that keeps the state of a search, tells of it, and may stop it."""

        def after_generation(state: dict[str, np.ndarray]) -> bool:
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


def unseen_uniform(problem: PruningProblem, genomes: np.ndarray) -> list[np.ndarray]:
    """Uniform genomes of all sizes that a search has not met, for the front's ends."""
    met = {genome.tobytes() for genome in genomes}
    front = {genome.tobytes(): genome for genome in problem.uniform_front()}
    return [genome for key, genome in front.items() if key not in met]
