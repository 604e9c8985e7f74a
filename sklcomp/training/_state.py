"""The state of a training, so that it goes on as if it had not been interrupted.

All trainings that keep a checkpoint write it, and take up an earlier one.
"""

import json
import random
import re
from contextlib import suppress
from functools import partial
from numbers import Number
from pathlib import Path
from types import CodeType, FunctionType
from typing import Any

import joblib
import numpy as np
import torch
from sklearn.base import BaseEstimator
from skorch import NeuralNet
from skorch.history import History
from torch import Tensor, nn

from sklcomp.utils._messages import show

# Stands for an array of numpy in a state.
ARRAY = "array of numpy"
# Of objects within objects that are described; they may contain each other.
MAX_DEPTH = 8


def training_state(net: Any) -> dict[str, Any]:
    """Weights, optimizer, history, generators and callbacks of a net in training."""
    return {
        "parts": {name: _state_of(part) for name, part in _parts(net).items()},
        # As text: a file that is read without running code holds no class of skorch.
        "history": json.dumps(net.history.to_list(), default=_as_list),
        **generator_states(),
        "callbacks": {
            name: {
                key: kept
                for key, value in vars(callback).items()
                if key.endswith("_") and (kept := _kept(value)) is not None
            }
            for name, callback in net.callbacks_
        },
    }


def restore_training(net: Any, state: dict[str, Any]) -> None:
    """Bring a net that is about to be trained, and the generators, to a state."""
    for name, part in _parts(net).items():
        saved = state["parts"][name]
        part.load_state_dict(saved if isinstance(part, nn.Module) else _revived(saved))
    net.history_ = History(json.loads(state["history"]))
    restore_generators(state)
    for name, callback in net.callbacks_:
        for key, (kind, value) in state["callbacks"].get(name, {}).items():
            if kind != "state":
                setattr(callback, key, value)
            elif hasattr(callback, key):
                getattr(callback, key).load_state_dict(_revived(value))
            else:
                msg = (
                    f"the checkpoint has a state of {key} of the callback "
                    f"{show(name)}, which has no {key} when the training begins. Make "
                    "it in on_train_begin, or take warm_start=False."
                )
                raise ValueError(msg)


def generator_states() -> dict[str, Any]:
    """States of the global generators, from which modules may draw in training."""
    return {
        "generator": torch.get_rng_state(),
        "numpy_generator": _plain(np.random.get_state(legacy=False)),  # noqa: NPY002
        "python_generator": random.getstate(),
        "cuda_generators": torch.cuda.get_rng_state_all(),
    }


