"""Runs a user's network so that no trace of it is left in the network.

All that trains, cuts or asks a network calls it.
"""

import copy
import gc
import random
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice
from types import CodeType, FrameType, FunctionType, ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm as BatchNorm
from torch.nn.modules.lazy import LazyModuleMixin

# Those that may keep running statistics.
NormWithStatistics = nn.modules.batchnorm._NormBase
# What holds no tensors, or those of the whole program.
_ATOMS = (
    str, bytes, int, float, complex, type(None), type, ModuleType, CodeType, FrameType,
    np.generic, torch.dtype, torch.device, torch.Generator,
)  # fmt: skip
_REGISTRIES = ("_parameters", "_buffers", "_modules")
_OF_EVERY_MODULE = frozenset(vars(nn.Module()))
# Items that an iterator may yield.
_MAX_ITEMS = 100_000


def tensors_in(value: Any, drains: bool = False) -> list[Tensor]:
    """All tensors that a value holds, each once, whatever it is made of.

    ``drains`` reads iterators to their end, which may compute what they yield; they
    cannot be read again.
    """
    # What was seen is held, so that no identity of an object is used twice.
    seen: dict[int, Any] = {}
    found: list[Tensor] = []
    stack = [value]
    while stack:
        one = stack.pop()
        if isinstance(one, _ATOMS) or id(one) in seen:
            continue
        seen[id(one)] = one
        if isinstance(one, Tensor):
            found.append(one)
        else:
            stack += reversed(_parts_of(one, drains))
    return found


def _parts_of(value: Any, drains: bool) -> list[Any]:
    """What a container, or any other object, holds, in an order that repeats."""
    if drains and isinstance(value, Iterator):
        return _drained(value)
    if isinstance(value, FunctionType):
        cells = value.__closure__ or ()
        return [value.__defaults__, value.__kwdefaults__, *map(gc.get_referents, cells)]
    if isinstance(value, nn.Module):
        own = vars(value).items()
        return [held for name, held in own if name not in _OF_EVERY_MODULE]
    parts: list[Any] = []
    if isinstance(value, dict):
        parts += [*dict.values(value), *dict.keys(value)]
    elif isinstance(value, (list, tuple, deque)):
        parts += value
    elif isinstance(value, (set, frozenset)):
        parts += sorted(value, key=_sort_key)
    elif isinstance(value, np.ndarray):
        parts += value.ravel().tolist() if value.dtype == object else []
    if type(value) in (dict, list, tuple, deque, set, frozenset, np.ndarray):
        return parts
    parts.append(getattr(value, "__dict__", None))
    # Slots, and what classes written in C hold, such as partial and mappingproxy.
    return parts + gc.get_referents(value)


def _drained(iterator: Iterator) -> list[Any]:
    items = list(islice(iterator, _MAX_ITEMS + 1))
    if len(items) > _MAX_ITEMS:
        msg = (
            f"the output holds a {type(iterator).__name__} of more than "
            f"{_MAX_ITEMS:,} items; return a list."
        )
        raise ValueError(msg)
    return items


def _sort_key(entry: Any) -> list[tuple]:
    """An order of the entries of a set, whose own is that of addresses."""
    # What is asked here is no part of the network.
    with torch._C.DisableTorchFunction(), torch.no_grad():
        return [
            (*map(int, tensor.shape), float(tensor.double().sum()))
            for tensor in tensors_in(entry)
        ]


@contextmanager
def restoring(module: nn.Module) -> Iterator[None]:
    """All parts have afterwards their own modes, buffers and attributes again."""
    states = [(part, *_state(part)) for part in module.modules()]
    try:
        yield
    finally:
        for part, mode, tables, buffers in states:
            for table, old in tables:
                _put_back(table, old)
            with torch.no_grad():
                for buffer, old in buffers:
                    _put_back_values(buffer, old)
            part.training = mode


def _state(part: nn.Module) -> tuple[bool, list, list]:
    """Mode, dictionaries with their entries, and buffers with their values."""
    # A lazy module becomes another one when it first runs.
    is_lazy = isinstance(part, LazyModuleMixin) and part.has_uninitialized_params()
    if is_lazy or isinstance(part, torch.jit.ScriptModule):
        tables = []
    else:
        own = vars(part)
        tables = [(own, dict(own))]
        tables += [(own[name], dict(own[name])) for name in _REGISTRIES]
    buffers = [] if is_lazy else list(part.buffers(recurse=False))
    return part.training, tables, [(one, one.detach().clone()) for one in buffers]


def _put_back(table: dict, old: dict) -> None:
    # Threads may read it: nothing is written that is the same.
    for name in table.keys() - old.keys():
        del table[name]
    for name, value in old.items():
        if name not in table or table[name] is not value:
            table[name] = value


