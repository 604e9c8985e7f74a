"""``kd_loss`` and LocalityPreservingLoss, for the distillers and for users."""

from numbers import Integral, Real

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sklcomp.utils._messages import show


def _as_float(values: Tensor) -> Tensor:
    """In float32 at least: squares of half precision overflow."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


def kd_loss(
    student_logits: Tensor, teacher_logits: Tensor, temperature: float = 4.0
) -> Tensor:
    r"""Divergence of softened answers, after Hinton et al.

    .. math::
        \frac{T^2}{m} \sum_i \operatorname{KL}\left(
        \operatorname{softmax}(t_i / T) \,\|\, \operatorname{softmax}(s_i / T) \right)

    With the factor :math:`T^2` the gradient keeps its size when T grows.

    Parameters
    ----------
    student_logits, teacher_logits : Tensor of shape (m, n_classes)
        Scores before softmax.
    temperature : float, default=4.0
        T; 1 compares the probabilities as they are.

    Returns
    -------
    loss : Tensor, a scalar
        Zero where both answer alike.

    Raises
    ------
    ValueError
        If the temperature is not above 0.

    References
    ----------
    .. [1] G. Hinton, O. Vinyals and J. Dean, "Distilling the Knowledge in a Neural
       Network", arXiv:1503.02531.

    Examples
    --------
    >>> import torch
    >>> from sklcomp.nn import kd_loss
    >>> logits = torch.tensor([[1.0, 2.0]])
    >>> float(kd_loss(logits + 5.0, logits))
    0.0
    """
    if not temperature > 0:
        msg = f"temperature={show(temperature)}; give a number above 0."
        raise ValueError(msg)
    return temperature**2 * F.kl_div(
        F.log_softmax(student_logits / temperature, -1),
        F.log_softmax(teacher_logits / temperature, -1),
        reduction="batchmean",
        log_target=True,
    )


class LocalityPreservingLoss(nn.Module):
    r"""Neighbours of the teacher's features stay neighbours in the student's.

    .. math::
        \frac{1}{2 m d} \sum_i \sum_{j \in N(i)} e^{-\|t_i - t_j\|^2 / \sigma^2}
        \, \|s_i - s_j\|^2

    over a batch of m examples with the features t of the teacher and the d features s
    of the student, so that a weight means the same whatever their number; N(i) are the
    k examples of the batch nearest to i in the teacher's features. There is nothing to
    train between the two networks, and their widths may differ. Its least value alone
    is reached by constant features: it needs a task beside it.

    Parameters
    ----------
    n_neighbors : int, default=5
        k, at most m - 1. Batches should be about ten times as large, or neighbours are
        not near.
    sigma : float or "auto", default="auto"
        Scale of distances. "auto" takes, in every batch, the mean of the squared
        distances to the neighbours as :math:`\sigma^2`, so that the scale of the
        teacher's features does not matter. A number that is small beside the distances
        makes all weights vanish.

    Raises
    ------
    ValueError
        If ``n_neighbors`` is no integer from 1, or ``sigma`` neither "auto" nor a
        number above 0.

    References
    ----------
    .. [1] H. Chen, Y. Wang, C. Xu, C. Xu and D. Tao, "Learning Student Networks via
       Feature Embedding", arXiv:1812.06597.

    Examples
    --------
    >>> import torch
    >>> from sklcomp.nn import LocalityPreservingLoss
    >>> loss = LocalityPreservingLoss(n_neighbors=1)
    >>> teacher = torch.tensor([[0.0], [1.0], [5.0], [6.0]])
    >>> near, far = torch.tensor([[0.0, 0, 1, 1], [0.0, 1, 0, 1]]).unsqueeze(-1)
    >>> float(loss(near, teacher))
    0.0
    >>> round(float(loss(far, teacher)), 4)
    0.1839
    """

    def __init__(self, n_neighbors: int = 5, sigma: float | str = "auto"):
        super().__init__()
        if not (isinstance(n_neighbors, (int, Integral)) and n_neighbors >= 1):
            msg = f"n_neighbors={show(n_neighbors)}; give an integer from 1."
            raise ValueError(msg)
        if sigma != "auto" and not (isinstance(sigma, Real) and sigma > 0):
            msg = f'sigma={show(sigma)}; give a number above 0, or "auto".'
            raise ValueError(msg)
        self.n_neighbors = n_neighbors
        self.sigma = sigma

    def forward(self, student_features: Tensor, teacher_features: Tensor) -> Tensor:
        """Loss of a batch.

        Parameters
        ----------
        student_features : Tensor of shape (m, ...)
            Flattened from the second axis on. Gradients go here.
        teacher_features : Tensor of shape (m, ...)
            Flattened likewise; no gradients.

        Returns
        -------
        loss : Tensor, a scalar
            Zero for fewer than two examples.

        Raises
        ------
        ValueError
            If the two batches have different lengths.
        """
        if len(student_features) != len(teacher_features):
            msg = (
                f"{len(student_features)} rows of student features and "
                f"{len(teacher_features)} of teacher features: give the same batch."
            )
            raise ValueError(msg)
        student = _as_float(student_features.flatten(1))
        neighbors, weights = self.weigh_neighbors(teacher_features)
        steps = student.unsqueeze(1) - student[neighbors]
        squares = steps.square().sum(-1)
        return (weights.to(squares) * squares).sum() / (2 * max(student.numel(), 1))

    @torch.no_grad()
    def weigh_neighbors(self, teacher_features: Tensor) -> tuple[Tensor, Tensor]:
        """Neighbours of every example of a batch, and their weights.

        Parameters
        ----------
        teacher_features : Tensor of shape (m, ...)
            Flattened from the second axis on.

        Returns
        -------
        neighbors : Tensor of int64 of shape (m, k)
            Rows of the batch, nearest first.
        weights : Tensor of shape (m, k)
            In [0, 1].
        """
        teacher = _as_float(teacher_features.flatten(1))
        m = len(teacher)
        # Distances do not change, but fewer digits are lost below.
        teacher = teacher - teacher.mean(0)
        norms = teacher.square().sum(1)
        squares = norms[:, None] + norms - 2 * teacher @ teacher.T
        squares = squares.clamp_min_(0).fill_diagonal_(torch.inf)
        k = max(min(self.n_neighbors, m - 1), 0)
        nearest, neighbors = squares.topk(k, largest=False)
        if isinstance(self.sigma, str):
            scale = nearest.mean() if k else torch.ones(())
        else:
            scale = nearest.new_tensor(float(self.sigma)).square()
        # All features equal, so scale 0: every neighbour counts fully.
        weights = torch.exp(-nearest / scale.clamp_min(torch.finfo(nearest.dtype).tiny))
        return neighbors, weights
