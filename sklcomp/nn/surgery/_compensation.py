"""Closed-form repair of layers that lose inputs, and the covariances that it needs.

``prune_channels`` and the pruners call it. The covariances are those of the layers'
inputs in the unpruned network; they need no labels, and the surgeon's order of the
channels is computed from them too.
"""

import copy
from collections import Counter
from collections.abc import Callable, Iterator
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

from sklcomp.nn._forms import eagerly
from sklcomp.nn._running import copied, device_of, run
from sklcomp.nn.surgery._graph import ChannelGraph
from sklcomp.nn.surgery._modes import has_training_mode, held
from sklcomp.nn.surgery._moments import InputMoments, at_positions, sums_of
from sklcomp.nn.surgery._tracing import CONVOLUTIONS, TRANSPOSED
from sklcomp.utils._messages import warn_user
from sklcomp.utils._validation import refuse_masked

# Ridge in units of the mean variance.
RIDGE = 1e-3
# Bytes of the repairs that are remembered.
MAX_BYTES = 2**28
# Numbers of a wide weight that are worked on at once.
MAX_NUMBERS = 2**23
KINDS = (nn.Linear, *CONVOLUTIONS, *TRANSPOSED)


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

    def __init__(self, found: dict[int, Any]):
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
        always do. A Linear of more inputs, behind a flatten, shares the covariance
        of its channels over their positions likewise.
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
    columns, device = _columns_of(X), device_of(module)
    n = len(columns[0])
    axes = dict(graph.consumers.keys())
    sums = {
        weight: sums_of(
            module.get_submodule(path),
            input_genes(graph, weight, axes[weight]),
            max_dims,
            random_state,
        )
        for weight, path in find_readers(module, graph).items()
    }
    listener = _Listener({id(attrgetter(w)(module)): s for w, s in sums.items()})

    def listen(module: nn.Module, training: bool) -> None:
        with held(module, training):
            for start in range(0, n, batch_size):
                rows = slice(start, start + batch_size)
                batch = tuple(column[rows].to(device) for column in columns)
                listener.share = len(batch[0]) / n
                with listener:
                    run(module, copied(batch))

    with eagerly():
        listen(module, training=False)
    if not all(s.n for s in sums.values()) and has_training_mode(module):
        # Heads that run in training only, of a copy, whose parameters that may change.
        with torch.no_grad():
            twin = copy.deepcopy(module)
        left = {w: s for w, s in sums.items() if not s.n}
        listener.found = {id(attrgetter(w)(twin)): s for w, s in left.items()}
        with eagerly(), suppress(Exception):  # it may need targets
            listen(twin, training=True)
    unseen = [weight for weight, moments in sums.items() if not moments.n]
    if unseen:
        msg = (
            f"X does not reach {', '.join(unseen)}, so nothing repairs them where "
            "their inputs are removed; hand over examples that do."
        )
        warn_user(msg, UserWarning)
    return InputCovariances({w: s.finish() for w, s in sums.items() if s.n})


def _columns_of(X: Any) -> list[Tensor]:
    """The arguments of a forward on some examples."""
    columns = X if isinstance(X, (tuple, list)) else (X,)
    columns = [torch.as_tensor(column) for column in columns]
    if not len(columns[0]):
        msg = "X holds 0 examples; covariances need some, at least a few hundred."
        raise ValueError(msg)
    return columns


def find_readers(module: nn.Module, graph: ChannelGraph) -> dict[str, str]:
    """Weights with inputs that can be lost, each read by one known kind of module."""
    # A weight that is used the other way round too has inputs of two kinds, and no one
    # repair is right for both.
    n_axes = Counter(weight for weight, _ in graph.consumers)
    return {
        weight: paths[0]
        for (weight, axis), paths in graph.consumers.items()
        if len(paths) == n_axes[weight] == 1
        and _reads(module.get_submodule(paths[0]), axis)
        and f"{paths[0]}.weight".lstrip(".") == weight
        and input_genes(graph, weight, axis) is not None
    }


