import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from sklcomp.nn.surgery._tracing import RULES, ChannelTracer, name_of, rule
from tests.helpers.tracing import Tensors, count_free, follow


def names_called(function):
    """Names under which a function comes to a tracer."""
    seen = []
    module = Tensors(x=(4, 6))

    class Watching(ChannelTracer):
        def __torch_function__(self, func, types, args=(), kwargs=None):
            seen.append(name_of(func))
            return super().__torch_function__(func, types, args, kwargs)

    with torch.no_grad(), Watching(module):
        function(module.x)
    return seen


@pytest.mark.parametrize(("function", "name"), [
    (lambda x: x + 1, "add"), (lambda x: x.add(1), "add"),
    (lambda x: x.clone().add_(1), "add"), (lambda x: torch.add(x, 1), "add"),
    (lambda x: x[0], "getitem"),
    (lambda x: x.shape, "shape"), (lambda x: x.T, "T"), (F.relu, "relu"),
    (lambda x: F.relu(x.clone(), inplace=True), "relu"), (torch.relu, "relu"),
    (lambda x: setattr(x, "requires_grad", False), "set_requires_grad"),
])  # fmt: skip
def test_spellings_of_a_function_have_one_name(function, name):
    assert names_called(function)[-1] == name


def test_results_are_those_of_torch():
    module = Tensors(x=(4, 6), w=(3, 6))
    out = torch.empty(4, 6, dtype=torch.float64)

    def function(m):
        x = torch.add(m.x, 1, out=out).softmax(1)
        return F.linear(input=x, weight=m.w), x.max(dim=1), x.shape

    _, (found, (values, places), shape) = follow(module, function)
    with torch.no_grad():
        want, (other, others), _ = function(module)
    assert torch.equal(found, want)
    assert torch.equal(values, other)
    assert torch.equal(places, others)
    assert shape == (4, 6)


def test_what_has_no_rule_freezes_all_that_enters_it():
    module = Tensors(x=(4, 6), y=(6, 3), z=(6, 3))
    trace, result = follow(module, lambda m: (m.x @ m.y, m.z * 2)[0])
    assert count_free(trace, "x") == count_free(trace, "y") == [0, 0]
    assert count_free(trace, "z") == [6, 3]
    assert trace.axes(result) == (None, None)


def test_what_a_rule_stumbles_over_is_frozen(monkeypatch):
    def stumble(trace, result, input):
        raise ZeroDivisionError

    monkeypatch.setitem(RULES, "tanh", stumble)
    trace, _ = follow(Tensors(x=(4, 6)), lambda m: m.x.tanh())
    assert count_free(trace, "x") == [0, 0]


def test_a_rule_gets_other_names_of_arguments_as_its_own(monkeypatch):
    seen = {}

    def look(trace, result, input, dim=None, keepdim=False):
        seen.update(dim=dim, keepdim=keepdim, n=input.numel())

    monkeypatch.setitem(RULES, "sum", look)
    follow(Tensors(x=(4, 6)), lambda m: torch.sum(m.x, axis=1, keepdims=True))
    assert seen == {"dim": 1, "keepdim": True, "n": 24}


def test_rule_enters_every_name_and_gives_the_function_back(monkeypatch):
    for name in ("cosh", "acosh"):
        monkeypatch.setitem(RULES, name, None)

    def function(trace, result, *args):
        """Nothing."""

    assert rule("cosh acosh")(function) is function
    assert RULES["cosh"] is RULES["acosh"] is function


@pytest.mark.parametrize("function", [
    lambda m: torch.tanh(m.x, out=torch.empty_like(m.x)),
    lambda m: m.x.clone().unsqueeze_(0),
    lambda m: m.x.clone().t_(),
])  # fmt: skip
def test_results_that_are_put_elsewhere_and_shapes_that_change_are_frozen(function):
    trace, _ = follow(Tensors(x=(4, 6)), function)
    assert count_free(trace, "x") == [0, 0]


def test_axes_of_one_entry_are_fixed_and_tensors_of_nobody_have_none():
    module = Tensors(x=(1, 6, 1))
    trace = ChannelTracer(module)
    assert [ids is None for ids in trace.axes(module.x)] == [True, False, True]
    assert trace.axes(torch.ones(2, 3)) == (None, None)
    assert trace.is_tracked(module.x)
    assert not trace.is_tracked(torch.ones(2, 3))


