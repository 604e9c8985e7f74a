"""Closed-form repair of layers that lose inputs, and the order in which to lose them.

Both need the covariances of the layers' inputs in the unpruned network, and no labels.
"""

import copy
import warnings
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from operator import attrgetter
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from sklcomp.nn._graph import ChannelGraph
from sklcomp.nn._modes import has_training_mode, held
from sklcomp.nn._running import copied, device_of, run
from sklcomp.nn._tracing import CONVOLUTIONS, TRANSPOSED
from sklcomp.utils._validation import refuse_masked

# Ridge in units of the mean variance.
RIDGE = 1e-3
# Patches that a covariance is taken of: at least so many, and so many per dimension.
MIN_PATCHES, PATCHES_PER_DIM = 20_000, 20
# Bytes of the repairs that are remembered.
MAX_BYTES = 2**28
KINDS = (nn.Linear, *CONVOLUTIONS, *TRANSPOSED)


@dataclass(frozen=True)
class InputMoments:
    """Mean and covariance of what a layer reads.

    Of patches, in the order of the flattened kernel, or of single pixels
    (``is_pooled``), which all positions of the kernel then share.
    """

    mean: Tensor
    covariance: Tensor
    is_pooled: bool


@dataclass(frozen=True)
class InputCovariances:
    """Means and covariances of the inputs of layers, from ``collect_covariances``.

    Attributes
    ----------
    moments : dict of str to InputMoments
        Weight -> float64 moments on the CPU.
    """

    moments: dict[str, InputMoments]


# What layers with moments call.
READS = (
    "linear", "conv1d", "conv2d", "conv3d",
    "conv_transpose1d", "conv_transpose2d", "conv_transpose3d",
)  # fmt: skip


class _Listener(TorchFunctionMode):
    """Hand what the functions of some weights read to the moments of these.

    At the function, not at the layer: a layer may turn or pad what it is given, be
    called by keyword, or not be called at all where another uses its weight.
    """

    def __init__(self, found: dict[int, "_Moments"]):
        super().__init__()
        self.found = found
        self.share = 0.0

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if getattr(func, "__name__", "") in READS:
            self._read(*args, **kwargs)
        return func(*args, **kwargs)

    def _read(
        self, input: Tensor, weight: Tensor, bias: Any = None, *args: Any, **kwargs: Any
    ) -> None:
        if id(weight) in self.found:
            self.found[id(weight)].add(input, self.share, *args, **kwargs)


class _Moments:
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
        self, inputs: Tensor, wanted: float, stride: Any = 1, padding: Any = 0,
        dilation: Any = 1, *args: Any, **kwargs: Any,
    ) -> Tensor:  # fmt: skip
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


