"""What a layer of a network takes or gives, read off while the network runs."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor, nn

from sklcomp.nn._running import tensors_in

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
            f"{parameter}={layer!r} is no layer of {type(module).__name__}; it has "
            f"{', '.join(names)}."
        )
        raise ValueError(msg)


@contextmanager
def capturing(
    module: nn.Module, layer: str, must_run: bool = True
) -> Iterator[list[Tensor]]:
    """Run the network inside; the list then holds the features (n, d) at its end.

    ``layer`` names a part, whose output they are, or is "penultimate": the input of
    the Linear that runs last. ValueError if it does not run, unless that may be.
    """
    seen: list[Tensor] = []

    # Copies: what comes after may work in place.
    def take_input(part: nn.Module, inputs: tuple, named: dict) -> None:
        seen[:] = [tensors_in([inputs, named])[0].flatten(1).clone()]

    def take_output(part: nn.Module, inputs: tuple, output: object) -> None:
        seen[:] = [tensors_in(output)[0].flatten(1).clone()]

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
        msg = f"the layer {layer!r} did not run in the forward; name one that does."
        raise ValueError(msg)
