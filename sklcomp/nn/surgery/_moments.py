"""Means and covariances of the inputs of layers, summed up batch by batch.

The repair and the surgeon's order read them.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from sklcomp.nn.surgery._tracing import TRANSPOSED

# Patches that a covariance is taken of: at least so many, and so many per dimension.
MIN_PATCHES, PATCHES_PER_DIM = 20_000, 20


@dataclass(frozen=True)
class InputMoments:
    """Mean and covariance of what a layer reads.

    Of patches, in the order of the flattened kernel, or of single pixels
    (``is_pooled``), which all positions of the kernel then share.

    A Linear may read every channel at many positions. With ``columns`` the covariance
    is that of channels at one position, shared by all; the mean is that of the inputs
    as they are.
    """

    mean: Tensor
    covariance: Tensor
    is_pooled: bool
    # (n_positions, n_channels), as of columns_of.
    columns: np.ndarray | None = None

    def by_dimension(self, values: np.ndarray) -> np.ndarray:
        """Value of every dimension of the covariance, from that of every input."""
        if self.columns is not None:
            return values[self.columns[0]]
        return np.repeat(values, len(self.mean) // len(values))

    def about_zero(self) -> Tensor:
        """Second moments: what is left of the covariance without centring."""
        if self.columns is None:
            return self.covariance + torch.outer(self.mean, self.mean)
        mean = at_positions(self.mean[None], self.columns)[0]
        square = mean.T @ mean / len(mean)
        return self.covariance + square * alike(self.columns, len(self.mean))


def sums_of(layer: Any, genes: Any, max_dims: int, seed: int) -> Any:
    """What sums up the moments of a layer, whose inputs have these genes."""
    if layer.weight.ndim == 2 and layer.weight.shape[1] > max_dims:
        columns = columns_of(genes)
        if len(columns) > 1:
            return ChannelMoments(columns)
    return PatchMoments(layer, max_dims, seed)


def columns_of(genes: np.ndarray) -> np.ndarray:
    """Inputs at which every gene is met first, second and so on: a column for each.

    One that is met less often has the number of inputs at the end.
    """
    order = np.argsort(genes, kind="stable")[(genes < 0).sum() :]
    _, counts = np.unique_counts(genes[order])
    first = np.repeat(counts.cumsum() - counts, counts)
    columns = np.full((counts.max(), len(counts)), len(genes))
    channel = np.repeat(np.arange(len(counts)), counts)
    columns[np.arange(len(order)) - first, channel] = order
    return columns


def at_positions(rows: Tensor, columns: np.ndarray) -> Tensor:
    """Inputs (n, n_inputs) as (n, n_positions, n_channels); 0 where there is none."""
    at = torch.from_numpy(columns.ravel()).to(rows.device)
    if columns.max(initial=0) == rows.shape[1]:
        rows = F.pad(rows, (0, 1))
    return rows.index_select(1, at).reshape(len(rows), *columns.shape)


def alike(columns: np.ndarray, n_inputs: int) -> Tensor:
    """Pairs of channels that have equally many positions: others share none."""
    n_positions = torch.from_numpy((columns < n_inputs).sum(0))
    return (n_positions[:, None] == n_positions).double()


class ChannelMoments:
    """Sums of products of channels over all positions, each centred by itself."""

    def __init__(self, columns: np.ndarray):
        self.columns = columns
        self.n = 0
        self.origin = self.total = self.products = torch.empty(0)

    def add(self, inputs: Tensor, *args: Any, **kwargs: Any) -> None:
        """Take in a batch."""
        rows = inputs.reshape(-1, inputs.shape[-1]).to(torch.float32)
        if not self.n:
            n_channels = self.columns.shape[1]
            self.origin = rows.mean(0)
            self.total = torch.zeros(rows.shape[1], dtype=torch.float64)
            self.products = torch.zeros(n_channels, n_channels, dtype=torch.float64)
        rows = rows - self.origin
        self.n += len(rows)
        self.total += rows.sum(0).double().cpu()
        rows = at_positions(rows, self.columns).flatten(0, 1)
        self.products += (rows.T @ rows).double().cpu()

    def finish(self) -> InputMoments:
        shift = self.total / self.n
        means = at_positions(shift[None], self.columns)[0]
        covariance = (self.products / self.n - means.T @ means) / len(means)
        return InputMoments(
            self.origin.double().cpu() + shift,
            covariance * alike(self.columns, len(shift)),
            True,
            self.columns,
        )


class PatchMoments:
    """Sums of patches and of their products about the mean of the first batch."""

    def __init__(self, layer: Any, max_dims: int, seed: int):
        self.weight = layer.weight
        shape = self.weight.shape
        is_transposed = isinstance(layer, TRANSPOSED)
        self.kernel = tuple(shape[2:])
        n_channels = shape[0 if is_transposed else 1]
        n_dims = n_channels * int(np.prod(self.kernel))
        self.is_pooled = is_transposed or n_dims > max_dims
        self.n_dims = n_channels if self.is_pooled else n_dims
        self.rng = np.random.default_rng(seed)
        self.n = 0
        # Products in single precision about 0 would lose a variance that is small
        # beside the mean.
        self.origin = self.total = self.products = torch.empty(0)

    def add(self, inputs: Tensor, share: float, *args: Any, **kwargs: Any) -> None:
        """Take in a batch that is this share of all examples, and how it is read."""
        wanted = share * max(MIN_PATCHES, PATCHES_PER_DIM * self.n_dims)
        rows = self._rows(inputs, wanted, *args, **kwargs).to(torch.float32)
        if not self.n:
            self.origin = rows.mean(0)
            self.total = torch.zeros(self.n_dims, dtype=torch.float64)
            self.products = torch.zeros(self.n_dims, self.n_dims, dtype=torch.float64)
        rows = rows - self.origin
        self.n += len(rows)
        self.total += rows.sum(0).double().cpu()
        self.products += (rows.T @ rows).double().cpu()

    def finish(self) -> InputMoments:
        shift = self.total / self.n
        covariance = self.products / self.n - torch.outer(shift, shift)
        return InputMoments(
            self.origin.double().cpu() + shift, covariance, self.is_pooled
        )

    def _rows(
        self,
        inputs: Tensor,
        wanted: float,
        stride: Any = 1,
        padding: Any = 0,
        dilation: Any = 1,
        *args: Any,
        **kwargs: Any,
    ) -> Tensor:
        if not self.kernel:
            return inputs.reshape(-1, inputs.shape[-1])
        if inputs.ndim == len(self.kernel) + 1:
            inputs = inputs[None]
        if self.is_pooled:
            return self._pixels(inputs, wanted)
        n = len(self.kernel)
        stride, dilation = np.broadcast_to(stride, n), np.broadcast_to(dilation, n)
        inputs = F.pad(inputs, self._ends(padding, dilation))
        return self._patches(inputs, wanted, stride.tolist(), dilation.tolist())

    def _ends(self, padding: Any, dilation: np.ndarray) -> list[int]:
        """Zeros before and after the pixels, of the last axis first."""
        both = dilation * (np.array(self.kernel) - 1)
        if padding == "same":
            # As torch pads: the odd one comes behind.
            before, after = both // 2, both - both // 2
        else:
            before = after = np.broadcast_to(
                0 if padding == "valid" else padding, both.shape
            )
        return np.stack([before, after], 1)[::-1].ravel().tolist()

    def _chosen(self, sizes: Any, n_images: int, wanted: float) -> list[Any]:
        """Positions in an image, the same for all images of the batch."""
        n = int(np.prod(sizes))
        n_wanted = min(n, int(np.ceil(wanted / n_images)))
        flat = self.rng.permutation(n)[:n_wanted]
        return [torch.from_numpy(index) for index in np.unravel_index(flat, sizes)]

    def _pixels(self, inputs: Tensor, wanted: float) -> Tensor:
        at = self._chosen(inputs.shape[2:], len(inputs), wanted)
        index = (slice(None), slice(None), *at)
        return inputs[index].movedim(1, -1).flatten(0, 1)

    def _patches(
        self, inputs: Tensor, wanted: float, stride: list[int], dilation: list[int]
    ) -> Tensor:
        n_axes = len(self.kernel)
        sizes = [
            (n - d * (k - 1) - 1) // s + 1
            for n, k, s, d in zip(
                inputs.shape[2:], self.kernel, stride, dilation, strict=True
            )
        ]
        at = self._chosen(sizes, len(inputs), wanted)
        index: list[Any] = [slice(None), slice(None)]
        for axis in range(n_axes):
            offsets = torch.arange(self.kernel[axis]) * dilation[axis]
            places = at[axis][:, None] * stride[axis] + offsets
            shape = [1] * (n_axes + 1)
            shape[0], shape[axis + 1] = places.shape
            index.append(places.reshape(shape))
        # (image, channel, place, *kernel) -> (image x place, channel x kernel)
        return inputs[tuple(index)].movedim(2, 1).flatten(2).flatten(0, 1)
