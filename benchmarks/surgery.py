"""Channel surgery: what can be removed, what repair is worth, and what it costs."""

from _harness import ROOT, Report, arguments, data_folder, peak_memory, spread

# isort: split
import copy
import sys
import time
import warnings
from functools import partial

import numpy as np
import torch
import torch_pruning
from _torch_training import error_rate, load_cifar, load_mnist, train
from torch import nn
from torch.optim.swa_utils import update_bn

from sklcomp.nn import (
    LeNet,
    SmallVGG,
    collect_covariances,
    count_parameters,
    elimination_order,
    keep_fraction,
    mask_channels,
    prune_channels,
    trace_channels,
)

sys.path.insert(0, str(ROOT))
from tests.helpers.zoo import ZOO, build

# Largest difference of outputs, in units of the largest output.
EXACT = 1e-5
WIDTHS = (16, 32, 64, 128)


def first_tensor(value):
    if isinstance(value, dict):
        value = next(iter(value.values()))
    return value[0] if isinstance(value, tuple) else value


def difference(net, twin, inputs):
    with torch.no_grad():
        one, two = first_tensor(net(*inputs)), first_tensor(twin(*inputs))
    return ((one - two).abs().max() / two.abs().max()).item()


def ours(net, inputs):
    """A network with half of every segment removed, and its twin by masks."""
    graph = trace_channels(net, inputs)
    keep = keep_fraction(graph, elimination_order(net, graph), 0.5)
    return prune_channels(net, graph, keep), mask_channels(net, graph, keep)


def theirs(net, inputs):
    """The same by Torch-Pruning; the twin masks what its own history names."""
    graph = trace_channels(net, inputs)
    pruned = copy.deepcopy(net)
    outputs = [
        n for n, why in graph.frozen.items() if why == "is an output of the network"
    ]
    example = inputs[0] if len(inputs) == 1 else inputs
    pruner = torch_pruning.pruner.MagnitudePruner(
        pruned,
        example,
        torch_pruning.importance.GroupMagnitudeImportance(p=1),
        pruning_ratio=0.5,
        ignored_layers=[pruned.get_submodule(n) for n in outputs],
    )
    pruner.step()
    pruned(*inputs)
    keep = np.ones(graph.n_genes, bool)
    for layer, is_output, removed in pruner.pruning_history():
        if is_output and layer in graph.layers:
            genes = graph.layers[layer][removed]
            keep[genes[genes >= 0]] = False
    try:
        return pruned, mask_channels(net, graph, keep)
    except (KeyError, ValueError):
        # It chose channels that our genes tie to others: runs, but has no twin.
        return pruned, None


def outcome(remove, name):
    """Factor by which parameters shrink, and whether the result computes the right."""
    net, inputs = build(name)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            pruned, twin = remove(net, inputs)
    except Exception as error:
        return None, f"crashes: {type(error).__name__}: {str(error)[:60]}"
    factor = count_parameters(net) / count_parameters(pruned)
    if twin is None:
        return factor, "runs, not comparable"
    gap = difference(pruned.eval(), twin, inputs)
    return factor, "exact" if gap < EXACT else f"differs by {gap:.1e}"


def zoo(report, folder, quick):
    rows, right, least = [], [], []
    for name in ZOO:
        mine, verdict = outcome(ours, name)
        rival, other = outcome(theirs, name)
        right.append(verdict == "exact")
        if other == "exact":
            least.append(mine >= 0.999 * rival)
        shown = (f"{factor:.2f}x" if factor else "" for factor in (mine, rival))
        rows.append([name, next(shown), verdict, next(shown), other])
    report.table(
        "half of every group removed: parameters before / after; output against mask",
        ["network", "sklcomp", "", "Torch-Pruning", ""],
        rows,
    )
    report.goal("exact on all of the zoo", f"{sum(right)} of {len(ZOO)}", all(right))
    report.goal(
        "removes at least as much as Torch-Pruning wherever that is exact",
        f"{sum(least)} of {len(least)}",
        all(least),
    )


def l1_uniform(net, graph, fraction):
    return keep_fraction(graph, elimination_order(net, graph), fraction)


