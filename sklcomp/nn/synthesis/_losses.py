"""Losses of learning without data: what the teacher says about made-up images.

The generator of ``DataFreeDistiller`` minimises them; users may call them too.
"""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from sklcomp.nn._running import BatchNorm, tensors_in


def onehot_loss(logits: Tensor) -> Tensor:
    r"""Cross entropy of the teacher's answers to its own first choices.

    .. math::
        -\frac{1}{m} \sum_i \log \max_j \operatorname{softmax}(o_i)_j

    Images of the kind that a network has learned from get a clear answer.

    Parameters
    ----------
    logits : Tensor of shape (m, n_classes)
        Scores o of the teacher. No gradient goes through the choice.

    Returns
    -------
    loss : Tensor, a scalar
        Between 0, for certain answers, and log n_classes.

    References
    ----------
    .. [1] H. Chen, Y. Wang, C. Xu et al., "Data-Free Learning of Student Networks",
       arXiv:1904.01186.

    Examples
    --------
    >>> import torch
    >>> from sklcomp.nn import onehot_loss
    >>> round(float(onehot_loss(torch.zeros(3, 2))), 4)
    0.6931
    """
    return F.cross_entropy(logits, logits.argmax(1))


def activation_loss(features: Tensor) -> Tensor:
    r"""Minus the mean absolute value of the teacher's features.

    .. math::
        -\frac{1}{m d} \sum_i \sum_j |f_{ij}|

    Images of the kind that a network has learned from excite it. This is the form of
    the authors' code, to which their weights belong; their paper sums over the d
    features instead of taking the mean.

    Parameters
    ----------
    features : Tensor of shape (m, ...)
        What enters the last layer of the teacher.

    Returns
    -------
    loss : Tensor, a scalar
        At most 0, without a least value.

    References
    ----------
    .. [1] H. Chen, Y. Wang, C. Xu et al., "Data-Free Learning of Student Networks",
       arXiv:1904.01186.

    Examples
    --------
    >>> import torch
    >>> from sklcomp.nn import activation_loss
    >>> float(activation_loss(torch.tensor([[1.0, -3.0]])))
    -2.0
    """
    return -features.abs().mean()


def entropy_loss(logits: Tensor) -> Tensor:
    r"""Minus the entropy, to base 10, of the classes of a batch.

    .. math::
        \sum_j p_j \log_{10} p_j, \quad
        p = \frac{1}{m} \sum_i \operatorname{softmax}(o_i)

    It is least where all classes are equally frequent, so a batch should hold several
    images of each. Base 10 and the missing mean over classes are those of the authors'
    code, to which their weights belong.

    Parameters
    ----------
    logits : Tensor of shape (m, n_classes)
        Scores o of the teacher.

    Returns
    -------
    loss : Tensor, a scalar
        Between -log10(n_classes) and 0, where all images are of one class.

    References
    ----------
    .. [1] H. Chen, Y. Wang, C. Xu et al., "Data-Free Learning of Student Networks",
       arXiv:1904.01186.

    Examples
    --------
    >>> import torch
    >>> from sklcomp.nn import entropy_loss
    >>> round(float(entropy_loss(torch.zeros(3, 10))), 4)
    -1.0
    """
    # From logarithms, as p log p of a class that underflows has no gradient.
    log_p = F.log_softmax(logits, 1).logsumexp(0) - math.log(len(logits))
    return (log_p.exp() * log_p).sum() / math.log(10)


def adversarial_loss(
    student_logits: Tensor, teacher_logits: Tensor, limit: float = 20.0
) -> Tensor:
    r"""Minus the distance of student and teacher: images that the student gets wrong.

    .. math::
        -\min\left(\frac{1}{m k} \sum_i \sum_j |s_{ij} - \bar s_i - t_{ij} + \bar t_i|,
        \, \text{limit} \right)

    with the means over the k classes taken away, as softmax does not see them.

    Parameters
    ----------
    student_logits, teacher_logits : Tensor of shape (m, n_classes)
        Scores s and t. Gradients go to both, as the images depend on both.
    limit : float, default=20.0
        At a greater distance there is no gradient.

    Returns
    -------
    loss : Tensor, a scalar
        Between -limit and 0, where both answer alike.

    References
    ----------
    .. [1] G. Fang, J. Song, C. Shen, X. Wang, D. Chen and M. Song, "Data-Free
       Adversarial Distillation", arXiv:1912.11006.

    Examples
    --------
    >>> import torch
    >>> from sklcomp.nn import adversarial_loss
    >>> float(adversarial_loss(torch.tensor([[0.0, 2.0]]), torch.tensor([[5.0, 3.0]])))
    -2.0
    """
    difference = student_logits - teacher_logits
    centred = difference - difference.mean(1, keepdim=True)
    return -centred.abs().mean().clamp(max=limit)


