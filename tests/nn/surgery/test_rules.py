"""Every rule of the tracer fires, for every way to call its function."""

import inspect
import operator as op

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.overrides import TorchFunctionMode, get_testing_overrides

from sklcomp.nn import mask_channels, prune_channels, trace_channels
from sklcomp.nn._running import tensors_in
from sklcomp.nn.surgery._tracing import RULES, ChannelTracer, name_of


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
            except Exception:  # arguments of other functions
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


ACTIVATIONS = """
    relu relu_ relu6 leaky_relu elu selu celu gelu silu mish softplus softsign
    softshrink hardshrink tanhshrink hardtanh hardswish hardsigmoid logsigmoid
    sigmoid tanh rrelu dropout dropout2d alpha_dropout feature_alpha_dropout
"""
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
    "<": lambda x: x * (x < 0.1),
    **{f.__name__: lambda x, f=f: f(x.clone(), 2) for f in (
        op.iadd, op.isub, op.imul, op.itruediv, op.ifloordiv, op.imod,
    )},
}  # fmt: skip


@pytest.mark.parametrize("name", [*ACTIVATIONS.split(), *OPERATORS])
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


class Parts(nn.Module):
    """Tensors of a network in every role."""

    def __init__(self):
        super().__init__()
        self.conv, self.line = nn.Conv2d(3, 8, 1), nn.Conv1d(3, 8, 1)
        self.linear, self.next = nn.Linear(8, 5), nn.Conv2d(8, 5, 3)
        self.up, self.each = nn.ConvTranspose2d(8, 5, 3), nn.Conv2d(8, 8, 3, groups=8)
        self.norm, self.table = nn.BatchNorm2d(8), nn.Embedding(7, 4)
        self.other, self.last = nn.Conv2d(3, 8, 1), nn.LayerNorm(8)
        self.prelu = nn.PReLU(8)


# Function -> its positional arguments, of images x and y of eight channels, and parts.
CALLS = {
    F.linear: lambda x, y, m: (x.movedim(1, -1), m.linear.weight, m.linear.bias),
    F.conv2d: lambda x, y, m: (x, m.next.weight, m.next.bias, 1, 1),
    F.conv_transpose2d: lambda x, y, m: (x, m.up.weight, m.up.bias, 2),
    F.embedding: lambda x, y, m: (torch.tensor([1, 2]), m.table.weight),
    F.batch_norm: lambda x, y, m: (
        x, m.norm.running_mean, m.norm.running_var, m.norm.weight, m.norm.bias,
    ),
    F.instance_norm: lambda x, y, m: (x, None, None, m.norm.weight, m.norm.bias),
    F.layer_norm: lambda x, y, m: (
        x.movedim(1, -1), [8], m.last.weight, m.last.bias,
    ),
    F.rms_norm: lambda x, y, m: (x.movedim(1, -1), [8], m.last.weight),
    F.group_norm: lambda x, y, m: (x, 2, m.norm.weight, m.norm.bias),
    F.prelu: lambda x, y, m: (x, m.prelu.weight),
    F.relu: lambda x, y, m: (x,),
    F.dropout: lambda x, y, m: (x, 0.5, False),
    F.leaky_relu: lambda x, y, m: (x, 0.1),
    F.glu: lambda x, y, m: (x, 1),
    F.pad: lambda x, y, m: (x, [0, 1, 0, 1]),
    F.normalize: lambda x, y, m: (x, 2, 3),
    F.softmax: lambda x, y, m: (x, 1),
    F.pixel_shuffle: lambda x, y, m: (x, 2),
    F.pixel_unshuffle: lambda x, y, m: (x, 2),
    F.max_pool2d: lambda x, y, m: (x, [2, 2]),
    F.avg_pool2d: lambda x, y, m: (x, [2, 2]),
    F.adaptive_avg_pool2d: lambda x, y, m: (x, [1, 1]),
    F.interpolate: lambda x, y, m: (x, None, 2),
    torch.cat: lambda x, y, m: ([x, y], 1),
    torch.concatenate: lambda x, y, m: ([x, y], 0),
    torch.stack: lambda x, y, m: ([x, y], 1),
    torch.unbind: lambda x, y, m: (x, 2),
    torch.chunk: lambda x, y, m: (x, 2, 1),
    torch.split: lambda x, y, m: (x, 4, 1),
    torch.tensor_split: lambda x, y, m: (x, 2, 1),
    torch.add: lambda x, y, m: (x, y),
    torch.where: lambda x, y, m: (x > 0, x, y),
    torch.clamp: lambda x, y, m: (x, -1, 1),
    torch.max: lambda x, y, m: (x, y),
    torch.min: lambda x, y, m: (x, 2, True),
    torch.lerp: lambda x, y, m: (x, y, 0.5),
    torch.mean: lambda x, y, m: (x, [2, 3]),
    torch.sum: lambda x, y, m: (x, [1, 2], True),
    torch.amax: lambda x, y, m: (x, [2, 3]),
    torch.norm: lambda x, y, m: (x, 2, [2, 3]),
    torch.cumsum: lambda x, y, m: (x, 2),
    torch.flip: lambda x, y, m: (x, [1]),
    torch.roll: lambda x, y, m: (x, 1, 1),
    torch.permute: lambda x, y, m: (x, [0, 2, 3, 1]),
    torch.transpose: lambda x, y, m: (x, 1, 2),
    torch.movedim: lambda x, y, m: (x, 1, 3),
    torch.reshape: lambda x, y, m: (x, [2, 8, 16]),
    torch.flatten: lambda x, y, m: (x, 1),
    torch.unflatten: lambda x, y, m: (x, 1, [2, 4]),
    torch.unsqueeze: lambda x, y, m: (x, 1),
    torch.squeeze: lambda x, y, m: (x, 1),
    torch.broadcast_to: lambda x, y, m: (x, [3, 2, 8, 4, 4]),
    torch.tile: lambda x, y, m: (x, [1, 2, 1, 1]),
}  # fmt: skip