def reestimated(net, images):
    """A copy whose batch norms have the means and variances of these images."""
    net = copy.deepcopy(net)
    update_bn(torch.split(images, 250), net)
    return net.eval()


def repaired(report, folder, quick):
    cases = {
        "LeNet on MNIST": (LeNet, load_mnist, (0.5, 0.3), {"epochs": 3}),
        "small VGG on CIFAR-10-small": (
            SmallVGG,
            load_cifar,
            (0.75, 0.5),
            {"epochs": 12, "flip": True},
        ),
    }
    rows = []
    for name, (make, load, fractions, settings) in cases.items():
        X, y, X_test, y_test = load(folder)
        found = {fraction: [] for fraction in fractions}
        for seed in range(2 if quick else 3):
            torch.manual_seed(seed)
            net = train(make(), X, y, seed=seed, **settings)
            graph = trace_channels(net, X[:2])
            images = X[np.random.default_rng(seed).permutation(len(X))[:2000]]
            covariances = collect_covariances(net, graph, images)
            surgeon = elimination_order(net, graph, covariances)
            base = error_rate(net, X_test, y_test)
            for fraction in fractions:
                keep = l1_uniform(net, graph, fraction)
                cut = prune_channels(net, graph, keep)
                mended = prune_channels(net, graph, keep, covariances)
                best = prune_channels(
                    net, graph, keep_fraction(graph, surgeon, fraction), covariances
                )
                arms = [cut, mended, best]
                if any(isinstance(part, nn.BatchNorm2d) for part in net.modules()):
                    arms += [reestimated(arm, images) for arm in arms]
                errors = [error_rate(arm, X_test, y_test) for arm in arms]
                found[fraction].append([base, *errors])
        for fraction, errors in found.items():
            errors = np.array(errors)
            for shift, what in ((0, ""), (3, ", batch norms re-estimated")):
                if errors.shape[1] <= 1 + shift:
                    continue
                columns = [0, 1 + shift, 2 + shift, 3 + shift]
                added = errors[:, 1 + shift : 3 + shift] - errors[:, :1]
                ratio = added[:, 1] / added[:, 0]
                rows.append(
                    [
                        f"{name}, {fraction:.0%} of the channels{what}",
                        *(spread(errors[:, column]) for column in columns),
                        spread(ratio),
                    ]
                )
                report.goal(
                    f"{name}, {fraction:.0%}{what}: error added with compensation / "
                    "without <= 0.5",
                    f"{np.median(ratio):.2f}",
                    np.median(ratio) <= 0.5,
                )
    report.table(
        "test error in % before tuning: median (least to largest) over seeds",
        [
            "",
            "unpruned",
            "L1 uniform",
            "L1, compensated",
            "OBS order, compensated",
            "added error: compensated / cut",
        ],
        rows,
    )


def timed(call, repeats=3):
    times = []
    for _ in range(repeats):
        start = time.process_time()
        result = call()
        times.append(time.process_time() - start)
    return result, min(times)


def cost(report, folder, quick):
    rows, times = [], []
    widths = WIDTHS[:2] if quick else WIDTHS
    for width in widths:
        torch.manual_seed(0)
        net = SmallVGG(width).eval()
        X = torch.rand(500, 3, 32, 32)
        graph, trace = timed(lambda net=net, X=X: trace_channels(net, X[:2]))
        found, collect = timed(
            lambda net=net, X=X, graph=graph: collect_covariances(net, graph, X), 1
        )
        order, rank = timed(
            lambda net=net, graph=graph, found=found: elimination_order(
                net, graph, found
            ),
            1 if width > 32 else 3,
        )
        keep = keep_fraction(graph, order, 0.5)
        _, cut = timed(lambda net=net, g=graph, k=keep: prune_channels(net, g, k))
        _, mend = timed(
            lambda net=net, g=graph, k=keep, f=found: prune_channels(net, g, k, f)
        )
        factor = factored(found)
        with torch.no_grad():
            _, forward = timed(lambda net=net, X=X: net(X), 1)
        times.append([trace, collect, mend - cut, rank, factor, forward])
        dims = [len(m.mean) for m in found.moments.values()]
        rows.append(
            [
                width,
                f"{min(dims)} to {max(dims)}",
                *(f"{value:.3f}" for value in times[-1]),
            ]
        )
    logs = np.log(np.maximum(times, 1e-6))
    slopes = np.polyfit(np.log(widths), logs, 1)[0]
    rows.append(["slope", "", *(f"{slope:.2f}" for slope in slopes)])
    report.table(
        "small VGG, CPU seconds by base width, one thread (500 images)",
        [
            "width",
            "dimensions",
            "tracing",
            "covariances",
            "compensation",
            "OBS order",
            "Cholesky of the covariances",
            "forward",
        ],
        rows,
    )
    steepness(report, widths[:-1] if quick else (8, 16, 32, 64))


