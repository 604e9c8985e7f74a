"""Genetic search over bit strings, for the pruners and for fitness functions of users.

It knows nothing of networks.
"""

from sklcomp.evolution._coevolution import CoevolutionResult, coevolve
from sklcomp.evolution._engine import EvolutionResult, evolve

__all__ = ["CoevolutionResult", "EvolutionResult", "coevolve", "evolve"]
