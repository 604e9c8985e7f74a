"""What a network costs: parameters, multiplications and time, defined once.

Users, reports and the budgets of the pruners count with it.
"""

import time
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from sklcomp.nn._forms import check_form
from sklcomp.nn._running import call, copied, evaluating, run, tensors_in
from sklcomp.nn.surgery._graph import ChannelGraph
from sklcomp.utils._validation import refuse_masked


def count_parameters(module: nn.Module) -> int:
    """Number of parameters, those that are shared counted once.

    Parameters
    ----------
    module : nn.Module
        Any network.

    Returns
    -------
    n_parameters : int
        Without buffers such as running means.

    Examples
    --------
    >>> import torch
    >>> from sklcomp.nn import count_parameters
    >>> count_parameters(torch.nn.Linear(10, 2))
    22
    """
    return sum(parameter.numel() for parameter in module.parameters())


def count_macs(module: nn.Module, input_shape: Any) -> int:
    """Multiply-accumulate operations of one forward on one example.

    Parameters
    ----------
    module : nn.Module
        Any network.
    input_shape : tuple of int, or tuple of tuples
        Shape of one example without the axis of examples, such as (3, 32, 32); a
        tuple of shapes for a network of several inputs.

    Returns
    -------
    n_macs : int
        Half of what :class:`torch.utils.flop_counter.FlopCounterMode` counts: those
        of convolutions and matrix products.

    Examples
    --------
    >>> import torch
    >>> from sklcomp.nn import count_macs
    >>> count_macs(torch.nn.Conv2d(3, 8, 3), (3, 10, 10)) == 8 * 8 * 8 * 3 * 9
    True
    """
    check_form(module, f"the module {type(module).__name__}", "answer")
    shapes = input_shape if np.ndim(input_shape[0]) else (input_shape,)
    tensor = next(iter(module.parameters()), torch.empty(0))
    example = tuple(tensor.new_zeros(1, *shape).detach() for shape in shapes)
    return _count(module, example)


def _count(module: nn.Module, example: Any) -> int:
    with evaluating(module), FlopCounterMode(display=False) as counter:
        run(module, copied(example))
    return counter.get_total_flops() // 2


class ChannelCost:
    """Parameters and multiplications of a pruned network, without building it.

    Equal to :func:`count_parameters` and :func:`count_macs` of what
    ``prune_channels`` makes.

    Parameters
    ----------
    module : nn.Module
        The network that was traced.
    graph : ChannelGraph
        Its graph.
    example : Tensor, tuple or dict
        Input of a forward on one example.
    """

    def __init__(self, module: nn.Module, graph: ChannelGraph, example: Any):
        rows: list[np.ndarray] = []
        fixed: list[int] = []
        self._parts: list[tuple[list[int], int, float]] = []
        for name, parameter in module.named_parameters():
            factor, at = 1, list[int]()
            for size, genes in zip(
                parameter.shape,
                graph.slots.get(name, (None,) * parameter.ndim),
                strict=True,
            ):
                if genes is None:
                    factor *= size
                    continue
                at.append(len(rows))
                living = genes[genes >= 0]
                rows.append(np.bincount(living, minlength=graph.n_genes))
                fixed.append(len(genes) - len(living))
            self._parts.append((at, factor, graph.uses.get(name, 0.0)))
        self._rows = np.array(rows).reshape(len(rows), graph.n_genes)
        self._fixed = np.array(fixed)
        # Attention, recurrences and products of tensors are never cut.
        self._other = 0
        whole = self(np.ones(graph.n_genes, bool))[1]
        self._other = _count(module, example) - whole

    def __call__(self, keep: np.ndarray) -> tuple[int, int]:
        """Parameters, and multiplications for one example."""
        sizes = self._rows @ keep + self._fixed
        numbers = [factor * int(sizes[at].prod()) for at, factor, _ in self._parts]
        uses = [n for _, _, n in self._parts]
        return sum(numbers), round(float(np.dot(numbers, uses))) + self._other


class Latency(NamedTuple):
    """Seconds of a forward: the median, and the quartiles below and above it."""

    median: float
    lower: float
    upper: float


@refuse_masked
def measure_latency(
    module: nn.Module, example_input: Any, *, n_repeats: int = 30, n_threads: int = 1
) -> Latency:
    """Time of a forward, with its spread.

    Parameters
    ----------
    module : nn.Module
        Any network; it runs in evaluation mode and is left as it was.
    example_input : Tensor, tuple or dict
        Input of the forward.
    n_repeats : int, default=30
        Forwards that are timed, after three that are not.
    n_threads : int, default=1
        Threads of torch meanwhile; restored afterwards.

    Returns
    -------
    latency : Latency
        Median and quartiles in seconds.

    Examples
    --------
    >>> import torch
    >>> from sklcomp.nn import measure_latency
    >>> latency = measure_latency(torch.nn.Linear(10, 2), torch.zeros(1, 10))
    >>> 0 < latency.lower <= latency.median <= latency.upper
    True
    """
    if n_repeats < 1:
        msg = f"n_repeats={n_repeats}; a time needs at least 1 forward."
        raise ValueError(msg)
    check_form(module, f"the module {type(module).__name__}", "answer")
    threads = torch.get_num_threads()
    torch.set_num_threads(n_threads)
    try:
        with evaluating(module):
            times = [_time(module, example_input) for _ in range(n_repeats + 3)]
    finally:
        torch.set_num_threads(threads)
    lower, median, upper = np.quantile(times[3:], [0.25, 0.5, 0.75])
    return Latency(float(median), float(lower), float(upper))


def _time(module: nn.Module, example: Any) -> float:
    on_gpu = any(p.is_cuda for p in module.parameters())
    example = copied(example)
    start = time.perf_counter()
    tensors_in(call(module, example), drains=True)
    if on_gpu:
        torch.cuda.synchronize()
    return time.perf_counter() - start
