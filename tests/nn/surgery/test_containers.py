"""Outputs and inputs in containers of all kinds."""

import collections
import functools
import types
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from sklcomp.nn import (
    collect_covariances,
    count_macs,
    fold_batchnorm,
    mask_channels,
    measure_latency,
    prune_channels,
    trace_channels,
)
from sklcomp.nn._running import copied, tensors_in


@dataclass
class Plain:
    a: Any
    b: Any


@dataclass(frozen=True)
class Frozen:
    a: Any
    b: Any


@dataclass(slots=True, frozen=True)
class Slots:
    a: Any
    b: Any


class Named(NamedTuple):
    a: Any
    b: Any


class OldSlots:
    __slots__ = ("a", "b")

    def __init__(self, a, b):
        self.a, self.b = a, b


class MoreSlots(OldSlots):
    __slots__ = ("c",)


class Object:
    def __init__(self, a, b):
        self.a, self.b = a, b


class ListWithMore(list):
    """As outputs of some libraries, entries and attributes."""


class DictWithMore(collections.OrderedDict):
    pass


def more(container, b):
    container.b = b
    return container


def self_referring(a, b):
    one = Object(a, [b])
    one.me, one.others = one, {"again": [one]}
    one.b.append(one.b)
    return one


def in_a_chain(a, b):
    """Deeper than a recursion may go."""
    end = Object(a, b)
    for _ in range(5000):
        end = Object(end, None)
    return end


def objects(a, b):
    array = np.empty(2, object)
    array[0], array[1] = a, b
    return array


CONTAINERS = {
    "list": lambda a, b: [a, b],
    "tuple": lambda a, b: (a, b),
    "dict": lambda a, b: {"a": a, "b": b},
    "keys": lambda a, b: {a: 1, b: 2},
    "nested": lambda a, b: {"a": [(a,), {"b": [b, None, 3, "c"]}]},
    "named tuple": Named,
    "dataclass": Plain,
    "frozen": Frozen,
    "slots": Slots,
    "old slots": OldSlots,
    "inherited slots": MoreSlots,
    "object": Object,
    "namespace": lambda a, b: types.SimpleNamespace(a=a, b=b),
    "ordered": lambda a, b: collections.OrderedDict(a=a, b=b),
    "default": lambda a, b: collections.defaultdict(list, a=[a], b=[b]),
    "chain of dicts": lambda a, b: collections.ChainMap({"a": a}, {"b": b}),
    "mapping": lambda a, b: collections.UserDict(a=a, b=b),
    "read-only": lambda a, b: types.MappingProxyType({"a": a, "b": b}),
    "user list": lambda a, b: collections.UserList([a, b]),
    "list with more": lambda a, b: more(ListWithMore([a]), b),
    "dict with more": lambda a, b: more(DictWithMore(a=a), b),
    "deque": lambda a, b: collections.deque([a, b]),
    "set": lambda a, b: {a, b},
    "frozen set": lambda a, b: frozenset([a, b]),
    "iterator": lambda a, b: iter([a, b]),
    "map": lambda a, b: map(torch.relu, [a, b]),
    "zip": lambda a, b: zip("ab", [a, b], strict=True),
    "generator": lambda a, b: (x * 2 for x in (a, b)),
    "object of iterators": lambda a, b: Object(iter([a]), (x for x in [b])),
    "partial": lambda a, b: functools.partial(max, a, key=b),
    "closure": lambda a, b: lambda: (a, b),
    "default of a function": lambda a, b: lambda x=a, *, y=b: (x, y),
    "method": lambda a, b: Object(a, b).__init__,
    "array": objects,
    "distribution": lambda a, b: torch.distributions.Normal(a.mean(1), b.exp().mean(1)),
    "itself": self_referring,
    "chain": in_a_chain,
}
each_container = pytest.mark.parametrize("name", CONTAINERS)


class Returning(nn.Module):
    """Two heads, of which the second is behind a layer of its own."""

    def __init__(self, make):
        super().__init__()
        self.body = nn.Linear(3, 8)
        self.a, self.b = nn.Linear(8, 6), nn.Linear(8, 5)
        self.make = make

    def forward(self, x):
        x = F.relu(self.body(x))
        return self.make(self.a(x), self.b(x))


def shapes(value):
    return sorted(tuple(t.shape) for t in tensors_in(value, drains=True))


@each_container
def test_outputs_in_containers_keep_their_shape(name):
    torch.manual_seed(0)
    net, x = Returning(CONTAINERS[name]), torch.randn(4, 3)
    graph = trace_channels(net, x)
    assert graph.n_genes == 8
    if name != "distribution":
        reasons = {"is an output of the network"}
        assert {graph.frozen["a"], graph.frozen["b"]} == reasons
    assert graph.genes_of("a").size == graph.genes_of("b").size == 0
    keep = np.arange(8) < 3
    small, masked = (f(net, graph, keep) for f in (prune_channels, mask_channels))
    assert small.body.out_features == 3
    with torch.no_grad():
        assert shapes(small(x)) == shapes(masked(x)) == shapes(net(x))


@each_container
def test_containers_are_compared(name):
    def roll(x):
        # What no mode of torch functions sees.
        with torch._C.DisableTorchFunction():
            return x.copy_(x.roll(1, 1))

    class Inner(Returning):
        def forward(self, x):
            x = F.relu(self.body(x))
            return self.make(self.a(x), self.b(roll(x)))

    torch.manual_seed(0)
    assert trace_channels(Inner(CONTAINERS[name]), torch.randn(4, 3)).n_genes == 0


