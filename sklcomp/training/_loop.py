"""``train_net``: trains a skorch net so that runs repeat and interrupts are heard.

Every estimator with a network inside trains by it.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from skorch.callbacks import EarlyStopping

from sklcomp.nn._running import has_batch_norm


@contextmanager
def naming_memory(what: str, cure: str) -> Iterator[None]:
    """Where memory runs out, raise MemoryError that says what to make smaller."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        # Without a GPU torch raises a plain RuntimeError.
        kinds = (MemoryError, torch.OutOfMemoryError)
        if not isinstance(error, kinds) and "DefaultCPUAllocator" not in str(error):
            raise
        raise MemoryError(f"{what}; choose a smaller {cure}.") from error


class StopTraining(Exception):
    """Ends a training at once, also within an epoch; what was trained is kept."""


def train_net(
    net: Any, X: Any, y: Any, before: Callable[[], None] | None = None
) -> Any:
    """As ``net.fit``, but an interrupt is passed on, and a last batch of one dropped.

    A batch norm cannot take the statistics of a single row. ``before`` is called
    when all is initialised and the data are split; it may raise StopTraining. Epochs
    that it adds to the history are not done again.
    """
    what = f"training ran out of memory with batch_size={net.batch_size}"
    with naming_memory(what, "batch_size"):
        # What net.fit does, but for its end: that takes an interrupt of the user for a
        # training that is done.
        net.initialize()
        net.check_data(X, y)
        net.notify("on_train_begin", X=X, y=y)
        datasets = net.get_split_datasets(X, y)
        with _without_last_row(net, len(datasets[0])):
            _run_epochs(net, X, y, datasets, before)
            net.notify("on_train_end", X=X, y=y)
    return net


@contextmanager
def acting_as(net: Any, net_class: type) -> Iterator[None]:
    """Let a net be of another class for a while.

    What a training needs beside the user's own net stands in a subclass of its class,
    of which no callback, pickle or later fit may see anything.
    """
    own_class, net.__class__ = type(net), net_class
    try:
        yield
    finally:
        net.__class__ = own_class


@contextmanager
def _without_last_row(net: Any, n_rows: int) -> Iterator[None]:
    """Drop a last batch of one row, of which a batch norm has no statistics."""
    modules = [getattr(net, f"{name}_") for name in net._modules]
    drops_last = (
        n_rows > 1
        and n_rows % train_batch_size(net, n_rows) == 1
        and any(map(has_batch_norm, modules))
        and not _get(net, "iterator_train__drop_last")
    )
    if drops_last:
        # set_params would make the module anew.
        vars(net)["iterator_train__drop_last"] = True
    try:
        yield
    except ValueError as error:
        # torch has no class of its own for this error.
        if "more than 1 value per channel" not in str(error):
            raise
        msg = (
            f"a batch norm needs 2 examples at once, and has 1 of {n_rows} with "
            f"batch_size={net.batch_size}. Give more examples, or a larger batch_size."
        )
        raise ValueError(msg) from error
    finally:
        if drops_last:
            del vars(net)["iterator_train__drop_last"]


def _run_epochs(
    net: Any, X: Any, y: Any, datasets: tuple, before: Callable[[], None] | None
) -> None:
    # LoadInitState of skorch brings epochs of another training.
    n_foreign = len(net.history)
    try:
        if before is not None:
            before()
        n_done = len(net.history) - n_foreign
        # What was taken up had come to its end.
        if n_done and is_stopped_early(net):
            return
        _split_as(net, datasets)
        net.fit_loop(X, y, epochs=max(net.max_epochs - n_done, 0))
    except StopTraining:
        pass
    except KeyboardInterrupt:
        if not is_stopped_early(net):
            raise
    finally:
        vars(net).pop("get_split_datasets", None)


def _split_as(net: Any, datasets: tuple) -> None:
    """Let the next split give these, so that it draws from no generator again.

    What it drew would not be what it drew before an interrupt.
    """

    def split(*_: Any, **__: Any) -> tuple:
        del vars(net)["get_split_datasets"]
        return datasets

    vars(net)["get_split_datasets"] = split


def _get(net: Any, name: str, default: Any = None) -> Any:
    return net.get_params(deep=False).get(name, default)


def train_batch_size(net: Any, n_rows: int) -> int:
    """Examples in a step of a net's training."""
    size = int(_get(net, "iterator_train__batch_size", net.batch_size))
    # skorch's word for all examples at once.
    return max(n_rows, 1) if size == -1 else size


def is_stopped_early(net: Any) -> bool:
    """Whether the interrupt is skorch's way of stopping, not the user's."""
    return any(
        isinstance(callback, EarlyStopping) and callback.misses_ == callback.patience
        for _, callback in net.callbacks_
    )