def test_identities_of_a_parameter_are_made_once_and_only_when_asked():
    module = Tensors(x=(4, 6), y=(2,))
    trace = ChannelTracer(module)
    first, second = trace.axes(module.x), trace.axes(module.x)
    for one, two in zip(first, second, strict=True):
        np.testing.assert_array_equal(one, two)
    assert trace.ids.size == 10
    assert list(trace.slots) == ["x"]


def test_buffers_have_identities_as_parameters_have():
    net = nn.Sequential(nn.Conv1d(2, 6, 1), nn.BatchNorm1d(6)).eval()
    trace, _ = follow(net, lambda m: m(torch.randn(3, 2, 4)))
    label = trace.ids.classes()[0]
    for name in ("1.running_mean", "1.running_var", "1.weight", "0.bias"):
        np.testing.assert_array_equal(
            label[trace.slots[name][0]], label[trace.slots["0.weight"][0]]
        )


def test_axes_of_other_lengths_than_the_tensor_are_an_error():
    module = Tensors(x=(4, 6))
    trace = ChannelTracer(module)
    axes = trace.axes(module.x)
    with pytest.raises(ValueError, match=r"axes of lengths \[4, 6\] for a.*\(4, 5\)"):
        trace.set_axes(torch.ones(4, 5), axes)
    with pytest.raises(ValueError, match="zip"):
        trace.set_axes(torch.ones(4), axes)
    result = torch.ones(4, 6)
    trace.set_axes(result, axes)
    assert trace.axes(result) is axes


def test_an_axis_that_is_joined_gets_identities_that_stay():
    trace = ChannelTracer(Tensors(x=(4, 6)))
    own = trace.ids.new(3)
    assert trace.fixed(own, 3) is own
    made = trace.fixed(None, 2)
    label, frozen = trace.ids.classes()
    assert frozen.keys() == set(label[made].tolist())
    assert set(frozen.values()) == {"is joined with a tensor of fixed size in forward"}


def test_messages_name_the_module_that_runs():
    trace = ChannelTracer(nn.Sequential(nn.Linear(2, 3)))
    assert trace.here == "in forward"
    trace.path.append("0")
    assert trace.here == "in '0'"


def test_owner_is_the_module_that_holds_the_weight_unless_another_computes_it():
    net = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 2))
    trace = ChannelTracer(net)
    assert trace.owner(net[1].weight) == "1"
    trace.path.append("0")
    assert trace.owner(net[0].weight) == "0"
    assert trace.owner(net[1].weight) == "1"
    assert trace.owner(None) == trace.owner(2 * net[1].weight) == "0"


def test_uses_add_up_and_consumers_are_each_once():
    net = nn.Sequential(nn.Linear(2, 2))
    net = nn.Sequential(net[0], nn.ReLU(), net[0])
    trace, _ = follow(net, lambda m: m(torch.randn(5, 7, 2)))
    assert trace.uses == {"0.weight": 2 * 5 * 7}
    assert trace.consumers == {("0.weight", 1): {"0"}}


def test_only_sizes_that_are_true_are_entered():
    net = nn.Sequential(nn.Linear(2, 3))
    net[0].out_features, net[0].note = 7, 3
    trace = ChannelTracer(net)
    ids = trace.ids.new(3)
    trace.set_sizes("0", out_features=ids, in_features=None, note=ids, absent=ids)
    assert list(trace.sizes) == [("0", "note")]


def test_maker_is_the_layer_whose_own_result_a_tensor_is():
    net = nn.Sequential(nn.Linear(2, 3), nn.ReLU())
    trace = ChannelTracer(net)
    with torch.no_grad(), trace:
        first = net[0](torch.randn(4, 2))
        second = net[1](first)
        makers = [trace.maker(first), trace.maker(second)]
        first.add_(1)  # what is written to is no longer that
    assert [*makers, trace.maker(first)] == ["0.weight", None, None]


def test_layer_of_one_channel_is_entered_and_stays():
    trace, _ = follow(nn.Linear(3, 1), lambda m: m(torch.randn(4, 3)))
    label, frozen = trace.ids.classes()
    assert frozen[int(label[trace.outputs["weight"]].item())] == "has one channel"
