"""Modules that are compiled, scripted, exported, lazy, quantised, or not of float32."""

import threading
import warnings

import numpy as np
import pytest
import torch
from torch import nn

from sklcomp.nn import (
    collect_covariances,
    count_macs,
    fold_batchnorm,
    mask_channels,
    prune_channels,
    trace_channels,
)
from sklcomp.nn._forms import eagerly, plain_copy

X = torch.randn(40, 1, 8, 8, generator=torch.Generator().manual_seed(0))


def plain():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 8, 3),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 6, 3),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(96, 2),
    ).eval()


def with_part(change):
    net = plain()
    net[3] = change(net[3])
    return net


def exported():
    return torch.export.export(plain(), (X[:2],))


def quantised():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.ao.quantization.quantize_dynamic(plain(), {nn.Linear})


def scripted(module):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.jit.script(module)


def traced(module):
    x = torch.randn(2, 8, 6, 6) if isinstance(module, nn.Conv2d) else X[:2]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.jit.trace(module, x)


REFUSED = {
    "scripted": (lambda: scripted(plain()), "hand over the module that was scripted"),
    "traced": (lambda: traced(plain()), "hand over the module that was scripted"),
    "program": (exported, "is of type ExportedProgram, no nn.Module"),
    "exported": (lambda: exported().module(), "hand over the module that was exported"),
    "quantised": (quantised, "hand over the network of floats"),
    "lazy": (
        lambda: nn.Sequential(nn.Flatten(), nn.LazyLinear(2)), r"run it once.*X\[:2\]",
    ),
    "lazy norm": (lambda: nn.Sequential(nn.LazyBatchNorm2d()), "run it once"),
}  # fmt: skip


@pytest.mark.parametrize("form", REFUSED)
@pytest.mark.parametrize("use", [trace_channels, fold_batchnorm])
def test_what_cannot_be_cut_is_refused_with_the_cure(form, use):
    make, message = REFUSED[form]
    module = make()
    with pytest.raises(ValueError, match=message) as error:
        use(module, X[:2])
    assert str(error.value).count("\n") == 0


@pytest.mark.parametrize("form", ["exported", "lazy", "lazy norm"])
def test_what_cannot_run_is_refused_with_the_cure(form):
    make, message = REFUSED[form]
    with pytest.raises(ValueError, match=message):
        count_macs(make(), (1, 8, 8))


def test_refused_lazy_module_stays_as_it_is():
    net = nn.Sequential(nn.Flatten(), nn.LazyLinear(2))
    with pytest.raises(ValueError, match="lazy"):
        trace_channels(net, X[:2])
    assert isinstance(net[1], nn.LazyLinear)
    net(X[:2])
    assert trace_channels(net, X[:2]).n_genes == 0


class Counting:
    """A backend of torch.compile that counts what it compiles, and changes nothing."""

    def __init__(self):
        self.n = 0

    def __call__(self, graph, example):
        self.n += 1
        return graph.forward


class CompiledFunction(nn.Module):
    def __init__(self, backend):
        super().__init__()
        self.net = plain()
        self.function = torch.compile(torch.tanh, backend=backend)

    def forward(self, x):
        x = self.net[:3](x)
        return self.net[3:](self.function(x))


def compiled_in_place(backend):
    net = plain()
    net.compile(backend=backend)
    return net


COMPILED = {
    "module": lambda backend: torch.compile(plain(), backend=backend),
    "in place": compiled_in_place,
    "part": lambda backend: with_part(lambda m: torch.compile(m, backend=backend)),
    "function": CompiledFunction,
}


