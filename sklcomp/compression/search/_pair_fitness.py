"""Direction: how good a cut generator is, with a partner that brings images back.

``CoEvolutionaryPruner`` hands two of them to ``coevolve``, and judges and reports the
best pair by them.
"""

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import torch.nn.functional as F
from sklearn.exceptions import ConvergenceWarning
from torch import Tensor, nn

from sklcomp.compression._report import describe
from sklcomp.compression.search._finetuning import Figures
from sklcomp.compression.search._problem import PruningProblem
from sklcomp.nn._running import (
    FastLayout,
    device_of,
    evaluating,
    reestimate_batch_norms,
)
from sklcomp.translation._images import ImageLayout
from sklcomp.translation._net import run as run_generator
from sklcomp.utils._messages import warn_user

# Weight of the change of a generator's images. Without it a generator that does less
# than the full one is rewarded, as its cycles are shorter.
CLOSENESS = 5.0


class Direction:
    """Fitness of one generator, with a partner that brings its images back.

    Parameters
    ----------
    problem, partner : PruningProblem
        Of this generator, and of the one that translates back.
    discriminator : nn.Module
        Judges the images that this generator makes.
    X : Tensor
        Images that it translates, held out for this.
    gamma, cycle_weight : float or None
        Of the published objective; gamma is None for ours.
    train : callable or None
        ``(module, partner) -> (module, partner)``, trained for a while.
    """

    def __init__(
        self,
        problem: PruningProblem,
        partner: PruningProblem,
        discriminator: nn.Module,
        X: Tensor,
        *,
        gamma: float | None,
        cycle_weight: float,
        train: Callable | None,
    ):
        self.problem, self.partner = problem, partner
        # A copy, of which threads need not set the mode.
        self.discriminator = copy.deepcopy(discriminator).eval()
        self.gamma, self.cycle_weight, self.train = gamma, cycle_weight, train
        self.X = X.to(device_of(problem.module))
        # Once for the whole search: no candidate changes the full networks.
        with evaluating(problem.module):
            self.made = problem.module(self.X.clone())
            self.scores = self._judge(self.made)
        self.layout = self._find_layout()
        self.laid_X = self.layout(self.X)
        self._partner: tuple[bytes, Any] = (b"", None)

    def __call__(self, genome: np.ndarray, partner: np.ndarray | None) -> float:
        module = self._decode(self.problem, genome)
        # The published search has no cycle in its first generation.
        is_first = partner is None and self.gamma is not None
        back = None if is_first else self._back(partner)
        # Nor does it train its first generation.
        if self.train is not None and partner is not None:
            module, back = self.train(module, back)
        with evaluating(module):
            made = module(self.laid_X.clone())
        with evaluating(self.discriminator):
            # In the eyes of the discriminator, not in pixels: a zebra may get other
            # stripes.
            judged = F.mse_loss(self._judge(made), self.scores)
        cycle = 0.0
        if back is not None:
            with evaluating(back):
                # Squares, as in the paper. The published program has absolute
                # differences, and sums over the images, so that its balance depends on
                # how many there are.
                cycle = float(F.mse_loss(back(made.clone()), self.X))
        if self.gamma is None:
            change = float(F.mse_loss(made, self.made))
            return -float(judged) - cycle - CLOSENESS * change
        # The reciprocal of the published objective, as fitness is maximised and
        # roulette needs it positive. The published program counts channels instead of
        # parameters.
        size = self.problem.cost(genome)[0] / self.problem.full_cost[0]
        return 1 / (size + self.gamma * (float(judged) + self.cycle_weight * cycle))

    def _judge(self, images: Tensor) -> Tensor:
        """Mean over the patches of every image."""
        # One number for each image, as in the published program, so that a patch may
        # change where the image as a whole is judged alike.
        return self.discriminator(images.clone()).reshape(len(images), -1).mean(1)

    def _decode(self, problem: PruningProblem, genome: np.ndarray) -> nn.Module:
        module: Any = problem.decode(genome).eval()
        if problem.compensation is not None:
            # As in the finished network, of few images: it is done for every genome.
            n_images = max(2, len(self.X))
            reestimate_batch_norms(module, problem.statistics[:n_images])
        return self.layout(module)

    def _back(self, partner: np.ndarray | None) -> nn.Module:
        """The partner's network, which is the same for a whole generation."""
        if partner is None:
            partner = np.ones(self.partner.graph.n_genes, bool)
        key = np.packbits(partner).tobytes()
        # Read and set as a pair: several threads come here.
        known, module = self._partner
        if known != key:
            module = self._decode(self.partner, partner)
            self._partner = key, module
        return module

    def _find_layout(self) -> FastLayout:
        """Channels last, if all networks take images so."""
        module, back = (
            problem.decode(np.ones(problem.graph.n_genes, bool)).eval()
            for problem in (self.problem, self.partner)
        )

        def translate(images: Tensor) -> None:
            made = module(images.clone())
            self._judge(made)
            back(made)

        return FastLayout(translate, self.X, module, back)


def closeness(
    pair: tuple[nn.Module, nn.Module], directions: tuple[Direction, Direction]
) -> Figures:
    """Loss and score of a pair of generators, as means over both.

    The loss is the error of their cycles and of their images, which should be those of
    the full generators. The score is minus the error of the cycles.
    """
    changes, cycles = [], []
    for module, back, full in zip(pair, pair[::-1], directions, strict=True):
        with evaluating(module), evaluating(back):
            made = module(full.X.clone())
            changes.append(float(F.l1_loss(made, full.made)))
            cycles.append(float(F.l1_loss(back(made.clone()), full.X)))
    cycle = sum(cycles) / 2
    return Figures(sum(changes) / 2 + cycle, -cycle)


def judge_pair(cut: Any, tuned: Any, directions: Any) -> tuple[bool, str]:
    """Whether a tuned pair stays, and why.

    One that differs more from the full pair may be the better translator, unless its
    cycles are worse too.
    """
    before, after = closeness(cut, directions), closeness(tuned, directions)
    said = (
        f"error of cycles and of what the full generators make {before.loss:.3g} -> "
        f"{after.loss:.3g}, of cycles alone {-before.score:.3g} -> {-after.score:.3g}"
    )
    if not after.is_worse(before):
        return True, f"fine-tuned: {said}"
    warn_user(
        f"the training of the small generators made them worse: {said}; they are "
        "left as they were cut. Choose a smaller lr of the translator, or take "
        "finetune_epochs=0.",
        ConvergenceWarning,
    )
    return False, f"kept as they were cut: {said}"


def describe_pair(
    pair: Any, directions: tuple[Direction, Direction], layout: ImageLayout
) -> dict[str, float]:
    """One side of the report, of both generators together."""
    sides = [
        describe(module, direction.X[:1])
        for module, direction in zip(pair, directions, strict=True)
    ]
    cycles = []
    for module, back, direction in zip(pair, pair[::-1], directions, strict=True):
        # As the translator does it: what was padded is cut off in between.
        again = run_generator(back, layout.pad(run_generator(module, direction.X)))
        rows = [layout.to_rows(images, np.float64) for images in (again, direction.X)]
        cycles.append(np.abs(rows[0] - rows[1]).mean())
    total = {name: sides[0][name] + sides[1][name] for name in sides[0]}
    # The full generators may have been trained on these images.
    return total | {"training score": -float(np.mean(cycles))}