# Names of arguments, where torch tells others than it takes.
NAMES = {
    F.max_pool2d: ("input", "kernel_size"),
    torch.tensor_split: ("input", "sections", "dim"),
    torch.where: ("condition", "input", "other"),
    torch.max: ("input", "other"),
    torch.min: ("input", "dim", "keepdim"),
    torch.sum: ("input", "dim", "keepdim"),
    torch.permute: ("input", "dims"),
    torch.broadcast_to: ("input", "size"),
}


def known(function, form):
    """What a trace knows after a call: classes, the frozen, and of which axes."""
    torch.manual_seed(0)
    module = Parts().eval()
    trace = ChannelTracer(module)
    with torch.no_grad(), trace:
        images = torch.randn(2, 3, 4, 4)
        x, y = module.conv(images), module.other(images)
        args = CALLS[function](x, y, module)
        if form == "positional":
            result = function(*args)
        elif form == "tuples":
            result = function(*(tuple(a) if isinstance(a, list) else a for a in args))
        else:
            names = (
                NAMES.get(function)
                or inspect.signature(
                    function
                    if inspect.isfunction(function)
                    else get_testing_overrides()[function]
                ).parameters
            )
            result = function(**dict(zip(names, args, strict=False)))
    label, frozen = trace.ids.classes()
    axes = [
        tuple(None if ids is None else label[ids].tolist() for ids in trace.axes(t))
        for t in tensors_in(result)
    ]
    return axes, label.tolist(), frozen, trace.consumers, trace.uses, trace.sizes.keys()


@pytest.mark.parametrize("form", ["keywords", "tuples"])
@pytest.mark.parametrize("function", CALLS, ids=lambda f: f.__name__)
def test_form_of_a_call_makes_no_difference(function, form):
    want = known(function, "positional")
    assert len(want[1]) > len(want[2]), "all is frozen"
    assert known(function, form) == want


