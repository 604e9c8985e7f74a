"""A genetic engine on bit strings; it knows nothing of networks."""

from sklcomp.evolution._coevolution import CoevolutionResult, coevolve
from sklcomp.evolution._engine import EvolutionResult, evolve

__all__ = ["CoevolutionResult", "EvolutionResult", "coevolve", "evolve"]