@refuse_masked
def collect_covariances(
    module: nn.Module,
    graph: ChannelGraph,
    X: Any,
    *,
    batch_size: int = 128,
    max_dims: int = 1500,
    random_state: int = 0,
) -> InputCovariances:
    """Means and covariances of the inputs of all layers that could lose some.

    Parameters
    ----------
    module : nn.Module
        The unpruned network; it runs in evaluation mode and is left as it was.
    graph : ChannelGraph
        Its graph.
    X : Tensor, or tuple of Tensor
        Examples, along the first axis; no labels. Some hundreds are enough for
        convolutions, whose patches are many.
    batch_size : int, default=128
        Examples in one forward.
    max_dims : int, default=1500
        Layers with larger patches use the covariance of single pixels, for all
        positions of the kernel: less exact, far cheaper. Transposed convolutions
        always do.
    random_state : int, default=0
        Seed of the choice of pixels; patches are not all used where there are many.

    Returns
    -------
    covariances : InputCovariances
        To be handed to :func:`prune_channels` and :func:`elimination_order`.

    Examples
    --------
    >>> import torch
    >>> from sklcomp.nn import collect_covariances, trace_channels
    >>> net = torch.nn.Sequential(torch.nn.Linear(3, 8), torch.nn.Linear(8, 2))
    >>> X = torch.randn(100, 3)
    >>> found = collect_covariances(net, trace_channels(net, X), X)
    >>> found.moments["1.weight"].covariance.shape
    torch.Size([8, 8])
    """
    columns = X if isinstance(X, (tuple, list)) else (X,)
    device = device_of(module)
    columns = [torch.as_tensor(column) for column in columns]
    n = len(columns[0])
    if not n:
        msg = "X holds 0 examples; covariances need some, at least a few hundred."
        raise ValueError(msg)
    sums = {
        weight: _Moments(module.get_submodule(path), max_dims, random_state)
        for weight, path in find_readers(module, graph).items()
    }
    listener = _Listener({id(s.weight): s for s in sums.values()})

    def listen(module: nn.Module, training: bool) -> None:
        with held(module, training):
            for start in range(0, n, batch_size):
                rows = slice(start, start + batch_size)
                batch = tuple(column[rows].to(device) for column in columns)
                listener.share = len(batch[0]) / n
                with listener:
                    run(module, copied(batch))

    listen(module, training=False)
    if not all(s.n for s in sums.values()) and has_training_mode(module):
        # Heads that run in training only, of a copy, whose parameters that may change.
        twin = copy.deepcopy(module)
        left = {w: s for w, s in sums.items() if not s.n}
        listener.found = {id(attrgetter(w)(twin)): s for w, s in left.items()}
        with suppress(Exception):  # it may need targets
            listen(twin, training=True)
    unseen = [weight for weight, moments in sums.items() if not moments.n]
    if unseen:
        msg = (
            f"X does not reach {', '.join(unseen)}, so nothing repairs them where "
            "their inputs are removed; hand over examples that do."
        )
        warnings.warn(msg, UserWarning, stacklevel=2)
    return InputCovariances({w: s.finish() for w, s in sums.items() if s.n})


def find_readers(module: nn.Module, graph: ChannelGraph) -> dict[str, str]:
    """Weights with inputs that can be lost, each read by one known kind of module."""
    return {
        weight: paths[0]
        for (weight, axis), paths in graph.consumers.items()
        if len(paths) == 1
        and isinstance(module.get_submodule(paths[0]), KINDS)
        and f"{paths[0]}.weight".lstrip(".") == weight
        and input_genes(graph, weight, axis) is not None
    }


def input_genes(graph: ChannelGraph, weight: str, axis: int) -> np.ndarray | None:
    """Gene of every input of a weight along an axis; None if none can be lost."""
    genes = graph.slots.get(weight, (None, None))[axis]
    return genes if genes is not None and (genes >= 0).any() else None


def as_rows(layer: Any, weight: Tensor, is_pooled: bool) -> Tensor:
    """A weight as a float64 matrix whose columns are the inputs of the moments."""
    weight = weight.detach().double().cpu()
    if isinstance(layer, TRANSPOSED):
        return weight.movedim(0, -1).reshape(-1, weight.shape[0])
    if is_pooled:
        return weight.movedim(1, -1).reshape(-1, weight.shape[1])
    return weight.reshape(len(weight), -1)


def _from_rows(layer: Any, rows: Tensor, like: Tensor, is_pooled: bool) -> Tensor:
    """Inverse of as_rows, for the shape of ``like``."""
    if isinstance(layer, TRANSPOSED):
        shape = (*like.shape[1:], like.shape[0])
        return rows.reshape(shape).movedim(-1, 0)
    if is_pooled:
        return rows.reshape(len(like), *like.shape[2:], like.shape[1]).movedim(-1, 1)
    return rows.reshape(like.shape)


Repair = tuple[Tensor, Tensor | None]