def restore_generators(state: dict[str, Any]) -> None:
    """Bring the global generators to these states."""
    torch.set_rng_state(state["generator"])
    np.random.set_state(_revived(state["numpy_generator"]))  # noqa: NPY002
    random.setstate(state["python_generator"])
    # A fit may go on where there are other GPUs, or none.
    if len(state["cuda_generators"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(state["cuda_generators"])


def _parts(net: Any) -> dict[str, Any]:
    """Modules and optimizers of a net, of which a GAN has several."""
    return {
        name: getattr(net, f"{name}_") for name in [*net._modules, *net._optimizers]
    }


def _state_of(part: Any) -> dict[str, Any]:
    """State of a module, an optimizer or a scheduler."""
    state = part.state_dict()
    return state if isinstance(part, nn.Module) else _plain(state)


def _plain(value: Any) -> Any:
    """The same with numbers of Python for those of numpy, and tensors for its arrays.

    They are all that a file may hold that is read without running code.
    """
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return {ARRAY: torch.from_numpy(value.copy())}
    if isinstance(value, dict):
        return {key: _plain(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(map(_plain, value))
    return value


def _revived(value: Any) -> Any:
    """What _plain was given, but for numbers of numpy."""
    if isinstance(value, dict):
        if ARRAY in value:
            return value[ARRAY].numpy()
        return {key: _revived(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(map(_revived, value))
    return value


def _as_list(value: Any) -> Any:
    """What JSON takes in place of numbers and arrays of numpy, and of tensors."""
    return value.tolist() if hasattr(value, "tolist") else float(value)


def weights_of(module: nn.Module) -> list[Any]:
    """A module's structure and weights, in the form that identifies a checkpoint."""
    # Addresses are others in another process.
    kind = re.sub(" at 0x[0-9a-fA-F]+", "", repr(module))
    return [kind, *map(_described, module.state_dict().values())]


def settings_of(*owners: Any, but: tuple[str, ...] = ()) -> str:
    """Settings in which a checkpoint must agree with a fit, as text.

    Of modules and estimators only the class: what they are, others say.
    """
    found = {
        name: _described(value)
        for owner in owners
        for name, value in owner.get_params(deep=False).items()
        if name not in but
    }
    return repr(sorted(found.items()))


def _described(value: Any, depth: int = 0) -> Any:
    """A value in words that are the same in another process."""
    if isinstance(value, np.generic):
        # A setting is the same whether numpy or Python holds it.
        value = value.item()
    if value is None or isinstance(value, (str, bytes, Number)):
        return value
    if torch.is_tensor(value):
        value = _as_array(value)
    if isinstance(value, np.ndarray):
        return joblib.hash(value)
    if isinstance(value, (Path, torch.device, torch.dtype)):
        return str(value)
    named = value if hasattr(value, "__qualname__") else type(value)
    name = f"{getattr(named, '__module__', '')}.{named.__qualname__}"
    parts = _parts_of(value) if depth < MAX_DEPTH else []
    return [name, *(_described(part, depth + 1) for part in parts)]


def _as_array(values: Tensor) -> np.ndarray:
    """The same for numpy, which has no floats of less than two bytes, nor bfloat16."""
    if values.is_floating_point() and values.dtype.itemsize < 4:
        values = values.float()
    return values.numpy(force=True)


def _parts_of(value: Any) -> list[Any]:
    """Entries of a container; settings of a callback, a split and the like.

    Of a function what it does, without the names and values around it.
    """
    if isinstance(value, FunctionType):
        closed = []
        for cell in value.__closure__ or ():
            with suppress(ValueError):  # it is empty
                closed.append(cell.cell_contents)
        # What else it closes over may change as it runs.
        constants = [x for x in closed if isinstance(x, (str, Number, FunctionType))]
        defaults = [value.__defaults__, value.__kwdefaults__]
        return [*_parts_of(value.__code__), *defaults, *constants]
    if isinstance(value, CodeType):
        return [value.co_code, *value.co_names, *value.co_consts]
    if hasattr(value, "__qualname__"):
        return []
    if isinstance(value, dict):
        # Keys of several kinds have no order among them.
        return [(str(key), value[key]) for key in sorted(value, key=str)]
    if isinstance(value, (set, frozenset)):
        # A set of texts has another order in every process.
        return sorted(value, key=repr)
    if isinstance(value, (list, tuple)):
        return list(value)
    if isinstance(value, partial):
        return [value.func, value.args, value.keywords]
    if isinstance(value, (nn.Module, BaseEstimator, NeuralNet)):
        return []
    own = getattr(value, "__dict__", {})
    # What came of them has such names.
    return [
        (name, own[name])
        for name in sorted(own)
        if not name.startswith("_") and not name.endswith("_")
    ]


def _kept(value: Any) -> tuple[str, Any] | None:
    """What of a callback's attribute can be stored without pickling objects."""
    if hasattr(value, "state_dict") and not isinstance(value, type):
        return "state", _state_of(value)
    if value is None or torch.is_tensor(value):
        return "value", value
    if isinstance(value, dict) and all(map(torch.is_tensor, value.values())):
        return "value", value
    if isinstance(value, list):
        kept = [_kept(entry) for entry in value]
        if any(entry is None or entry[0] == "state" for entry in kept):
            return None
        return "value", [entry[1] for entry in kept if entry is not None]
    if isinstance(value, np.generic):
        value = value.item()
    # A truth value is an int too, so it comes first. A subclass of these could not be
    # read without running its code.
    for kind in (bool, int, float, str):
        if isinstance(value, kind):
            return "value", kind(value)
    return None