def steepness(report, widths):
    """The order against the Cholesky factors, with patches at every width."""
    rows = []
    for width in widths:
        torch.manual_seed(0)
        net, X = SmallVGG(width).eval(), torch.rand(200, 3, 32, 32)
        graph = trace_channels(net, X[:2])
        found = collect_covariances(net, graph, X, max_dims=10**5)
        repeats = 1 if width > 32 else 3
        _, rank = timed(
            lambda net=net, graph=graph, found=found: elimination_order(
                net, graph, found
            ),
            repeats,
        )
        rows.append([rank, factored(found, repeats)])
    slopes = np.polyfit(np.log(widths), np.log(rows), 1)[0]
    report.table(
        "covariances of patches at every width (max_dims lifted), CPU seconds",
        ["width", "OBS order", "Cholesky of the covariances"],
        [
            *(
                [w, f"{a:.3f}", f"{b:.3f}"]
                for w, (a, b) in zip(widths, rows, strict=True)
            ),
            ["slope", *(f"{slope:.2f}" for slope in slopes)],
        ],
    )
    report.goal(
        "OBS order no steeper in width than the Cholesky of its covariances",
        f"{slopes[0]:.2f} against {slopes[1]:.2f}",
        slopes[0] <= slopes[1],
    )


def factored(found, repeats=3):
    """CPU seconds of the Cholesky factors of all covariances."""
    return timed(
        lambda: [
            torch.linalg.cholesky(m.covariance + torch.eye(len(m.mean)).double())
            for m in found.moments.values()
        ],
        repeats,
    )[1]


class FlatVGG(nn.Module):
    """Stages of one convolution, and a hidden layer that reads all 4 x 4 pixels."""

    def __init__(self, widths=(32, 64, 128), hidden=256):
        super().__init__()
        layers, inputs = [], 3
        for width in widths:
            layers += [
                nn.Conv2d(inputs, width, 3, padding=1, bias=False),
                nn.BatchNorm2d(width),
                nn.ReLU(),
                nn.MaxPool2d(2),
            ]
            inputs = width
        self.features = nn.Sequential(*layers, nn.Flatten())
        self.hidden = nn.Linear(16 * inputs, hidden)
        self.output = nn.Linear(hidden, 10)

    def forward(self, x):
        return self.output(torch.relu(self.hidden(self.features(x))))


# Channels, pixels along an axis, outputs of a Linear behind a flatten; the full form
# only where it ends in reasonable time.
WIDE = ((288, 4, 256), (512, 7, 10), (512, 7, 1000), (512, 7, 4096))
FULL = 10**5  # dimensions: no layer is wider
N_WIDE = 1000


def wide_net(n_channels, size, n_outputs):
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(8, n_channels, 1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(n_channels * size**2, n_outputs),
    )
    return net, torch.randn(N_WIDE, 8, size, size)


def make_wide(*case):
    """What is there before: kept, or its pages would be used again."""
    make_wide.kept = wide_net(*case)


def remove_wide(case, max_dims, times=None):
    """Covariances, order and repair of half of the channels."""
    net, X = getattr(make_wide, "kept", None) or wide_net(*case)
    graph = trace_channels(net, X[:2])
    clock = [time.process_time()]
    found = collect_covariances(net, graph, X, max_dims=max_dims)
    clock.append(time.process_time())
    order = elimination_order(net, graph, found)
    clock.append(time.process_time())
    prune_channels(net, graph, keep_fraction(graph, order, 0.5), found)
    clock.append(time.process_time())
    if times is not None:
        times.extend(np.diff(clock))