@pytest.mark.filterwarnings("ignore")  # of torch, while it compiles
@torch.no_grad()
@pytest.mark.parametrize("form", COMPILED)
def test_compiled_module_is_cut_as_what_it_was_made_of(form):
    backend = Counting()
    torch._dynamo.reset()
    net = COMPILED[form](backend)
    graph = trace_channels(net, X[:2])
    assert graph.n_genes == 14
    covariances = collect_covariances(net, graph, X)
    assert len(covariances.moments) == 2
    # None of it was compiled, but what the user runs still is.
    assert backend.n == 0
    want = net(X)
    # Of torch.compile in place it depends on the version whether it does anything.
    assert backend.n or form == "in place"
    assert torch.equal(net(X), want)
    keep = np.arange(14) % 3 > 0
    pruned = prune_channels(net, graph, keep, covariances)
    expected = prune_channels(
        plain(), trace_channels(plain(), X[:2]), keep, compensate=X
    )
    if form == "function":
        expected = prune_channels(net, graph, keep, covariances)
    torch.testing.assert_close(pruned(X), expected(X))
    small, masked = (f(net, graph, keep)(X) for f in (prune_channels, mask_channels))
    torch.testing.assert_close(small, masked)


def test_copy_is_not_compiled():
    backend = Counting()
    torch._dynamo.reset()
    net = torch.compile(
        with_part(lambda m: torch.compile(m, backend=backend)), backend=backend
    )
    copy = plain_copy(net)
    assert list(copy.state_dict()) == list(plain().state_dict())
    assert torch.equal(copy(X), plain()(X))
    assert backend.n == 0


@torch.no_grad()
def test_compiled_code_runs_eagerly_until_the_last_thread_is_through():
    backend = Counting()
    torch._dynamo.reset()
    net = torch.compile(plain(), backend=backend)
    entered, leave = threading.Event(), threading.Event()

    def other():
        with eagerly():
            entered.set()
            leave.wait(10)

    thread = threading.Thread(target=other)
    with eagerly():
        thread.start()
        assert entered.wait(10)
    net(X)
    assert backend.n == 0
    leave.set()
    thread.join()
    net(X)
    assert backend.n == 1


@pytest.mark.parametrize("script", [scripted, traced])
def test_scripted_part_stays_and_is_named(script):
    net = nn.Sequential(*plain(), nn.Linear(2, 7), nn.Linear(7, 2)).eval()
    net[3] = script(net[3])
    graph = trace_channels(net, X[:2])
    assert graph.frozen["3"] == "is scripted, which fixes its code"
    assert len(graph.genes_of("7")) == 7
    keep = np.arange(graph.n_genes) % 2 > 0
    pruned, masked = (f(net, graph, keep) for f in (prune_channels, mask_channels))
    torch.testing.assert_close(pruned(X), masked(X))
    assert all(parameter.is_leaf for parameter in pruned.parameters())


def test_folding_passes_a_scripted_part():
    net = with_part(scripted)
    folded = fold_batchnorm(net, X)
    assert isinstance(folded[1], nn.Identity)
    torch.testing.assert_close(folded(X), net(X))


@pytest.mark.parametrize(
    "dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64]
)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_every_precision_and_layout_is_cut_exactly(dtype, layout):
    net, x = plain().to(dtype).to(memory_format=layout), X.to(dtype)
    x = x.contiguous(memory_format=layout)
    graph = trace_channels(net, x[:2])
    assert graph.n_genes == 14
    rng = np.random.default_rng(0)
    for _ in range(3):
        keep = rng.permutation(14) < 9
        keep[[0, 8]] = True
        with torch.no_grad():
            pruned, masked = (
                f(net, graph, keep)(x).double() for f in (prune_channels, mask_channels)
            )
            # Equal but for the order of sums.
            scale = 10 * torch.finfo(dtype).eps * masked.abs().max().item()
            torch.testing.assert_close(pruned, masked, rtol=0, atol=scale)
            repaired = prune_channels(net, graph, keep, compensate=x)
            assert repaired[3].weight.dtype == dtype
            error = (repaired(x).double() - net(x).double()).square().mean()
            assert error < (pruned - net(x).double()).square().mean()
