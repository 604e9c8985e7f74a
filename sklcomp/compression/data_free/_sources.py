"""Sources of made-up examples: noise, a generator, and the bank that keeps them.

``DataFreeDistiller`` makes them, and ``DataFreeTraining`` draws from them.
"""

import copy
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sklcomp.compression.data_free._recipe import DataFreeRecipe
from sklcomp.nn import (
    BatchNormStatistics,
    DAFLGenerator,
    DenseGenerator,
    activation_loss,
    adversarial_loss,
    entropy_loss,
    onehot_loss,
    structured_noise,
)
from sklcomp.nn.synthesis._generators import moment_penalty
from sklcomp.training._lesson import Teacher
from sklcomp.training._nets import OutputKind

Values = Any  # a number, or one for each channel
# Shapes that are kept where no number of examples is given.
N_KEPT = 20_000


@dataclass(frozen=True)
class Inputs:
    """What is known of the examples that a teacher takes."""

    shape: tuple[int, ...]
    limits: tuple[Values, Values] | None = None
    mean: Values = 0.0
    std: Values = 1.0

    @property
    def is_image(self) -> bool:
        """Whether examples have pixels, and are not only lists of features."""
        return len(self.shape) == 3

    @property
    def has_possible_moments(self) -> bool:
        """Whether values within the limits can have this mean and deviation."""
        if self.limits is None:
            return True
        low, high, mean, std = (
            torch.as_tensor(v, dtype=torch.float64)
            for v in (*self.limits, self.mean, self.std)
        )
        # The widest distribution with this mean has only the two limits as values.
        return bool((std**2 <= (mean - low) * (high - mean) * (1 + 1e-6)).all())

    def noise(
        self, n: int, rng: torch.Generator, kinds: Sequence[str] = ("blobs",)
    ) -> Tensor:
        """Structured noise of this shape, within the limits."""
        limits = self.limits
        mean, std = (
            torch.as_tensor(value, dtype=torch.get_default_dtype(), device=rng.device)
            for value in (self.mean, self.std)
        )
        if limits is None:
            # Where no limits are told, most values lie within two deviations.
            low, high = mean - 2 * std, mean + 2 * std
            limits = (low.tolist(), high.tolist()) if self.is_image else None
        noise = structured_noise(n, self.shape, limits, rng, kinds)
        if limits is None:
            return mean + std * noise
        # Ink is bright; on bright paper it is dark.
        if self.is_image and self.shape[0] == 1 and mean.mean() > np.mean(limits):
            return np.sum(limits) - noise
        return noise