def flattened(report, folder, quick):
    """A wide Linear behind a flatten: what sharing costs, and what it is worth."""
    rows = []
    for case in WIDE[: 2 if quick else None]:
        n_inputs = case[0] * case[1] ** 2
        for name, max_dims in (("full", FULL), ("shared", 1500)):
            if name == "full" and n_inputs > 5000:
                continue
            times = []
            remove_wide(case, max_dims, times)
            net, X = wide_net(*case)
            with torch.no_grad():
                _, forward = timed(lambda net=net, X=X: net(X), 1)
            grown = peak_memory(
                partial(remove_wide, case, max_dims), partial(make_wide, *case)
            )
            times[0] -= forward
            rows.append(
                [
                    f"{n_inputs:,} x {case[2]:,}",
                    name,
                    *(f"{value:.2f}" for value in (*times, sum(times), forward)),
                    "" if grown is None else f"{grown / 1e9:.2f}",
                ]
            )
            if name == "shared" and n_inputs > 25_000:
                report.goal(
                    f"{n_inputs:,} inputs, {case[2]:,} outputs: < 5 s and < 1 GB",
                    f"{sum(times):.2f} s, {rows[-1][-1]} GB",
                    sum(times) < 5 and (grown is None or grown < 1e9),
                )
    report.table(
        f"a Linear behind a flatten, {N_WIDE} examples, one thread: CPU seconds beyond "
        "the forward, growth of the peak memory",
        [
            "inputs x outputs",
            "covariance",
            "collecting",
            "order",
            "cut and repair",
            "all",
            "forward of the layer",
            "GB",
        ],
        rows,
    )
    if folder is not None:
        shared_or_full(report, folder, quick)


def shared_or_full(report, folder, quick):
    """Test errors of both forms where both can be had, before and after tuning."""
    X, y, X_test, y_test = load_cifar(folder)
    found = {0.5: [], 0.25: []}
    for seed in range(2 if quick else 3):
        torch.manual_seed(seed)
        net = train(FlatVGG(), X, y, seed=seed, epochs=5, flip=True)
        graph = trace_channels(net, X[:2])
        images = X[np.random.default_rng(seed).permutation(len(X))[:2000]]
        for fraction, errors in found.items():
            row = [error_rate(net, X_test, y_test)]
            for max_dims in (FULL, 1500):
                moments = collect_covariances(net, graph, images, max_dims=max_dims)
                order = elimination_order(net, graph, moments)
                keep = keep_fraction(graph, order, fraction)
                small = reestimated(prune_channels(net, graph, keep, moments), images)
                row.append(error_rate(small, X_test, y_test))
                train(small, X, y, seed=100, epochs=2, lr=0.01, flip=True)
                row.append(error_rate(small, X_test, y_test))
            errors.append(row)
    rows = []
    for fraction, errors in found.items():
        errors = np.array(errors)
        gap = errors[:, 4] - errors[:, 2]
        rows.append(
            [
                f"{fraction:.0%}",
                *(spread(errors[:, k]) for k in (0, 1, 3, 2, 4)),
                spread(gap),
            ]
        )
        report.goal(
            f"{fraction:.0%} of the channels: shared not worse after tuning than full "
            "by more than 0.2 points",
            f"{gap.mean():+.2f}",
            gap.mean() <= 0.2,
        )
    report.table(
        "FlatVGG on CIFAR-10-small, 2,048 inputs behind the flatten, test error in %: "
        "median (least to largest) over seeds",
        [
            "channels",
            "unpruned",
            "full",
            "shared",
            "full, tuned",
            "shared, tuned",
            "shared - full, tuned",
        ],
        rows,
    )


GROUPS = {
    "zoo": zoo, "compensation": repaired, "cost": cost, "flatten": flattened,
}  # fmt: skip


def main():
    args = arguments(__doc__, GROUPS)
    report = Report("surgery", quick=args.quick, only=args.only)
    folder = data_folder()
    for name, group in GROUPS.items():
        if args.only and name not in args.only:
            continue
        if name == "compensation" and folder is None:
            continue
        group(report, folder, args.quick)
    report.write()


if __name__ == "__main__":
    main()