def _reads(layer: nn.Module, axis: int) -> bool:
    """Whether a layer is of a kind that sums along this axis of its weight."""
    return isinstance(layer, KINDS) and axis == (not isinstance(layer, TRANSPOSED))


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
        # Candidates of a search agree in most of their layers.
        self._found: dict[tuple[str, bytes], Repair] = {}
        self._n_bytes = 0

    def __call__(
        self, weight: str, alive: np.ndarray, compute: Callable[[], Repair]
    ) -> Repair:
        key = weight, np.packbits(alive).tobytes()
        if (found := self._found.get(key)) is not None:
            return found
        repair = compute()
        if self._n_bytes + repair[0].nbytes <= MAX_BYTES:
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
                # Without a bias, in the mean that the norm behind takes off.
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
    if moments.columns is not None:
        new, shift = _repair_positions(weight, moments, alive, is_centred)
        return new, shift if is_centred else None
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
    left, gone, factor, cross = _system(moments, alive, is_centred)
    lost = cross @ rows.index_select(1, gone).T
    # The ridge keeps small what is moved, not the weights: where nothing is lost
    # nothing changes. To shrink the weights left an error of .0107 on a toy, this
    # .0068.
    moved = torch.cholesky_solve(lost, factor).T
    new = rows.index_select(1, left) + moved
    return new, rows @ moments.mean - new @ moments.mean[left]


def _repair_positions(
    weight: Tensor, moments: InputMoments, alive: np.ndarray, is_centred: bool
) -> tuple[Tensor, Tensor]:
    """The same of a Linear that reads channels at many positions.

    What a channel gave at a position is predicted from the others there.
    """
    left, gone, factor, cross = _system(moments, alive, is_centred)
    predict = torch.cholesky_solve(cross, factor).T
    columns = np.asarray(moments.columns)
    sources, targets = columns[:, gone.numpy()], columns[:, left.numpy()].ravel()
    kept = np.flatnonzero(alive)
    # Of every input that stays, what is moved to it; the last is nothing.
    place = np.full(len(alive) + 1, len(targets))
    place[targets] = np.arange(len(targets))
    arrivals, stays = torch.from_numpy(place[kept]), torch.from_numpy(kept)
    new = weight.new_empty(len(weight), len(kept), device="cpu")
    shift = torch.empty(len(weight), dtype=torch.float64)
    for at, rows in wide_rows(weight):
        mean = moments.mean.to(rows)
        lost = at_positions(rows, sources).flatten(0, 1)
        moved = F.pad((lost @ predict.to(lost)).reshape(len(rows), -1), (0, 1))
        part = rows.index_select(1, stays) + moved.index_select(1, arrivals)
        shift[at] = (rows @ mean - part @ mean[stays]).double()
        new[at] = part
    return new, shift


def wide_rows(weight: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Rows of a wide weight, in float32 at least, few at once to need little memory."""
    n_rows = max(1, MAX_NUMBERS // weight.shape[1])
    for start in range(0, len(weight), n_rows):
        at = slice(start, start + n_rows)
        rows = weight[at].detach().cpu()
        yield at, rows.to(torch.promote_types(rows.dtype, torch.float32))


def _system(
    moments: InputMoments, alive: np.ndarray, is_centred: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Dimensions that stay, and go; moments of the former, factored, and across."""
    second = moments.covariance if is_centred else moments.about_zero()
    # Inputs that never vary, such as dead units, make it singular.
    ridge = RIDGE * second.diagonal().mean().clamp_min(torch.finfo(torch.float64).tiny)
    each = moments.by_dimension(alive)
    left, gone = (torch.from_numpy(np.flatnonzero(part)) for part in (each, ~each))
    half = second.index_select(0, left)
    kept = half.index_select(1, left)
    kept.diagonal().add_(ridge)
    return left, gone, torch.linalg.cholesky(kept), half.index_select(1, gone)