class NoiseSource:
    """Structured noise; nothing is learned.

    Twice as many shapes are drawn as are kept. The same number is kept of each class
    that the teacher sees in them.

    Parameters
    ----------
    teacher : Teacher
        Who names the classes.
    inputs : Inputs
        Shape and range of the examples.
    n_classes : int
        Classes of the teacher.
    recipe : DataFreeRecipe
        Settings of the noise, without "auto".
    rng : torch.Generator
        Source of the noise.
    """

    def __init__(
        self,
        teacher: Teacher,
        inputs: Inputs,
        n_classes: int,
        recipe: DataFreeRecipe,
        rng: torch.Generator,
    ):
        self.teacher, self.inputs, self.rng = teacher, inputs, rng
        self.kinds, self.n = recipe.noise_kinds, recipe.batch_size
        size = recipe.replay_size or N_KEPT
        pool = inputs.noise(2 * size, rng, self.kinds)
        labels = teacher.answer_all(pool)[1].argmax(1)
        rows = []
        for label in range(n_classes):
            (found,) = (labels == label).nonzero(as_tuple=True)
            if len(found):
                order = torch.randperm(len(found), generator=rng, device=rng.device)
                # Of a rare class all are there, and some more than once.
                places = torch.arange(max(1, size // n_classes), device=rng.device)
                rows.append(found[order[places % len(found)]])
        self.images = pool[torch.cat(rows)]

    def draw(self, n: int) -> Tensor:
        """A batch of n."""
        rows = torch.randint(
            len(self.images), (n,), generator=self.rng, device=self.rng.device
        )
        return self.images[rows]

    def step(
        self, student: nn.Module, task: OutputKind
    ) -> tuple[Tensor, dict[str, float]]:
        """A batch, and no losses."""
        images = self.draw(self.n)
        self.scores = self.teacher(images)[1]
        return images, {}

    def sample(self, n: int) -> Tensor:
        """New examples (n, ...), of all classes as they come."""
        images = self.inputs.noise(n, self.rng, self.kinds)
        order = torch.randperm(n, generator=self.rng, device=self.rng.device)
        return images[order]

    def state(self) -> dict[str, Any]:
        """Nothing that its seed does not give."""
        return {}

    def restore(self, state: dict[str, Any]) -> None:
        """Nothing to restore."""


class GeneratorSource:
    """A network that learns to make what its teacher takes for typical.

    Parameters
    ----------
    teacher : Teacher
        Judge of the images; gradients go through it.
    inputs : Inputs
        Shape and range of the images.
    n_classes : int
        Classes of the teacher.
    recipe : DataFreeRecipe
        Weights of the losses and size of the generator, without "auto".
    rng : torch.Generator
        Source of the noise.
    prototype : nn.Module or None
        The user's own generator.
    """

    def __init__(
        self,
        teacher: Teacher,
        inputs: Inputs,
        n_classes: int,
        recipe: DataFreeRecipe,
        rng: torch.Generator,
        prototype: nn.Module | None = None,
    ):
        self.teacher, self.inputs, self.n_classes = teacher, inputs, n_classes
        self.recipe, self.rng, self.prototype = recipe, rng, prototype
        self.is_conditional = recipe.conditional
        self.weights = {
            name: getattr(recipe, f"{name}_weight")
            for name in ("onehot", "entropy", "activation", "bn", "adversarial")
        }
        is_bounded = recipe.head == "range" and prototype is None
        # The penalty belongs to the head: without it the range says nothing of the
        # mean. No recipe has a weight for it.
        self.weights["moments"] = float(is_bounded and inputs.has_possible_moments)
        self.n_steps = 0
        self.renew()

    def renew(self) -> None:
        """Begin with a new generator."""
        recipe = self.recipe
        if self.prototype is not None:
            generator: Any = copy.deepcopy(self.prototype)
            # The first time it keeps the weights that the user gave it.
            if self.n_steps:
                for part in generator.modules():
                    if hasattr(part, "reset_parameters"):
                        part.reset_parameters()
        else:
            make: Callable = DAFLGenerator
            shape: Any = self.inputs.shape
            if not self.inputs.is_image:
                make, (shape,) = DenseGenerator, self.inputs.shape
            generator = make(
                shape,
                recipe.latent_dim,
                recipe.generator_width,
                n_classes=self.n_classes if self.is_conditional else None,
                input_range=self.inputs.limits,
                input_mean=self.inputs.mean,
                input_std=self.inputs.std,
                head=recipe.head,
            )
        # In training mode for good: its batch norms take the statistics of each batch,
        # and the last one is what brings images into the range of the teacher.
        self.generator: Any = generator.to(self.rng.device).train()
        self.optimizer = torch.optim.Adam(
            self.generator.parameters(), recipe.generator_lr
        )

    def step(
        self, student: nn.Module, task: OutputKind
    ) -> tuple[Tensor, dict[str, float]]:
        """One step of the generator: its images, and its losses."""
        every = self.recipe.reinit_every
        if every and self.n_steps and self.n_steps % every == 0:
            self.renew()
        self.n_steps += 1
        images, labels = self._draw(self.recipe.generator_batch_size)
        losses = self._losses(images, labels, student, task)
        total = images.new_zeros(())
        for name, loss in losses.items():
            total = total + self.weights[name] * loss
        values = {name: float(loss.detach()) for name, loss in losses.items()}
        # A loss that is not finite is told, and no step is made of it.
        if torch.isfinite(total) and total.requires_grad:
            # The gradients of the student are not wanted, so not computed.
            parameters = self.generator.parameters()
            total.backward(inputs=[p for p in parameters if p.requires_grad])
            self.optimizer.step()
            self.optimizer.zero_grad()
        return images.detach(), values

    def sample(self, n: int) -> Tensor:
        """Examples (n, ...) of the generator as it is now."""
        size = self.recipe.generator_batch_size
        before = copy.deepcopy(self.generator.state_dict())
        with torch.no_grad():
            batches = [self._draw(size)[0] for _ in range(-(-n // size))]
        # A generator of the user's may remember what passes through its norms.
        self.generator.load_state_dict(before)
        return torch.cat(batches)[:n]

    def _draw(self, n: int) -> tuple[Tensor, Tensor | None]:
        options: dict[str, Any] = {"generator": self.rng, "device": self.rng.device}
        z = torch.randn(n, self.recipe.latent_dim, **options)
        if not self.is_conditional:
            return self.generator(z), None
        labels = torch.randint(self.n_classes, (n,), **options)
        return self.generator(z, labels), labels

    def _losses(
        self,
        images: Tensor,
        labels: Tensor | None,
        student: nn.Module,
        task: OutputKind,
    ) -> dict[str, Tensor]:
        """Losses whose weight is not zero."""
        on = {name for name, weight in self.weights.items() if weight}
        watch = BatchNormStatistics(self.teacher.module) if "bn" in on else None
        losses = {}
        with watch or nullcontext():
            features, logits = self.teacher.answer(images)
            self.scores = logits.detach()
            if watch is not None:
                losses["bn"] = watch.loss()
        if "onehot" in on:
            # Of the class that was asked for; without one, as published, of the class
            # that the teacher sees.
            losses["onehot"] = (
                onehot_loss(logits)
                if labels is None
                else F.cross_entropy(logits, labels)
            )
        if "entropy" in on:
            losses["entropy"] = entropy_loss(logits)
        if "activation" in on:
            losses["activation"] = activation_loss(features)
        if "adversarial" in on:
            # Its running statistics are not to learn from a step of the generator.
            student.eval()
            # Of a copy: a network may overwrite what it is given.
            answer = task.logits(student(images.clone()))
            losses["adversarial"] = adversarial_loss(answer, logits)
            student.train()
        if "moments" in on:
            losses["moments"] = moment_penalty(
                images, self.inputs.mean, self.inputs.std
            )
        return losses

    def state(self) -> dict[str, Any]:
        """All that the next steps depend on."""
        return {
            "generator": self.generator.state_dict(),
            "generator_optimizer": self.optimizer.state_dict(),
            "n_steps": self.n_steps,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Take up an earlier state."""
        self.generator.load_state_dict(state["generator"])
        self.optimizer.load_state_dict(state["generator_optimizer"])
        self.n_steps = state["n_steps"]


class ReplayBank:
    """The latest examples, of which batches are drawn; the oldest go first."""

    def __init__(self, size: int, rng: torch.Generator):
        self.size, self.rng = size, rng
        self.images: Tensor | None = None
        self.n_seen = 0

    def add(self, images: Tensor) -> None:
        """Keep a batch; without a size, only this one."""
        if not self.size:
            self.images, self.n_seen = images, len(images)
            return
        images = images[-self.size :]
        if self.images is None:
            self.images = images.new_empty(self.size, *images.shape[1:])
        places = torch.arange(self.n_seen, self.n_seen + len(images)) % self.size
        self.images[places] = images
        self.n_seen += len(images)

    def draw(self, n: int) -> Tensor:
        """A batch of n, or of as many as the latest one has if only that is kept."""
        assert self.images is not None
        if not self.size:
            # The joint step of the published code: the same batch serves both nets.
            return self.images[:n].clone()
        n_kept = min(self.n_seen, self.size)
        rows = torch.randint(n_kept, (n,), generator=self.rng, device=self.rng.device)
        return self.images[rows]

    def state(self) -> dict[str, Any]:
        """What is kept."""
        assert self.images is not None
        n_kept = min(self.n_seen, len(self.images))
        return {"bank": self.images[:n_kept].clone(), "n_seen": self.n_seen}

    def restore(self, state: dict[str, Any]) -> None:
        """Take up an earlier state."""
        kept, self.n_seen = state["bank"].to(self.rng.device), state["n_seen"]
        self.images = kept
        if self.size:
            self.images = kept.new_empty(self.size, *kept.shape[1:])
            self.images[: len(kept)] = kept


def keep_on_cpu(source: GeneratorSource | NoiseSource) -> None:
    """Leave a source what ``sample`` needs, on the CPU, where any machine loads it."""
    for name in ("images", "scores", "optimizer"):
        vars(source).pop(name, None)
    source.rng = torch.Generator()
    source.teacher.module.cpu()
    source.teacher.device = "cpu"
    if isinstance(source, GeneratorSource):
        source.generator.cpu()
