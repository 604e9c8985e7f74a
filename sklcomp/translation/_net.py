"""CycleGANNet: a skorch net of two generators and two discriminators.

``CycleGANTranslator`` trains one, and so does ``CoEvolutionaryPruner``.
"""

import math
from collections.abc import Callable
from typing import Any, NoReturn

import torch
import torch.nn.functional as F
from skorch import NeuralNet
from torch import Tensor, nn

from sklcomp.nn._running import device_of, evaluating
from sklcomp.training._loop import StopTraining
from sklcomp.translation._unpaired import ImagePool, UnpairedBatches

# Numbers, of all pixels and channels, that a network is given at once.
BATCH_NUMBERS = 2**18
MODULES = ("module", "generator_ba", "discriminator_a", "discriminator_b")


class CycleGANNet(NeuralNet):
    """Two generators with one optimizer, two discriminators with another.

    ``module`` is the generator from A to B; ``criterion`` compares scores of a
    discriminator with one (true) and zero (false). A data set is an UnpairedImages.

    Parameters
    ----------
    module, generator_ba, discriminator_a, discriminator_b : nn.Module or class
        The networks.
    discriminator_optimizer : class
        Optimizer of the discriminators.
    cycle_weight, identity_weight : float
        Weights of the losses of cycles and of identity.
    pool_size : int
        Earlier images of each generator that are kept for its discriminator.
    decay_start : float
        Share of the training after which the learning rates fall linearly to zero.
    **kwargs
        All other settings of a skorch net.
    """

    cuda_dependent_attributes_: list[str]

    def __init__(
        self,
        module: Any,
        generator_ba: Any,
        discriminator_a: Any,
        discriminator_b: Any,
        *,
        criterion: Any = nn.MSELoss,
        optimizer: Any = torch.optim.Adam,
        discriminator_optimizer: Any = torch.optim.Adam,
        cycle_weight: float = 10.0,
        identity_weight: float = 5.0,
        pool_size: int = 50,
        decay_start: float = 0.5,
        iterator_train: Any = UnpairedBatches,
        train_split: Any = None,
        **kwargs: Any,
    ):
        self.generator_ba = generator_ba
        self.discriminator_a = discriminator_a
        self.discriminator_b = discriminator_b
        self.discriminator_optimizer = discriminator_optimizer
        self.cycle_weight = cycle_weight
        self.identity_weight = identity_weight
        self.pool_size = pool_size
        self.decay_start = decay_start
        super().__init__(
            module,
            criterion=criterion,
            optimizer=optimizer,
            train_split=train_split,
            iterator_train=iterator_train,
            **kwargs,
        )

    def initialize_module(self) -> Any:
        """Make all four networks."""
        super().initialize_module()
        for name in MODULES[1:]:
            kwargs = self.get_params_for(name)
            setattr(
                self, f"{name}_", self.initialized_instance(getattr(self, name), kwargs)
            )
        self.pools_ = ImagePool(self.pool_size), ImagePool(self.pool_size)
        # The modules that were given too, as they are those that are trained.
        moved = [*self.cuda_dependent_attributes_, *MODULES, "pools_"]
        self.cuda_dependent_attributes_ = list(dict.fromkeys(moved))
        self.after_epoch_: Callable[[Any], None] | None = None
        self.fault_ = ""
        return self

    def initialize_optimizer(self, triggered_directly: Any = None) -> Any:
        """Make both optimizers."""
        for name, first, second in (
            ("optimizer", self.module_, self.generator_ba_),
            ("discriminator_optimizer", self.discriminator_a_, self.discriminator_b_),
        ):
            parameters = nn.ModuleList([first, second]).named_parameters()
            args, kwargs = self.get_params_for_optimizer(name, parameters)
            optimizer = getattr(self, name)(*args, **kwargs)
            for group in optimizer.param_groups:
                # Rates are computed from the first ones, as a training that goes on has
                # lower ones.
                group["initial_lr"] = group["lr"]
            setattr(self, f"{name}_", optimizer)
        return self

    def on_epoch_begin(
        self,
        net: Any,
        dataset_train: Any = None,
        dataset_valid: Any = None,
        **kwargs: Any,
    ) -> None:
        """Count the steps of an epoch, of which the rates of learning are a function.

        Parameters
        ----------
        net : CycleGANNet
            This one.
        dataset_train, dataset_valid : Dataset
            What is trained on.
        **kwargs
            Not used.
        """
        super().on_epoch_begin(net, dataset_train=dataset_train, **kwargs)
        n = len(self.get_iterator(dataset_train, training=True))
        # From the history, so that a training that goes on has the rates of its place.
        # The row of this epoch is there already.
        self._step_, self._n_steps_ = (len(self.history) - 1) * n, self.max_epochs * n
        self._sums_: dict[str, float] = {}

    def on_epoch_end(
        self,
        net: Any,
        dataset_train: Any = None,
        dataset_valid: Any = None,
        **kwargs: Any,
    ) -> None:
        """Record the mean of every loss.

        Parameters
        ----------
        net : CycleGANNet
            This one.
        dataset_train, dataset_valid : Dataset
            What was trained on.
        **kwargs
            Not used.
        """
        super().on_epoch_end(net, dataset_train=dataset_train, **kwargs)
        for module, images in (
            (self.module_, dataset_train.a),
            (self.generator_ba_, dataset_train.b),
        ):
            if not run(module, images[:1]).isfinite().all():
                self._stop("a generator made what is not finite")
        # No loss has seen the last step, and no image shows what it did to these.
        for name in MODULES:
            for weights in getattr(self, f"{name}_").parameters():
                if not weights.detach().isfinite().all():
                    network = "generator_ab" if name == "module" else name
                    self._stop(f"a weight of {network} is not finite")
        n_rows = sum(self.history[-1, "batches", :, "train_batch_size"])
        for name, value in self._sums_.items():
            self.history.record(name, value / n_rows)

    def notify(self, method_name: str, **kwargs: Any) -> None:
        """Call back, and tell who trains when all callbacks of an epoch are done.

        Parameters
        ----------
        method_name : str
            Of the callbacks.
        **kwargs
            For them.
        """
        super().notify(method_name, **kwargs)
        if method_name == "on_epoch_end" and self.after_epoch_ is not None:
            self.after_epoch_(self)

    def train_step(self, batch: Any, **fit_params: Any) -> dict[str, Any]:
        """One step of the generators, then one of the discriminators.

        Parameters
        ----------
        batch : tuple of Tensor
            Examples of A and of B, and their rows.
        **fit_params
            Not used.

        Returns
        -------
        step : dict
            "loss" of the generators, and "y_pred", the translated images.
        """
        self._set_training(True)
        self._decay()
        a, b, *rows = batch
        a, b = a.to(self.device), b.to(self.device)
        discriminators = nn.ModuleList([self.discriminator_a_, self.discriminator_b_])
        # The generators' losses give no gradients to the discriminators: the same steps
        # as in the published loop, in less time.
        learned = [p for p in discriminators.parameters() if p.requires_grad]
        for parameter in learned:
            parameter.requires_grad = False
        terms, fakes = self.generator_terms(a, b, *rows)
        for parameter in learned:
            parameter.requires_grad = True
        loss = torch.stack(list(terms.values())).sum()
        self._check({name: float(term.detach()) for name, term in terms.items()}, a)
        if not loss.requires_grad:
            kind = type(self.module_).__name__
            msg = (
                "the generators have no weights that learn; call requires_grad_() on "
                f"the {kind} that is given, if all its weights are frozen."
            )
            raise ValueError(msg)
        self.optimizer_.zero_grad()
        loss.backward()
        self.optimizer_.step()
        # After the step of the generators, as published, on what they made before it.
        judged = self.discriminator_terms(a, b, *(fake.detach() for fake in fakes))
        self._check({name: float(term.detach()) for name, term in judged.items()}, a)
        if learned:
            self.discriminator_optimizer_.zero_grad()
            torch.stack(list(judged.values())).sum().backward()
            self.discriminator_optimizer_.step()
        return {"loss": loss.detach(), "y_pred": fakes[0].detach()}

    def generator_terms(
        self, a: Tensor, b: Tensor, rows_a: Tensor, rows_b: Tensor
    ) -> tuple[dict[str, Tensor], tuple[Tensor, Tensor]]:
        """Weighted losses of the generators, and what they made of a and b.

        Parameters
        ----------
        a, b : Tensor of shape (n, ...)
            Examples of both domains.
        rows_a, rows_b : Tensor of int
            Their places in the data set.

        Returns
        -------
        terms : dict of str to Tensor
            The losses.
        fakes : tuple of two Tensor
            Translations of b to A, and of a to B.
        """
        ab, ba = self.module_, self.generator_ba_
        terms = {}
        # One call each for what does not wait for the other generator. What is used
        # again is copied, as networks may work in place.
        if self.identity_weight:
            fake_b, same_b = ab(torch.cat([a, b])).split([len(a), len(b)])
            fake_a, same_a, cycle_a = ba(torch.cat([b, a, fake_b])).split(
                [len(b), len(a), len(a)]
            )
            terms["identity_a"] = self.identity_weight * F.l1_loss(same_a, a)
            terms["identity_b"] = self.identity_weight * F.l1_loss(same_b, b)
        else:
            fake_b = ab(a.clone())
            fake_a, cycle_a = ba(torch.cat([b, fake_b])).split([len(b), len(a)])
        terms["cycle_a"] = self.cycle_weight * F.l1_loss(cycle_a, a)
        terms["cycle_b"] = self.cycle_weight * F.l1_loss(ab(fake_a.clone()), b)
        terms["generator_ab"] = self._fool(self.discriminator_b_, fake_b)
        terms["generator_ba"] = self._fool(self.discriminator_a_, fake_a)
        return terms, (fake_a, fake_b)

    def discriminator_terms(
        self, a: Tensor, b: Tensor, fake_a: Tensor, fake_b: Tensor
    ) -> dict[str, Tensor]:
        """Losses of the discriminators.

        Parameters
        ----------
        a, b, fake_a, fake_b : Tensor of shape (n, ...)
            Examples of both domains, true and made.

        Returns
        -------
        terms : dict of str to Tensor
            The losses.
        """
        terms = {}
        for name, module, true, false, pool in (
            ("discriminator_a", self.discriminator_a_, a, fake_a, self.pools_[0]),
            ("discriminator_b", self.discriminator_b_, b, fake_b, self.pools_[1]),
        ):
            # One call for both, which is faster; only a batch norm, which the default
            # networks do not have, sees the difference. The mean over both halves is
            # half the sum of their losses, as in the published loop.
            scores = module(torch.cat([true, pool(false)]))
            wanted = torch.zeros_like(scores)
            wanted[: len(true)] = 1
            terms[name] = self.criterion_(scores, wanted)
        return terms

    def _fool(self, discriminator: nn.Module, fake: Tensor) -> Tensor:
        scores = discriminator(fake.clone())
        return self.criterion_(scores, torch.ones_like(scores))

    def _decay(self) -> None:
        """Set the rates of learning of this step; without decay, callbacks may."""
        if self.decay_start == 1:
            return
        # Linear as published, but from step to step, so that short trainings end at
        # zero too.
        start = float(self.decay_start) * self._n_steps_
        left = max(self._n_steps_ - max(self._step_, start), 0)
        for optimizer in (self.optimizer_, self.discriminator_optimizer_):
            for group in optimizer.param_groups:
                group["lr"] = group["initial_lr"] * left / (self._n_steps_ - start)
        self._step_ += 1

    def _check(self, values: dict[str, float], batch: Tensor) -> None:
        """Add losses to the sums of the epoch, if they are numbers."""
        for name, value in values.items():
            if not math.isfinite(value):
                self._stop(f"the {name} loss became {value}")
            self._sums_[name] = self._sums_.get(name, 0.0) + len(batch) * value

    def _stop(self, fault: str) -> NoReturn:
        self.fault_ = fault
        raise StopTraining


def run(module: nn.Module, images: Tensor) -> Tensor:
    """What a network makes of images, a few at a time."""
    device = device_of(module)
    n = max(1, BATCH_NUMBERS // images[0].numel())
    with evaluating(module):
        made = [module(batch.to(device, copy=True)).cpu() for batch in images.split(n)]
    return torch.cat(made)
