"""DataFreeTraining: trains a student on examples that are made while it learns.

``DataFreeDistiller`` makes one for each fit.
"""

import copy
import math
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from sklcomp.compression.data_free._recipe import DataFreeRecipe
from sklcomp.compression.data_free._settings import has_failed
from sklcomp.compression.data_free._sources import (
    GeneratorSource,
    NoiseSource,
    ReplayBank,
)
from sklcomp.nn import feature_loss, kd_loss
from sklcomp.nn._features import PENULTIMATE, capturing
from sklcomp.nn._running import NormWithStatistics
from sklcomp.nn.surgery._folding import absorb_batch_norms, insert_batch_norms
from sklcomp.nn.synthesis._generators import random_affine
from sklcomp.training._checkpoint import Record
from sklcomp.training._lesson import Teacher
from sklcomp.training._nets import OutputKind
from sklcomp.training._state import generator_states, restore_generators, weights_of

# Checkpoints of a fit.
N_CHECKPOINTS = 20
# Steps in which the learning rate rises, and the share of it that is left at the end.
N_WARM_UP, LEAST_RATE = 50, 0.01


class DataFreeTraining:
    """Steps of a source of examples, and of a student that learns from them.

    Parameters
    ----------
    student : nn.Module
        Trained in place; a copy with batch norms is trained in its stead if the
        recipe says so.
    task : OutputKind
        What the student's outputs mean.
    teacher : Teacher
        Who labels the examples.
    source : GeneratorSource or NoiseSource
        Who makes them.
    noise : NoiseSource or None
        From where a share of every batch comes.
    recipe : DataFreeRecipe
        How the student learns, without "auto".
    rng : torch.Generator
        Source of randomness.
    """

    def __init__(
        self,
        student: nn.Module,
        task: OutputKind,
        teacher: Teacher,
        source: GeneratorSource | NoiseSource,
        noise: NoiseSource | None,
        recipe: DataFreeRecipe,
        rng: torch.Generator,
    ):
        self.task, self.teacher = task, teacher
        # What the outputs mean in training mode is read off the first of them.
        self._training_task: OutputKind | None = None
        self.source, self.noise = source, noise
        self.recipe, self.rng = recipe, rng
        self.bank = ReplayBank(recipe.replay_size, rng)
        self.student = student
        # In our runs on MNIST the norms were worth .9 points with a plain teacher, and
        # 4.6 with one that has norms itself.
        if recipe.student_batchnorm:
            example = source.sample(2)
            self.student = insert_batch_norms(student, example)
        self.student.train()
        self.average = None
        if recipe.averaging:
            self.average = AveragedModel(self.student, use_buffers=True)
        self.optimizer = OPTIMIZERS[recipe.student_optimizer](
            self.student.parameters(), recipe.student_lr
        )
        self.n_iter = 0
        self.history: dict[str, list] = defaultdict(list)
        self._good = self._copy_weights()
        self.n_steps = recipe.n_iterations * recipe.student_steps

    def run(
        self, record: Record, reporter: Callable[[int], bool], verbose: int
    ) -> None:
        """Take all steps that are left, and keep their states on disk.

        Parameters
        ----------
        record : Record
            Where the states go.
        reporter : callable
            Called with the number of each step; True asks to stop.
        verbose : int
            Positive prints the losses every ``verbose`` steps.
        """
        n_iterations = self.recipe.n_iterations
        every = -(-n_iterations // N_CHECKPOINTS)
        while self.n_iter < n_iterations:
            losses = self.step()
            if has_failed(losses, self.n_iter):
                return
            if not self.n_iter % every:
                record.save(self.state)
            if verbose and not self.n_iter % verbose:
                shown = ", ".join(f"{k} {v:.4g}" for k, v in losses.items())
                print(f"iteration {self.n_iter}: {shown}")  # noqa: T201
            if reporter(self.n_iter):
                return

    def step(self) -> dict[str, float]:
        """One step of the source of examples, and ``student_steps`` of the student.

        Returns
        -------
        losses : dict of str to float
            Of the source, and means of the student's. They go into the history if all
            are finite; else the student gets the last weights that gave such losses.
        """
        # The losses of this step are those of the weights before it. So these are good
        # if the losses are finite; of what the step makes of them nothing is known yet.
        before = self._copy_weights()
        images, losses = self.source.step(self.student, self.task)
        # Where all is noise, the bank is filled once: a draw of no rows still needs a
        # shape.
        if self.recipe.noise_share < 1 or not self.bank.n_seen:
            self.bank.add(images)
        n = self.recipe.student_steps
        # A step of the generator took 4 to 6 times as long as one of the student.
        for k in range(n):
            if not all(map(math.isfinite, losses.values())):
                break
            for name, value in self._learn(self.n_iter * n + k).items():
                losses[name] = losses.get(name, 0.0) + value / n
        self.n_iter += 1
        if all(map(math.isfinite, losses.values())):
            for name, value in losses.items():
                self.history[name].append(value)
            scores = self.source.scores
            counts = torch.bincount(scores.argmax(1), minlength=scores.shape[1])
            self.history["classes"].append(counts.tolist())
            self._good = before
        else:
            for net, weights in zip(self._nets(), self._good, strict=True):
                net.load_state_dict(weights)
        return losses

    def _copy_weights(self) -> list[dict[str, Tensor]]:
        return [copy.deepcopy(net.state_dict()) for net in self._nets()]

    def _nets(self) -> list[nn.Module]:
        return [net for net in (self.student, self.average) if net is not None]

    def _learn(self, step: int) -> dict[str, float]:
        """One step of the student."""
        recipe = self.recipe
        n_noise = 0
        if self.noise is not None:
            n_noise = round(recipe.noise_share * recipe.batch_size)
        images = self.bank.draw(recipe.batch_size - n_noise)
        if n_noise and self.noise is not None:
            images = torch.cat([images, self.noise.draw(n_noise)])
        # Before the teacher is asked: it labels what the student sees, so no label is
        # wrong. With the published losses this was worth 2.5 points on MNIST.
        if recipe.augmentation and images.ndim == 4:
            images = random_affine(images, recipe.augmentation, self.rng)
        features, scores = self.teacher(images)
        if recipe.feature_weight:
            with capturing(self.student, PENULTIMATE) as seen:
                output = self.student(images)
        else:
            output = self.student(images)
        if self._training_task is None:
            self._training_task = OutputKind.of_outputs(output, True)
        terms = {
            "kd": kd_loss(
                self._training_task.logits(output), scores, recipe.temperature
            )
        }
        loss = terms["kd"]
        if recipe.feature_weight:
            terms["feature"] = feature_loss(seen[0], features)
            loss = loss + recipe.feature_weight * terms["feature"]
        values = {name: float(term.detach()) for name, term in terms.items()}
        if not all(map(math.isfinite, values.values())):
            return values
        share = SCHEDULES[recipe.schedule](step, self.n_steps)
        for group in self.optimizer.param_groups:
            group["lr"] = share * recipe.student_lr
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        if self.average is not None:
            # The first weights are not worth remembering.
            decay = min(recipe.averaging, (1 + step) / (10 + step))
            self.average.multi_avg_fn = get_ema_multi_avg_fn(decay)
            self.average.update_parameters(self.student)
            copy_buffers(self.student, self.average.module)
        return values

    def finish(self) -> nn.Module:
        """The student that was learned, without what only the training needed."""
        module: Any = self.student if self.average is None else self.average.module
        return absorb_batch_norms(module).eval()

    def networks(self) -> list[Any]:
        """Weights at the start, by which a checkpoint tells fits apart."""
        modules = [self.student, self.teacher.module]
        if isinstance(self.source, GeneratorSource):
            modules.append(self.source.generator)
        return [weights_of(module) for module in modules]

    def state(self) -> dict[str, Any]:
        """All that the next steps depend on."""
        return {
            "n_iter": self.n_iter,
            "history": dict(self.history),
            "student": self.student.state_dict(),
            "average": {} if self.average is None else self.average.state_dict(),
            "good": self._good,
            "optimizer": self.optimizer.state_dict(),
            # Modules of the user may draw from the global ones, as dropout does.
            "generators": generator_states(),
            "generator_state": self.rng.get_state(),
            **self.source.state(),
            **self.bank.state(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Take up an earlier state."""
        self.n_iter = state["n_iter"]
        self.history |= state["history"]
        self.student.load_state_dict(state["student"])
        if self.average is not None:
            self.average.load_state_dict(state["average"])
        self._good = state["good"]
        self.optimizer.load_state_dict(state["optimizer"])
        self.source.restore(state)
        self.bank.restore(state)
        restore_generators(state["generators"])
        self.rng.set_state(state["generator_state"])


@torch.no_grad()
def copy_buffers(student: nn.Module, average: nn.Module) -> None:
    """Give an average the student's buffers; running statistics of norms are averaged.

    Of places and masks there is no average.
    """
    for part, averaged in zip(student.modules(), average.modules(), strict=True):
        is_norm = isinstance(part, NormWithStatistics)
        kept = ("running_mean", "running_var") if is_norm else ()
        buffers = dict(part.named_buffers(recurse=False))
        for name, buffer in averaged.named_buffers(recurse=False):
            if name not in kept:
                buffer.copy_(buffers[name])


def _adam(parameters: Any, lr: float) -> torch.optim.Optimizer:
    return torch.optim.Adam(parameters, lr)


def _sgd(parameters: Any, lr: float) -> torch.optim.Optimizer:
    # As in the authors' code; the paper names Nesterov's method.
    return torch.optim.SGD(parameters, lr, momentum=0.9, weight_decay=5e-4)


def _cosine(step: int, n_steps: int) -> float:
    warm_up = min((step + 1) / min(N_WARM_UP, n_steps), 1.0)
    cosine = (1 + math.cos(math.pi * step / n_steps)) / 2
    return warm_up * (LEAST_RATE + (1 - LEAST_RATE) * cosine)


def _steps(step: int, n_steps: int) -> float:
    # Epochs 800 and 1,600 of 2,000 in the authors' code.
    return 0.1 ** ((step >= 0.4 * n_steps) + (step >= 0.8 * n_steps))


OPTIMIZERS = {"adam": _adam, "sgd": _sgd}
SCHEDULES = {"constant": lambda step, n_steps: 1.0, "cosine": _cosine, "steps": _steps}
