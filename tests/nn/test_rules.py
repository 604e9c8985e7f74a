"""Every rule of the tracer fires, for every way to call its function."""

import operator as op

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.overrides import TorchFunctionMode

from sklcomp.nn import trace_channels
from sklcomp.nn._tracing import RULES, name_of


class Names(TorchFunctionMode):
    """The names under which functions come to the tracer."""

    def __init__(self):
        super().__init__()
        self.seen = set()

    def __torch_function__(self, func, types, args=(), kwargs=None):
        self.seen.add(name_of(func))
        return func(*args, **(kwargs or {}))


def arguments():
    """Positional arguments that one function or another takes."""
    x = torch.rand(2, 8, 4, 4) + 0.1
    rows, line = x[0], x[0, 0, 0, 0]
    yield from [(x,), (x, x), (x, x, x), (x, 1), (x, 0), (x, 2), (x, 0, 1), (x, -5, 5)]
    yield from [(x, (2, 2)), (x, [2, 2], 1), (x, [1, 0, 2, 3]), (x, (2, 8, 4, 4))]
    yield from [(x, [4]), (x, [1, 1]), (x, 1, (2, 4)), (x, 0.5, False), (x, [1, 7], 1)]
    yield from [(x > 0,), (x > 0, x > 0), (x, x > 0, 1), ([x, x],), (2, x)]
    yield from [(rows, 2), (rows, 2, 2), (rows[0],), (line,), (line > 0,), (line, "")]
    yield from [(x, torch.rand(n)) for n in (4, 8)]
    yield (x, torch.zeros(8), torch.ones(8))
    yield (torch.tensor([1, 2]), torch.rand(3, 4))
    yield (x, torch.rand(3, 4))
    for shape in [(3, 8, 1, 1), (8, 3, 1, 1)]:
        yield (x, torch.rand(shape))
        yield (rows, torch.rand(3, 4, 1))
        yield (rows, torch.rand(4, 3, 1))
        yield (x[..., None], torch.rand(*shape, 1))


def called(function):
    """Names seen when a function, or an attribute of that name, is used."""
    names = Names()
    for args in arguments():
        with names:
            try:
                if callable(function):
                    function(*args)
                else:
                    getattr(args[0], function)
            except Exception:  # noqa: S112  (arguments of other functions)
                continue
    return names.seen


def spellings(name):
    """Public functions, methods and attributes of a name."""
    for space in (F, torch, torch.Tensor):
        squeezed = name.replace("_", "")
        for spelling in (name, f"{name}_", f"_{name}", f"__{name}__", squeezed):
            found = space.__dict__.get(spelling, getattr(torch.Tensor, spelling, None))
            if isinstance(found, (property, type(torch.Tensor.shape))):
                yield f"Tensor.{spelling}", spelling
            elif callable(found):
                yield f"{space.__name__}.{spelling}", found


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", RULES)
def test_rule_fires(name):
    if name == "set_requires_grad":
        names = Names()
        with names:
            torch.zeros(2).requires_grad = True
        assert name in names.seen
        return
    assert any(name in called(function) for _, function in spellings(name))


ACTIVATIONS = (
    "relu relu_ relu6 leaky_relu elu selu celu gelu silu mish softplus softsign "
    "softshrink hardshrink tanhshrink hardtanh hardswish hardsigmoid logsigmoid sigmoid "
    "tanh rrelu dropout dropout2d alpha_dropout feature_alpha_dropout"
).split()
OPERATORS = {
    "1 + x": lambda x: 1 + x,
    "1 - x": lambda x: 1 - x,
    "2 * x": lambda x: 2 * x,
    "1 / x": lambda x: 1 / (3 + x.abs()),
    "2 ** x": lambda x: 2**x,
    "x / 2": lambda x: x / 2,
    "x // 2": lambda x: x // 0.1,
    "1 // x": lambda x: 10 // (3 + x.abs()),
    "x % 2": lambda x: x % 2,
    "2 % x": lambda x: 2 % (3 + x.abs()),
    "+x": lambda x: +x,
    "-x": lambda x: -x,
    "abs": abs,
    "~": lambda x: x * ~(x > 0),
    "^": lambda x: x * ((x > 0) ^ (x > 0.5)),
    "<": lambda x: x * (0.1 < x),
    **{f.__name__: lambda x, f=f: f(x.clone(), 2) for f in (
        op.iadd, op.isub, op.imul, op.itruediv, op.ifloordiv, op.imod,
    )},
}  # fmt: skip


@pytest.mark.parametrize("name", [*ACTIVATIONS, *OPERATORS])
def test_elementwise_functions_leave_the_channels_alone(name):
    function = OPERATORS.get(name) or getattr(F, name)

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.last = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 2, 1)

        def forward(self, x):
            if "dropout" in name:
                return self.last(function(self.first(x), training=self.training))
            return self.last(function(self.first(x)))

    torch.manual_seed(0)
    graph = trace_channels(Net(), torch.randn(2, 3, 5, 5))
    assert graph.n_genes == 8, graph