def feature_loss(student_features: Tensor, teacher_features: Tensor) -> Tensor:
    r"""Images that are alike to the teacher are alike to the student.

    .. math::
        \frac{1}{m} \sum_i \left\| \frac{g^S_i}{\|g^S_i\|} -
        \frac{g^T_i}{\|g^T_i\|} \right\|^2

    with the rows g of the Gram matrices :math:`F F^T` of both networks' features F.
    The widths may differ, and there is nothing to train between the two networks. The
    paper divides by :math:`m^2`; this is m times as much, so that a weight means the
    same for all sizes of batches.

    Parameters
    ----------
    student_features : Tensor of shape (m, ...)
        Flattened from the second axis on. Gradients go here.
    teacher_features : Tensor of shape (m, ...)
        Flattened likewise; no gradients.

    Returns
    -------
    loss : Tensor, a scalar
        Between 0 and 4; at most 2 for features that are not negative.

    Raises
    ------
    ValueError
        If the two batches have different lengths.

    References
    ----------
    .. [1] F. Tung and G. Mori, "Similarity-Preserving Knowledge Distillation",
       arXiv:1907.09682.

    Examples
    --------
    >>> import torch
    >>> from sklcomp.nn import feature_loss
    >>> teacher = torch.eye(2)
    >>> float(feature_loss(torch.tensor([[3.0, 0, 0], [0, 0, 3.0]]), teacher))
    0.0
    >>> round(float(feature_loss(torch.ones(2, 1), teacher)), 4)
    0.5858
    """
    if len(student_features) != len(teacher_features):
        msg = (
            f"{len(student_features)} rows of student features and "
            f"{len(teacher_features)} of teacher features: give the same batch."
        )
        raise ValueError(msg)
    difference = _gram_rows(student_features) - _gram_rows(teacher_features.detach())
    return difference.square().sum(1).mean()


def _gram_rows(features: Tensor) -> Tensor:
    rows = features.flatten(1)
    return F.normalize(rows @ rows.T, dim=1)


class BatchNormStatistics:
    r"""How far a batch is from what a network's batch norms remember.

    .. math::
        \sum_l \|\mu_l - \hat\mu_l\|_2 + \|\sigma^2_l - \hat\sigma^2_l\|_2

    over the batch norms l, with the mean and variance of each channel of what enters
    it, and with hats those that it has kept from training. Variances are unbiased, as
    torch keeps those. Use it as a context, with the network in evaluation mode; it adds
    hooks on entry and removes them on exit.

    Parameters
    ----------
    module : nn.Module
        A network; only batch norms with running statistics count.

    Attributes
    ----------
    n_layers : int
        Number of such batch norms.
    n_passed : int
        How many of them the latest forward has passed.

    References
    ----------
    .. [1] H. Yin, P. Molchanov, Z. Li et al., "Dreaming to Distill: Data-free Knowledge
       Transfer via DeepInversion", arXiv:1912.08795.

    Examples
    --------
    >>> import torch
    >>> from torch import nn
    >>> from sklcomp.nn import BatchNormStatistics
    >>> teacher = nn.Sequential(nn.BatchNorm1d(2)).eval()
    >>> with BatchNormStatistics(teacher) as statistics:
    ...     _ = teacher(torch.tensor([[1.0, 2.0], [5.0, 6.0]]))
    ...     print(f"{statistics.loss():.4f}")
    14.8995
    """

    def __init__(self, module: nn.Module):
        self._layers = [
            part
            for part in module.modules()
            if isinstance(part, BatchNorm) and part.running_mean is not None
        ]
        self._module = module
        self._distances: dict[nn.Module, Tensor] = {}
        self._handles: list[RemovableHandle] = []

    @property
    def n_layers(self) -> int:
        return len(self._layers)

    @property
    def n_passed(self) -> int:
        """How many norms the latest forward has passed."""
        return len(self._distances)

    def __enter__(self) -> "BatchNormStatistics":
        self._distances.clear()
        self._handles = [
            part.register_forward_pre_hook(hook, with_kwargs=True)
            for part, hook in [(self._module, self._forget)]
            + [(part, self._record) for part in self._layers]
        ]
        return self

    def __exit__(self, *error: object) -> None:
        for handle in self._handles:
            handle.remove()

    def loss(self) -> Tensor:
        """The sum over all batch norms that the latest forward has passed.

        Returns
        -------
        loss : Tensor, a scalar
            With gradients to the input of the network. Zero without batch norms.

        Raises
        ------
        RuntimeError
            If there are batch norms, but none has run within the context.
        """
        if self._layers and not self._distances:
            msg = "no batch norm has run: call the network inside the with block first."
            raise RuntimeError(msg)
        return sum(self._distances.values(), start=torch.zeros(()))

    def _forget(self, part: nn.Module, inputs: tuple, named: dict) -> None:
        self._distances.clear()

    def _record(self, part: Any, inputs: tuple, named: dict) -> None:
        (x,) = tensors_in([inputs, named])
        axes = [0, *range(2, x.ndim)]
        # torch.var_mean takes twice as long.
        mean = x.mean(axes, keepdim=True)
        n_values = x.numel() // x.shape[1]
        variance = (x - mean).square().sum(axes) / max(n_values - 1, 1)
        self._distances[part] = torch.linalg.vector_norm(
            mean.flatten() - part.running_mean
        ) + torch.linalg.vector_norm(variance - part.running_var)
