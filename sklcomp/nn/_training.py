"""Train nets so that runs repeat and interrupts are heard."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from skorch.callbacks import EarlyStopping

from sklcomp.nn._running import has_batch_norm


@contextmanager
def torch_session(seed: int, n_threads: int) -> Iterator[None]:
    """A seeded generator and a fixed number of threads; both are restored.

    Sums of one and of two threads differ in the last bits.
    """
    threads = torch.get_num_threads()
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        torch.set_num_threads(n_threads)
        try:
            yield
        finally:
            torch.set_num_threads(threads)


class StopTraining(Exception):
    """Ends a training after the epoch in which it is raised."""


def train_net(
    net: Any, X: Any, y: Any, before: Callable[[], None] | None = None
) -> Any:
    """``net.fit``, but an interrupt is not swallowed, nor a last batch of one trained.

    A batch norm cannot take the statistics of a single row. ``before`` is called
    when all is initialised; epochs that are in the history then are not done again.
    """
    try:
        net.initialize()
        n_rows = len(net.get_split_datasets(X, y)[0])
        modules = [getattr(net, f"{name}_") for name in net._modules]
        if n_rows % net.batch_size == 1 and any(map(has_batch_norm, modules)):
            # set_params would make the module anew.
            vars(net)["iterator_train__drop_last"] = True
        net.check_data(X, y)
        net.notify("on_train_begin", X=X, y=y)
        if before is not None:
            before()
        try:
            net.fit_loop(X, y, epochs=max(net.max_epochs - len(net.history), 0))
        except StopTraining:
            pass
        except KeyboardInterrupt:
            if not _is_stopped_early(net):
                raise
        net.notify("on_train_end", X=X, y=y)
    except (MemoryError, torch.OutOfMemoryError) as error:
        msg = (
            f"training ran out of memory with batch_size={net.batch_size}; choose a "
            "smaller batch_size."
        )
        raise MemoryError(msg) from error
    return net


def _is_stopped_early(net: Any) -> bool:
    """Whether the interrupt is skorch's way of stopping, not the user's."""
    return any(
        isinstance(callback, EarlyStopping) and callback.misses_ == callback.patience
        for _, callback in net.callbacks_
    )


def check_device(net: Any) -> None:
    """Raise if a net asks for a GPU that is not there."""
    device = getattr(net, "device", "cpu")
    if str(device).startswith("cuda") and not torch.cuda.is_available():
        msg = f"device={device!r} of {type(net).__name__} is not there: no CUDA."
        raise RuntimeError(msg + ' Choose device="cpu".')
