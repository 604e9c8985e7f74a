"""Train nets so that runs repeat and interrupts are heard."""

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from skorch.callbacks import EarlyStopping

from sklcomp.nn._running import has_batch_norm


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


class StopTraining(Exception):
    """Ends a training at once, also within an epoch; what was trained is kept."""


def train_net(
    net: Any, X: Any, y: Any, before: Callable[[], None] | None = None
) -> Any:
    """``net.fit``, but an interrupt is not swallowed, nor a last batch of one trained.

    A batch norm cannot take the statistics of a single row. ``before`` is called
    when all is initialised and the data are split; it may raise StopTraining. Epochs
    that it adds to the history are not done again.
    """
    drops_last, n_rows = False, 0
    try:
        net.initialize()
        net.check_data(X, y)
        net.notify("on_train_begin", X=X, y=y)
        datasets = net.get_split_datasets(X, y)
        n_rows = len(datasets[0])
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
        # LoadInitState of skorch brings epochs of another training.
        n_foreign = len(net.history)
        try:
            if before is not None:
                before()
            n_done = len(net.history) - n_foreign
            if n_done and is_stopped_early(net):
                raise StopTraining
            _split_as(net, datasets)
            net.fit_loop(X, y, epochs=max(net.max_epochs - n_done, 0))
        except StopTraining:
            pass
        except KeyboardInterrupt:
            if not is_stopped_early(net):
                raise
        net.notify("on_train_end", X=X, y=y)
    except ValueError as error:
        if "more than 1 value per channel" not in str(error):
            raise
        msg = (
            f"a batch norm needs 2 examples at once, and has 1 of {n_rows} with "
            f"batch_size={net.batch_size}. Give more examples, or a larger batch_size."
        )
        raise ValueError(msg) from error
    except (MemoryError, torch.OutOfMemoryError) as error:
        msg = (
            f"training ran out of memory with batch_size={net.batch_size}; choose a "
            "smaller batch_size."
        )
        raise MemoryError(msg) from error
    finally:
        vars(net).pop("get_split_datasets", None)
        if drops_last:
            del vars(net)["iterator_train__drop_last"]
    return net


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
    return max(n_rows, 1) if size == -1 else size


def is_stopped_early(net: Any) -> bool:
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
