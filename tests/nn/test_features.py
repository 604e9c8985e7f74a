import pytest
import torch
from torch import nn

from sklcomp.nn._features import PENULTIMATE, capturing, check_layer


class Two(nn.Module):
    """Two heads, of which the one that was made first runs last."""

    def __init__(self):
        super().__init__()
        self.late, self.early = nn.Linear(4, 2), nn.Linear(4, 3)
        self.body, self.idle = nn.Linear(5, 4), nn.Linear(5, 4)

    def forward(self, x):
        x = self.body(x).relu()
        return self.early(x), self.late(x.square())


@pytest.fixture
def net():
    return Two()


@pytest.fixture
def X():
    return torch.randn(6, 5)


def hooks(module):
    return [
        hook
        for part in module.modules()
        for hook in (*part._forward_hooks, *part._forward_pre_hooks)
    ]


def test_penultimate_is_what_the_linear_reads_that_runs_last(net, X):
    with capturing(net, PENULTIMATE) as seen:
        net(X)
    torch.testing.assert_close(seen[0], net.body(X).relu().square())


def test_features_of_a_layer_are_its_output(net, X):
    with capturing(net, "body", len(X)) as seen:
        net(X)
    torch.testing.assert_close(seen[0], net.body(X))


def test_gradients_go_through_features(net, X):
    with capturing(net, PENULTIMATE) as seen:
        net(X)
    (found,) = torch.autograd.grad(seen[0].sum(), net.body.weight)
    want = torch.autograd.grad(net.body(X).relu().square().sum(), net.body.weight)
    torch.testing.assert_close(found, want[0])


def test_what_comes_after_may_work_in_place(X):
    net = nn.Sequential(nn.Linear(5, 4), nn.ReLU(inplace=True), nn.Linear(4, 2))
    with torch.no_grad(), capturing(net, "0") as seen:
        net(X)
    torch.testing.assert_close(seen[0], net[0](X))
    assert (seen[0] < 0).any()


def test_features_have_one_row_for_each_example():
    net = nn.Sequential(nn.Conv2d(1, 3, 2), nn.Flatten(), nn.Linear(12, 2))
    X = torch.randn(6, 1, 3, 3)
    with capturing(net, "0", 6) as seen:
        net(X)
    torch.testing.assert_close(seen[0], net[0](X).flatten(1))


def test_of_two_forwards_the_last_is_kept(net, X):
    with capturing(net, "body") as seen:
        net(X)
        net(2 * X)
    torch.testing.assert_close(seen[0], net.body(2 * X))


@pytest.mark.parametrize("layer", [PENULTIMATE, "body"])
def test_no_hook_stays_even_after_an_error(layer, net, X):
    with capturing(net, layer):
        net(X)
        assert hooks(net)
    assert not hooks(net)
    with pytest.raises(ZeroDivisionError), capturing(net, layer):
        raise ZeroDivisionError
    assert not hooks(net)


def test_layer_that_does_not_run_is_named(net, X):
    with (
        pytest.raises(ValueError, match="'idle' did not run in the forward; name one"),
        capturing(net, "idle"),
    ):
        net(X)
    with capturing(net, "idle", must_run=False) as seen:
        net(X)
    assert not seen


class Odd(nn.Module):
    """Layers that keep no rows of examples."""

    def __init__(self):
        super().__init__()
        self.flat, self.words = nn.Flatten(0), Words()
        self.turned, self.pair = Turned(), Pair()

    def forward(self, x):
        return self.flat(x), self.words(x), self.turned(x), self.pair(x)


class Words(nn.Module):
    def forward(self, x):
        return "words"


class Turned(nn.Module):
    def forward(self, x):
        return x.T


class Pair(nn.Module):
    def forward(self, x):
        return {"first": (2 * x, x)}


@pytest.mark.parametrize(("layer", "message"), [
    ("flat", r"'flat' of Odd gives features of shape \(30,\). Expected \(6 examples"),
    ("turned", r"gives features of shape \(5, 6\). Expected \(6 examples, n_features"),
    ("words", r"gives no tensor. Expected .*: name a layer that keeps the examples"),
])  # fmt: skip
def test_features_that_are_not_of_the_examples_are_refused(layer, message, X):
    net = Odd()
    with pytest.raises(ValueError, match=message), capturing(net, layer, 6):
        net(X)


def test_of_several_tensors_the_first_is_taken(X):
    net = Odd()
    with capturing(net, "pair", 6) as seen:
        net(X)
    assert torch.equal(seen[0], 2 * X)


def test_any_number_of_rows_will_do_where_none_is_told(X):
    net = Odd()
    with capturing(net, "turned") as seen:
        net(X)
    assert torch.equal(seen[0], X.T)


@pytest.mark.parametrize(("make", "layer", "message"), [
    (Two, "head", r"student_layer='head' is no layer of Two; it has late, early, body"),
    (lambda: nn.Sequential(nn.Conv1d(1, 1, 1)), PENULTIMATE,
     'student_layer="penultimate" is the input of the last Linear, and Sequential has '
     "none. Name one of its layers: 0."),
])  # fmt: skip
def test_layers_that_are_not_there_are_named_with_those_that_are(make, layer, message):
    with pytest.raises(ValueError, match=message):
        check_layer(make(), layer, "student_layer")


@pytest.mark.parametrize("layer", ["body", "idle", PENULTIMATE])
def test_layers_that_are_there_are_taken(layer, net):
    assert check_layer(net, layer, "student_layer") is None