# Those that hold what they are given, as it is.
HOLDING = sorted(CONTAINERS.keys() - {"map", "generator", "distribution"})
# Those of them that can be copied as they are.
COPIED = sorted(
    set(HOLDING)
    - {"zip", "object of iterators", "chain", "method", "read-only", "closure"}
    - {"default of a function"}
)


@pytest.mark.parametrize("name", HOLDING)
def test_tensors_are_found_once_and_in_order(name):
    a, b = torch.zeros(2, 3), torch.ones(2, 3)
    found = tensors_in([a, CONTAINERS[name](a, b), b], drains=True)
    assert len(found) == 2
    assert found[0] is a
    assert found[1] is b


def test_iterators_are_not_read_unless_asked():
    generator, iterator = (torch.ones(n) for n in (1, 2)), iter([torch.ones(3)])
    tensors_in([generator, iterator])
    assert [len(t) for t in generator] == [1, 2]
    assert [len(t) for t in iterator] == [3]


def test_an_iterator_without_end_is_refused():
    def endless(a, b):
        while True:
            yield a

    with pytest.raises(ValueError, match="generator of more than 100,000 items"):
        trace_channels(Returning(endless), torch.zeros(2, 3))


@pytest.mark.parametrize(
    "make",
    [
        lambda a, b: None,
        lambda a, b: float(a.sum() + b.sum()),
        lambda a, b: (a.detach().numpy(), {}, []),
        lambda a, b: Plain(1, "b"),
    ],
)
def test_an_output_without_tensors_is_an_error(make):
    with pytest.raises(ValueError, match="no tensor is found in what Returning"):
        trace_channels(Returning(make), torch.zeros(2, 3))


class Keeping(Returning):
    """Leaves an output where a loss may find it."""

    def forward(self, x):
        x = F.relu(self.body(x))
        self.auxiliary = Slots(self.a(x), [])
        return self.b(x)


def test_what_is_left_in_attributes_keeps_its_shape():
    net, x = Keeping(None), torch.randn(4, 3)
    graph = trace_channels(net, x)
    assert graph.frozen["a"] == "is kept in an attribute of the network"
    assert not hasattr(net, "auxiliary")
    small = prune_channels(net, graph, np.arange(8) < 3)
    small(x)
    assert small.auxiliary.a.shape == (4, 6)


class Taking(nn.Module):
    """Parts hand each other containers, and so does who calls it."""

    def __init__(self, make):
        super().__init__()
        self.make, self.inner = make, Inner()
        self.last = nn.Linear(8, 2)

    def forward(self, x, others=None):
        (x,) = tensors_in(self.inner(self.make(x, others)))
        return self.last(x)


class Inner(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 8)

    def forward(self, value):
        found = tensors_in(value, drains=True)
        return [self.layer(sum(found))]


@pytest.mark.parametrize("name", HOLDING)
def test_containers_between_parts(name):
    net, x = Taking(CONTAINERS[name]), torch.randn(4, 3)
    graph = trace_channels(net, {"x": x, "others": x + 1})
    assert graph.n_genes == 8
    found = collect_covariances(net, graph, (x, x + 1))
    assert found.moments["last.weight"].mean.shape == (8,)


@pytest.mark.parametrize("kind", ["generator", "map", "nested"])
def test_what_iterators_compute_counts(kind):
    class Lazy(Returning):
        """Nothing of the heads has run when the forward ends."""

        def forward(self, x):
            x = F.relu(self.body(x))
            if kind == "map":
                return map(nn.Module.__call__, [self.a, self.b], [x, x])
            heads = (head(x) for head in (self.a, self.b))
            return heads if kind == "generator" else Slots(1, [heads])

    net, x = Lazy(None), torch.randn(4, 3)
    assert count_macs(net, (3,)) == 3 * 8 + 8 * 6 + 8 * 5
    graph = trace_channels(net, x)
    moments = collect_covariances(net, graph, x).moments
    assert moments.keys() == {"a.weight", "b.weight"}
    assert measure_latency(net, x, n_repeats=1).median > 0


@pytest.mark.parametrize("name", COPIED)
def test_copies_keep_their_kind(name):
    value = CONTAINERS[name](torch.zeros(2, 3), torch.ones(2, 3))
    copy = copied(value)
    assert type(copy) is type(value)
    assert len(tensors_in(copy)) == 2
    for old, new in zip(tensors_in(value), tensors_in(copy), strict=True):
        assert torch.equal(old, new)
        assert old.data_ptr() != new.data_ptr()


def test_a_list_stays_a_list():
    class Listing(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(3, 2)

        def forward(self, pair, named):
            assert type(pair) is list
            assert type(named) is Named
            pair.append(named.b)
            return self.layer(sum(pair))

    x = torch.randn(4, 3)
    example = ([x, x], Named(None, x))
    trace_channels(Listing(), example)
    assert len(example[0]) == 2
    assert tensors_in(example) == [x]


def test_a_generator_as_input_is_refused():
    with pytest.raises(TypeError, match="the input cannot be copied.*Give tensors"):
        trace_channels(Returning(Plain), ((x for x in [torch.zeros(2, 3)]),))


@pytest.mark.parametrize("name", ["slots", "set", "itself", "generator", "read-only"])
def test_norms_are_folded_in_networks_that_return_containers(name):
    net = nn.Sequential(nn.Linear(3, 6), nn.BatchNorm1d(6), Returning(CONTAINERS[name]))
    net[2].body = nn.Linear(6, 8)
    folded = fold_batchnorm(net, torch.randn(4, 3))
    assert isinstance(folded[1], nn.Identity)
