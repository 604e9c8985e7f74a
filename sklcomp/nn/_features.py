"""``capturing``: the features that a layer takes or gives while its network runs.

The distillers, and the lessons of their students, read features with it.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from sklcomp.nn._running import tensors_in
from sklcomp.utils._messages import show

PENULTIMATE = "penultimate"


def check_layer(module: nn.Module, layer: str, parameter: str) -> None:
    """Raise ValueError if a network has no such layer."""
    names = [name for name, _ in module.named_modules() if name]
    if layer == PENULTIMATE:
        if not any(isinstance(part, nn.Linear) for part in module.modules()):
            msg = (
                f'{parameter}="penultimate" is the input of the last Linear, and '
                f"{type(module).__name__} has none. Name one of its layers: "
                f"{', '.join(names)}."
            )
            raise ValueError(msg)
    elif layer not in names:
        msg = (
            f"{parameter}={show(layer)} is no layer of {type(module).__name__}; it has "
            f"{', '.join(names)}."
        )
        raise ValueError(msg)


@contextmanager
def capturing(
    module: nn.Module, layer: str, n_rows: int | None = None, must_run: bool = True
) -> Iterator[list[Tensor]]:
    """Run the network inside; the list then holds the features (n, d) at its end.

    ``layer`` names a part, whose output they are, or is "penultimate": the input of
    the Linear that runs last. ValueError if it does not run, unless that may be, or if
    the first axis is not the ``n_rows`` examples.
    """
    seen: list[Any] = []

    def take(value: object) -> None:
        tensors = tensors_in(value)
        # A copy: what comes after may work in place.
        seen[:] = [tensors[0].clone() if tensors else None]

    def take_input(part: nn.Module, inputs: tuple, named: dict) -> None:
        take([inputs, named])

    def take_output(part: nn.Module, inputs: tuple, output: object) -> None:
        take(output)

    if layer == PENULTIMATE:
        handles = [
            part.register_forward_pre_hook(take_input, with_kwargs=True)
            for part in module.modules()
            if isinstance(part, nn.Linear)
        ]
    else:
        handles = [module.get_submodule(layer).register_forward_hook(take_output)]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()
    if must_run and not seen:
        msg = f"the layer {show(layer)} did not run in the forward; name one that does."
        raise ValueError(msg)
    if seen:
        name = f"the layer {show(layer)} of {type(module).__name__}"
        seen[:] = [_as_rows(seen[0], name, n_rows)]


def _as_rows(features: Tensor | None, name: str, n_rows: int | None) -> Tensor:
    """Features of examples as (n, d)."""
    shape = () if features is None else tuple(features.shape)
    if features is None or len(shape) < 2 or n_rows not in (None, shape[0]):
        found = "no tensor" if features is None else f"features of shape {shape}"
        msg = (
            f"{name} gives {found}. Expected ({n_rows or 'n'} examples, n_features, "
            "...): name a layer that keeps the examples on the first axis."
        )
        raise ValueError(msg)
    return features.flatten(1)
