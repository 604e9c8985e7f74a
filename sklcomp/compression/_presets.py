"""The published settings, and ours."""

from typing import Any

SEARCH: dict[tuple[str, str], dict[str, Any]] = {
    ("paper", "free"): {
        "population_size": 32, "n_generations": 50, "selection": "roulette",
        "crossover_rate": 0.7, "mutation_rate": 0.1, "elitism": 1, "n_polish_steps": 0,
        "child_mutation_rate": 0.0,
    },
    ("default", "nested"): {
        "population_size": 16, "n_generations": 12, "selection": "tournament",
        "crossover_rate": 0.5, "mutation_rate": 0.5, "elitism": 2, "n_polish_steps": 40,
        "child_mutation_rate": 0.5,
    },
    ("default", "free"): {
        "population_size": 32, "n_generations": 30, "selection": "tournament",
        "crossover_rate": 0.5, "mutation_rate": 0.5, "elitism": 2, "n_polish_steps": 60,
        "child_mutation_rate": 0.5,
    },
}  # fmt: skip
# What the paper's form leaves out, whatever the parameters say.
PAPER = {"genes": "free", "importance": "l1", "fitness": "accuracy",
         "compensate": False, "distill_weight": 0.0,
         "finetune_schedule": None}  # fmt: skip
# Of two generators: the published form, and ours.
_PAIR: dict[str, Any] = {
    "population_size": 14, "n_generations": 12, "selection": "tournament",
    "crossover_rate": 0.55, "mutation_rate": 0.45, "elitism": 1,
    "child_mutation_rate": 0.5,
}  # fmt: skip
COEVOLUTION: dict[tuple[str, str], dict[str, Any]] = {
    ("paper", "free"): {
        "population_size": 32, "n_generations": 50, "selection": "roulette",
        "crossover_rate": 0.7, "mutation_rate": 0.1, "elitism": 1,
        "child_mutation_rate": 0.0,
    },
    ("default", "nested"): _PAIR,
    ("default", "free"): _PAIR,
}  # fmt: skip
PAPER_PAIR = {"genes": "free", "importance": "l1", "compensate": False,
              "inner_width": False, "distill_weight": 0.0}  # fmt: skip
# Uniform networks of these shares are scored too, so that the front spans all sizes.
FRONT_SHARES = (0.1, 0.2, 0.3, 0.45, 0.6, 0.8, 1.0)
