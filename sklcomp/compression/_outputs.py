"""How many outputs a user's network has, by a trial, and what is wrong if it has none.

The compressors try each network that is given or made.
"""

import numpy as np
import torch
from torch import nn

from sklcomp.nn._forms import check_form
from sklcomp.nn._running import device_of, evaluating
from sklcomp.training._nets import first_output


def count_outputs(module: nn.Module, X: np.ndarray, what: str, unit: str) -> int:
    """Outputs of a network, which is tried on two examples.

    ``what`` it is and the ``unit`` of its outputs are for messages.
    """
    name = f"the {what} {type(module).__name__}"
    check_form(module, name, "answer" if what == "teacher" else "begin")
    device = device_of(module)
    # A forward there succeeds, and its numbers mean nothing.
    if device.type == "meta":
        msg = (
            f"{name} is on the device meta, where weights have no values: bring it "
            'to a real one by to_empty(device="cpu") and load its weights.'
        )
        raise ValueError(msg)
    try:
        with evaluating(module):
            # A copy: a network may overwrite what it is given.
            output = first_output(module(torch.from_numpy(X[:2].copy()).to(device)))
    # It is a RuntimeError too, and no fault of the shape.
    except torch.OutOfMemoryError:
        raise
    except (RuntimeError, ValueError, TypeError, IndexError) as error:
        msg = (
            f"{name} cannot take X of shape {shape_in_words(X.shape[1:])} and dtype "
            f"float32: {error}. Bring X into the shape that its forward takes; if "
            f"it takes another dtype, cast there{_float_hint(module)}."
        )
        raise ValueError(msg) from error
    if not torch.is_tensor(output) or output.ndim != 2:
        shape = f"outputs of shape {tuple(getattr(output, 'shape', ()))}"
        what = shape if torch.is_tensor(output) else f"a {type(output).__name__}"
        msg = f"{name} gives {what} for 2 examples. Expected a tensor (2, {unit})."
        raise ValueError(msg)
    return output.shape[1]


def _float_hint(module: nn.Module) -> str:
    """What helps a network whose weights are of another precision than X."""
    kinds = {p.dtype for p in module.parameters() if p.is_floating_point()}
    if not kinds - {torch.float32}:
        return ""
    kind = str(next(iter(kinds - {torch.float32}))).removeprefix("torch.")
    return f", or give copy.deepcopy(module).float(): its weights are {kind}"


def shape_in_words(one: tuple[int, ...]) -> str:
    """The shape of any number of examples, from that of one."""
    return f"({', '.join(['n', *map(str, one)])})"