def _put_back_values(buffer: Tensor, old: Tensor) -> None:
    if buffer.shape != old.shape:
        buffer.data = old
    elif not torch.equal(buffer, old):
        buffer.copy_(old)


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients; nothing that runs inside leaves a trace."""
    with restoring(module), torch.no_grad():
        module.eval()
        yield


def copied(example: Any, change: Callable[[Tensor], Tensor] = torch.clone) -> Any:
    """The same in tensors of its own, for networks that overwrite what they are given.

    Tensors made of a user's array would be that array.
    """
    memo = {id(tensor): change(tensor) for tensor in tensors_in(example)}
    try:
        # deepcopy takes what it finds in its memo.
        return copy.deepcopy(example, memo)
    except (TypeError, RuntimeError) as error:
        msg = (
            f"the input cannot be copied for a forward of its own: {error}. Give "
            "tensors, alone or in lists, tuples, dictionaries or dataclasses."
        )
        raise TypeError(msg) from error


def call(module: nn.Module, example: Any) -> Any:
    """A forward on one argument, a tuple of several, or a dict of named ones."""
    if isinstance(example, dict):
        return module(**example)
    if isinstance(example, (tuple, list)):
        return module(*example)
    return module(example)


def run(module: nn.Module, example: Any) -> tuple[list[Tensor], list[Tensor]]:
    """Tensors that a forward returns, and those that it leaves in attributes.

    Iterators that it returns are read to their end.
    """
    before = _attributes(module)
    returned = tensors_in(call(module, example), drains=True)
    left = [
        value
        for key, value in _attributes(module).items()
        if before.get(key) is not value
    ]
    return returned, tensors_in(left)


def _attributes(module: nn.Module) -> dict[tuple[str, str], Any]:
    """By part and name, without parameters, buffers and parts."""
    return {
        (path, name): value
        for path, part in module.named_modules()
        for name, value in vars(part).items()
        if name not in _OF_EVERY_MODULE
    }


def device_of(module: nn.Module) -> torch.device:
    """Where the weights of a network are; the CPU if it has none."""
    return next((p.device for p in module.parameters()), torch.device("cpu"))


class FastLayout:
    """Channels last, where convolutions are faster on a CPU, if networks take that.

    A view of the user may ask how its input lies: then all stays as torch lays it out.

    Parameters
    ----------
    forward : callable
        Runs all networks on images that it is given; RuntimeError says that they
        cannot take them.
    images : Tensor
        To try it on; what is no image has no channels to be put last.
    *modules : nn.Module
        The networks, which are laid out in place.
    """

    def __init__(
        self, forward: Callable[[Tensor], Any], images: Tensor, *modules: nn.Module
    ):
        self.is_taken = True
        try:
            for module in modules:
                self(module)
            with torch.no_grad():
                forward(self(images))
        except RuntimeError:
            self.is_taken = False
            for module in modules:
                module.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]

    def __call__(self, value: Any) -> Any:
        """A network or images in this layout; a network in place."""
        is_image = not torch.is_tensor(value) or value.ndim == 4
        if not (self.is_taken and is_image):
            return value
        if torch.is_tensor(value):
            return value.contiguous(memory_format=torch.channels_last)
        return value.to(memory_format=torch.channels_last)


def has_batch_norm(module: nn.Module) -> bool:
    """Whether any part of a network is a batch norm."""
    return any(isinstance(part, BatchNorm) for part in module.modules())


def use_batch_statistics(module: nn.Module) -> None:
    """Let batch norms, and nothing else, run in training mode from now on."""
    module.eval()
    for part in module.modules():
        if isinstance(part, BatchNorm):
            part.train()


def reestimate_batch_norms(module: nn.Module, X: Tensor, batch_size: int = 250) -> None:
    """Give all batch norms the means and variances of these examples, in place.

    As :func:`torch.optim.swa_utils.update_bn`, but dropout stays off.
    """
    norms = [part for part in module.modules() if isinstance(part, BatchNorm)]
    norms = [norm for norm in norms if norm.track_running_stats]
    if len(X) < 2 or not norms:
        return
    with restoring(module), torch.no_grad():
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None
        use_batch_statistics(module)
        for batch in X.split(batch_size):
            if len(batch) > 1:
                run(module, batch.clone())
        # Some may be of heads that run in training only.
        found = [
            (buffer, buffer.clone())
            for norm in norms
            if norm.num_batches_tracked
            for buffer in norm.buffers(recurse=False)
        ]
    for buffer, value in found:
        buffer.copy_(value)


@contextmanager
def torch_session(seed: int, n_threads: int) -> Iterator[None]:
    """Seeded generators and a fixed number of threads; all are restored.

    Sums of one and of two threads differ in the last bits. Splits of skorch draw from
    the generator of numpy, augmentations of users from that of Python too.
    """
    threads = torch.get_num_threads()
    python_state = random.getstate()
    numpy_state = np.random.get_state()  # noqa: NPY002
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        random.seed(seed)
        np.random.seed(seed)  # noqa: NPY002
        torch.set_num_threads(n_threads)
        try:
            yield
        finally:
            torch.set_num_threads(threads)
            random.setstate(python_state)
            np.random.set_state(numpy_state)  # noqa: NPY002
