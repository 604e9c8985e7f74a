"""The state of a training, so that it can go on as if it had not been interrupted."""

import json
from typing import Any

import torch
from skorch.history import History


def training_state(net: Any) -> dict[str, Any]:
    """Weights, optimizer, history, generator and callbacks of a net in training."""
    return {
        "module": net.module_.state_dict(),
        "optimizer": net.optimizer_.state_dict(),
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
    net.module_.load_state_dict(state["module"])
    net.optimizer_.load_state_dict(state["optimizer"])
    net.history_ = History(json.loads(state["history"]))
    torch.set_rng_state(state["generator"])
    for name, callback in net.callbacks_:
        for key, (kind, value) in state["callbacks"].get(name, {}).items():
            if kind == "state":
                getattr(callback, key).load_state_dict(value)
            else:
                setattr(callback, key, value)


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
