"""Forms of a module, such as compiled or scripted: which can be used, and made plain.

The compressors, the translator and the surgery look at every user's module with it.
"""

import copy
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import fx, nn
from torch.nn.parameter import is_lazy

from sklcomp.utils._messages import show

_LOCK = threading.Lock()
# How many run eagerly, and what torch is to be told when none does any longer.
_eager: dict[str, Any] = {"n": 0, "stance": None}


def check_form(module: Any, what: str, use: str) -> None:
    """Raise ValueError if a module is of a form that does not serve for a use.

    To "answer" is enough for a teacher; to "train" it must be made of Python and
    floats, and so to be "cut", but for parts that then stay. Lazy layers may "begin".
    """
    reason = _why_useless(module, use) or (use != "answer" and _why_fixed(module, use))
    if reason:
        raise ValueError(f"{what} {reason}.")


def _why_useless(module: Any, use: str) -> str:
    """Why a module is no network yet, or none any longer."""
    if not isinstance(module, nn.Module):
        return (
            f"is of type {type(module).__name__}, no nn.Module; hand over the module "
            "that it was made of"
        )
    tensors = [*module.named_parameters(), *module.named_buffers()]
    lazy = [name for name, tensor in tensors if is_lazy(tensor)]
    if lazy and use != "begin":
        return (
            f"has lazy layers without weights ({show(lazy[0])}); run it once on an "
            "example, module(X[:2]), before it is handed over"
        )
    if any(
        isinstance(part, fx.GraphModule) and _is_exported(part)
        for part in module.modules()
    ):
        return (
            "is an exported program of fixed sizes; hand over the module that was "
            "exported, and export what comes out"
        )
    return ""


def _is_exported(module: fx.GraphModule) -> bool:
    overload = torch._ops.OpOverload
    return any(isinstance(node.target, overload) for node in module.graph.nodes)


def _why_fixed(module: nn.Module, use: str) -> str:
    """Why a module can neither be cut nor trained."""
    parts = [module] if use == "cut" else module.modules()
    if any(isinstance(part, torch.jit.ScriptModule) for part in parts):
        return (
            "is scripted, which fixes its code; hand over the module that was "
            "scripted, and script what comes out"
        )
    for name, part in module.named_modules():
        if ".quantized." in f"{type(part).__module__}.":
            return (
                f"has quantised layers ({show(name)}), which cannot learn; hand over "
                "the network of floats, and quantise what comes out"
            )
    return ""


def uncompiled(module: nn.Module) -> nn.Module:
    """What ``torch.compile`` was given; the module itself if that is not the case."""
    while "_orig_mod" in module._modules:
        module = cast(nn.Module, module._orig_mod)
    return module


def plain_copy(module: nn.Module) -> nn.Module:
    """A copy, no part of which is compiled."""
    # A scripted module copies its weights by operations that are recorded.
    with torch.no_grad():
        module = uncompiled(copy.deepcopy(module))
    for part in list(module.modules()):
        for name, child in part._modules.items():
            if child is not None:
                part._modules[name] = uncompiled(child)
    return module


@contextmanager
def eagerly() -> Iterator[None]:
    """Let compiled code run as it was written, which alone can be followed.

    In all threads, as torch knows no other way; the last to leave says that it is over.
    """
    if "torch._dynamo" not in sys.modules:
        yield
        return
    with _LOCK:
        if not _eager["n"]:
            _eager["stance"] = torch.compiler.set_stance("force_eager")
            _eager["stance"].__enter__()
        _eager["n"] += 1
    try:
        yield
    finally:
        with _LOCK:
            _eager["n"] -= 1
            if not _eager["n"]:
                _eager["stance"].__exit__(None, None, None)