class Repairs:
    """Repairs by layer and inputs left, for many cuts of a module that does not change.

    Nothing of it is pickled.
    """

    def __init__(self) -> None:
        self._found: dict[tuple[str, bytes], Repair] = {}
        self._n_bytes = 0

    def __call__(
        self, weight: str, alive: np.ndarray, compute: Callable[[], Repair]
    ) -> Repair:
        key = weight, np.packbits(alive).tobytes()
        if (found := self._found.get(key)) is not None:
            return found
        repair = compute()
        if self._n_bytes < MAX_BYTES:
            self._found[key] = repair
            self._n_bytes += repair[0].nbytes
        return repair

    def __reduce__(self) -> tuple:
        return Repairs, ()


def compensate_layers(
    pruned: nn.Module,
    module: nn.Module,
    graph: ChannelGraph,
    keep: np.ndarray,
    covariances: InputCovariances,
    repairs: Repairs,
) -> None:
    """Repair in place the layers of a pruned network that read removed channels."""
    alive = np.append(keep, True)
    axes = dict(graph.consumers.keys())
    for weight, path in find_readers(module, graph).items():
        moments = covariances.moments.get(weight)
        genes = input_genes(graph, weight, axes[weight])
        if moments is None or genes is None or alive[genes].all():
            continue
        layer: Any = module.get_submodule(path)
        small: Any = pruned.get_submodule(path)
        bias, mean = graph.biases.get(weight), graph.shifts.get(weight)
        left = alive[genes]
        has_shift = bool(bias or mean)
        new, shift = repairs(
            weight, left, partial(_repaired, layer, moments, left, has_shift)
        )
        outputs = graph.slots[weight][1 - axes[weight]]
        if outputs is not None:
            made = torch.from_numpy(np.flatnonzero(alive[outputs]))
            new = new.index_select(1 - axes[weight], made)
            shift = None if shift is None else shift[made]
        with torch.no_grad():
            small.weight.copy_(new)
        if shift is None:
            continue
        with torch.no_grad():
            if bias:
                tensor = attrgetter(bias)(pruned)
                tensor += shift.to(tensor)
            else:
                tensor = attrgetter(str(mean))(pruned)
                tensor -= shift.to(tensor)


def _repaired(
    layer: Any, moments: InputMoments, alive: np.ndarray, has_shift: bool
) -> Repair:
    """Weight of the inputs left, for all outputs, and the shift of these."""
    # The taps of a transposed convolution differ from pixel to pixel: no one shift of
    # a channel is right, so its taps predict through zero.
    is_transposed = isinstance(layer, TRANSPOSED)
    is_centred = has_shift and not is_transposed
    weight = layer.weight.detach()
    rows, shift = _repair(
        as_rows(layer, weight, moments.is_pooled), moments, alive, is_centred
    )
    sizes = list(weight.shape)
    sizes[0 if is_transposed else 1] = int(alive.sum())
    new = _from_rows(layer, rows, torch.empty(sizes), moments.is_pooled)
    new = new.to(weight.dtype)
    return new, shift.reshape(len(weight), -1).sum(1) if is_centred else None


def _repair(
    rows: Tensor, moments: InputMoments, alive: np.ndarray, is_centred: bool
) -> tuple[Tensor, Tensor]:
    """Weights of the kept inputs and the shift of every row, by least squares."""
    left, gone = _columns(alive, moments)
    second = moments.covariance
    if not is_centred:
        second = second + torch.outer(moments.mean, moments.mean)
    ridge = RIDGE * second.diagonal().mean().clamp_min(torch.finfo(torch.float64).tiny)
    half = second.index_select(0, left)
    kept = half.index_select(1, left)
    kept.diagonal().add_(ridge)
    lost = half.index_select(1, gone) @ rows.index_select(1, gone).T
    moved = torch.cholesky_solve(lost, torch.linalg.cholesky(kept)).T
    new = rows.index_select(1, left) + moved
    return new, rows @ moments.mean - new @ moments.mean[left]


def _columns(alive: np.ndarray, moments: InputMoments) -> tuple[Tensor, Tensor]:
    """Columns of the moments that stay and that go."""
    each = np.repeat(alive, len(moments.mean) // len(alive))
    return torch.from_numpy(np.flatnonzero(each)), torch.from_numpy(
        np.flatnonzero(~each)
    )