class Op(nn.Module):
    """One operation between layers of eight channels, on axis 1 or the last."""

    def __init__(self, op, is_last):
        super().__init__()
        layer = nn.Linear if is_last else nn.Conv1d
        sizes = [(3, 8), (8, 2)] if is_last else [(3, 8, 1), (8, 2, 1)]
        self.first, self.last = (layer(*size) for size in sizes)
        self.op = op
        self.table = nn.Embedding(8, 8)

    def forward(self, x):
        return self.last(self.op(self, self.first(x)))


def squeezed(net, x):
    x = x.unsqueeze(1).clone()
    x.squeeze_(1)
    return x


def turned(net, x):
    x = x.clone()
    x.transpose_(1, 2)
    return x.transpose(1, 2)


def looked_up(net, x):
    n = torch.arange(x.shape[1]) % 8
    return x + F.embedding(n, net.table.weight * 2).sum(-1)[:, None] * 0


def normalised(net, x):
    n = x.shape[1]
    return torch.batch_norm(
        x,
        *(f(n).to(x) for f in (torch.ones, torch.zeros) * 2),
        False,
        0.1,
        1e-5,
        False,
    )


# Operation, where the channels are -> how many of them may go.
CORNERS = {
    "roll of all": (lambda net, x: x.roll(1), True, 0),
    "roll of places": (lambda net, x: x.roll(1, 1), True, 8),
    "roll by keyword": (lambda net, x: torch.roll(x, shifts=1, dims=1), True, 8),
    "pool of channels": (
        lambda net, x: F.max_pool2d(x.mT, 3, 1, 1).mT, True, 0,
    ),
    "pool of places": (lambda net, x: F.avg_pool1d(x, 3, 1, 1), False, 8),
    "pool with indices": (
        lambda net, x: F.max_pool1d(x, 3, 1, 1, return_indices=True)[0], False, 8,
    ),
    "instance norm of channels": (lambda net, x: F.instance_norm(x), True, 0),
    "instance norm of places": (lambda net, x: F.instance_norm(x), False, 8),
    "group norm of places": (lambda net, x: F.group_norm(x, 5), True, 0),
    "batch norm of the batch": (
        lambda net, x: F.batch_norm(x, None, None, training=True), True, 0,
    ),
    "torch.batch_norm": (normalised, False, 0),
    "squeezed in place": (squeezed, False, 0),
    "turned in place": (turned, False, 0),
    "out": (lambda net, x: torch.add(x, 1, out=torch.empty_like(x)), False, 0),
    "data": (lambda net, x: x.data.relu(), False, 8),
    "sum over no axis": (lambda net, x: x + x.sum(dim=[])[None], False, 0),
    "computed table": (looked_up, False, 0),
    "product with a list": (lambda net, x: x * torch.tensor([1.0] * 5), False, 8),
}  # fmt: skip


@pytest.mark.parametrize("name", CORNERS)
def test_corner(name):
    op, is_last, n_free = CORNERS[name]
    torch.manual_seed(0)
    net = Op(op, is_last).double().eval()
    x = torch.randn(4, 5, 3).double()
    x = x if is_last else x.transpose(1, 2).contiguous()
    graph = trace_channels(net, x)
    assert graph.n_genes == n_free, graph
    rng = np.random.default_rng(0)
    for _ in range(3 if n_free else 0):
        keep = rng.permutation(8) < 5
        with torch.no_grad():
            pruned, masked = (
                f(net, graph, keep)(x) for f in (prune_channels, mask_channels)
            )
        torch.testing.assert_close(pruned, masked)


@pytest.mark.parametrize("name", [k for k, v in CORNERS.items() if not v[2]])
def test_corner_is_frozen_by_its_rule_and_not_by_luck(name):
    # Without the check of the result.
    op, is_last, _ = CORNERS[name]
    net = Op(op, is_last).eval()
    x = torch.randn(4, 5, 3) if is_last else torch.randn(4, 3, 5)
    trace = ChannelTracer(net)
    with torch.no_grad(), trace:
        result = net.first(x)
        net.op(net, result)
    label, frozen = trace.ids.classes()
    axis = trace.axes(result)[-1 if is_last else 1]
    assert set(label[axis].tolist()) <= frozen.keys()
