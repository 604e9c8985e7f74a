"""The state of a training, so that it can go on as if it had not been interrupted."""

import json
from numbers import Real
from typing import Any

import numpy as np
import torch
from skorch.history import History
from torch import nn


def training_state(net: Any) -> dict[str, Any]:
    """Weights, optimizer, history, generator and callbacks of a net in training."""
    return {
        "parts": {name: _state_of(part) for name, part in _parts(net).items()},
        "history": json.dumps(net.history.to_list(), default=float),
        "generator": torch.get_rng_state(),
        "callbacks": {
            name: {
                key: kept
                for key, value in vars(callback).items()
                if key.endswith("_") and (kept := _plain(value)) is not None
            }
            for name, callback in net.callbacks_
        },
    }


def restore_training(net: Any, state: dict[str, Any]) -> None:
    """Bring a net that is about to be trained to a state."""
    for name, part in _parts(net).items():
        part.load_state_dict(state["parts"][name])
    net.history_ = History(json.loads(state["history"]))
    torch.set_rng_state(state["generator"])
    for name, callback in net.callbacks_:
        for key, (kind, value) in state["callbacks"].get(name, {}).items():
            if kind == "state":
                getattr(callback, key).load_state_dict(value)
            else:
                setattr(callback, key, value)


def _parts(net: Any) -> dict[str, Any]:
    """Modules and optimizers of a net, of which a GAN has several."""
    return {
        name: getattr(net, f"{name}_") for name in [*net._modules, *net._optimizers]
    }


def _state_of(part: Any) -> dict[str, Any]:
    """State of a module or an optimizer, with plain numbers for those of numpy."""
    state = part.state_dict()
    for group in state.get("param_groups", ()):
        group.update({
            name: value.item()
            for name, value in group.items()
            if isinstance(value, np.generic)
        })  # fmt: skip
    return state


def weights_of(module: nn.Module) -> list[np.ndarray]:
    """All parameters and buffers, as a key of a checkpoint can contain them."""
    return [part.numpy(force=True) for part in module.state_dict().values()]


def settings_of(*owners: Any, but: tuple[str, ...] = ()) -> str:
    """Numbers and texts that a checkpoint must agree in."""
    found = {
        name: value.item() if isinstance(value, np.generic) else value
        for owner in owners
        for name, value in owner.get_params(deep=False).items()
        if isinstance(value, (str, Real, np.bool_)) and name not in but
    }
    return repr(sorted(found.items()))


def _plain(value: Any) -> tuple[str, Any] | None:
    """What of a callback's attribute can be stored without pickling objects."""
    if hasattr(value, "state_dict") and not isinstance(value, type):
        return "state", value.state_dict()
    if isinstance(value, dict) and all(map(torch.is_tensor, value.values())):
        return "value", value
    for kind in (bool, int, float, str):
        if isinstance(value, kind):
            return "value", kind(value)
    return None
