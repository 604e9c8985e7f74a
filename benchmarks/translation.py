"""Unpaired translation and its compression against their rivals."""

from _harness import run_groups

# isort: split
import copy
import itertools
import random
import time
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.frozen import FrozenEstimator
from torch import nn

from sklcomp.compression import CoEvolutionaryPruner
from sklcomp.compression.search._pair_fitness import Direction
from sklcomp.compression.search._pair_training import train_pair
from sklcomp.compression.search._problem import PruningProblem
from sklcomp.datasets import make_unpaired_digits
from sklcomp.metrics import frechet_distance
from sklcomp.nn import (
    CycleGANGenerator,
    PatchDiscriminator,
    count_macs,
    count_parameters,
    trace_channels,
)
from sklcomp.nn._architectures import _draw_small_weights
from sklcomp.nn._running import torch_session
from sklcomp.nn.surgery._cost import ChannelCost
from sklcomp.translation import CycleGANTranslator
from sklcomp.translation._net import CycleGANNet, run
from sklcomp.translation._training import use_channels_last
from sklcomp.translation._unpaired import UnpairedImages

BUDGETS = {"params": {"max_params": 0.3}, "macs": {"max_macs": 0.3}}
NAMES = {"max_params": "of the parameters", "max_macs": "of the MACs"}
# Share of the weights that the published generators keep: 12.3 of 43.4 MB.
PAPER_SHARE = 12.3 / 43.4


class PublishedPool:
    """The buffer of the published code."""

    def __init__(self):
        self.images = []

    def __call__(self, images):
        shown = []
        for image in images:
            image = image[None]
            if len(self.images) < 50:
                self.images.append(image)
                shown.append(image)
            elif random.random() > 0.5:
                k = random.randint(0, 49)
                shown.append(self.images[k].clone())
                self.images[k] = image
            else:
                shown.append(image)
        return torch.cat(shown)


def published_step(nets):
    """The training loop of the published code, as it stands: one step."""
    ab, ba, disc_a, disc_b = nets
    mse, l1 = nn.MSELoss(), nn.L1Loss()
    both = itertools.chain(ab.parameters(), ba.parameters())
    adam = partial(torch.optim.Adam, lr=2e-4, betas=(0.5, 0.999))
    optimizer, optimizer_a, optimizer_b = map(
        adam, (both, disc_a.parameters(), disc_b.parameters())
    )
    pool_a, pool_b = PublishedPool(), PublishedPool()

    def judge(discriminator, images, wanted):
        scores = discriminator(images)
        return mse(scores, torch.full_like(scores, wanted))

    def step(a, b):
        optimizer.zero_grad()
        loss = 5 * l1(ab(b), b) + 5 * l1(ba(a), a)
        fake_b = ab(a)
        loss = loss + judge(disc_b, fake_b, 1.0)
        fake_a = ba(b)
        loss = loss + judge(disc_a, fake_a, 1.0)
        loss = loss + 10 * l1(ba(fake_b), a) + 10 * l1(ab(fake_a), b)
        loss.backward()
        optimizer.step()
        for discriminator, optimizer_d, true, fake, pool in (
            (disc_a, optimizer_a, a, fake_a, pool_a),
            (disc_b, optimizer_b, b, fake_b, pool_b),
        ):
            optimizer_d.zero_grad()
            shown = pool(fake.detach())
            half = judge(discriminator, true, 1.0) + judge(discriminator, shown, 0.0)
            (half * 0.5).backward()
            optimizer_d.step()

    return step


def our_step(nets, data, batch_size):
    net = CycleGANNet(
        *nets,
        batch_size=batch_size,
        lr=2e-4,
        max_epochs=1000,
        verbose=0,
        optimizer__fused=True,
        discriminator_optimizer__fused=True,
        optimizer__betas=(0.5, 0.999),
        discriminator_optimizer__betas=(0.5, 0.999),
    ).initialize()
    use_channels_last(net, data)
    net.history.new_epoch()
    net.on_epoch_begin(net, data)

    def step(rows):
        net.train_step((data.a[rows], data.b[rows], rows, rows))

    return step


def plain_norms(module):
    """torch's own instance norms, as in the published networks."""
    for name, part in module.named_children():
        if isinstance(part, nn.InstanceNorm2d):
            setattr(module, name, nn.InstanceNorm2d(part.num_features))
        else:
            plain_norms(part)
    return module


def make_networks(n_filters, n_blocks):
    torch.manual_seed(0)
    return [
        *(CycleGANGenerator(n_filters, n_blocks) for _ in range(2)),
        *(PatchDiscriminator(n_filters) for _ in range(2)),
    ]


def step(report, folder, quick):
    """One training step: ours against the published loop, in turns."""
    rows, ratios = [], {}
    for n_filters, n_blocks, size, batch_size in (
        (16, 3, 32, 1),
        (16, 3, 32, 4),
        (32, 6, 64, 1),
    ):
        nets = make_networks(n_filters, n_blocks)
        data = UnpairedImages(*torch.rand(2, 64, 3, size, size))
        theirs = published_step([plain_norms(copy.deepcopy(net)) for net in nets])
        ours = our_step(nets, data, batch_size)
        times = []
        for k in range(8 if quick else 30):
            batch = torch.arange(k * batch_size, (k + 1) * batch_size) % 64
            start = time.process_time()
            theirs(data.a[batch], data.b[batch])
            middle = time.process_time()
            ours(batch)
            times.append((middle - start, time.process_time() - middle))
        published, own = 1e3 * np.median(times[3:], axis=0)
        name = f"{n_filters} filters, {n_blocks} blocks, {size} px, batch {batch_size}"
        ratios[name] = published / own
        rows.append([name, f"{published:.1f}", f"{own:.1f}", f"{published / own:.2f}"])
    report.table(
        "one training step, CPU milliseconds (median), one thread",
        ["", "published loop", "ours", "ratio"],
        rows,
    )
    for name, ratio in ratios.items():
        report.goal(
            f"a training step >= 1.3x faster, {name}", f"{ratio:.2f}x", ratio >= 1.3
        )


class DomainNet(nn.Module):
    """Tells two domains apart; its 48 features measure Fréchet distances."""

    def __init__(self):
        super().__init__()
        layers, n = [], 3
        for k in (16, 32, 48):
            layers += [nn.Conv2d(n, k, 3, 2, 1), nn.BatchNorm2d(k), nn.ReLU()]
            n = k
        self.layers, self.classifier = nn.Sequential(*layers), nn.Linear(n, 2)

    def features(self, X):
        return self.layers(X).mean((2, 3))

    def forward(self, X):
        return self.classifier(self.features(X))


def train_domain_net(a, b):
    """On the training images alone."""
    torch.manual_seed(0)
    net = DomainNet()
    X, y = (
        torch.cat([a, b]),
        torch.arange(2).repeat_interleave(torch.tensor([len(a), len(b)])),
    )
    optimizer = torch.optim.Adam(net.parameters(), 2e-3)
    for _ in range(15):
        for rows in torch.randperm(len(X)).split(32):
            optimizer.zero_grad()
            F.cross_entropy(net(X[rows]), y[rows]).backward()
            optimizer.step()
    return net.eval()


class Photographs:
    """Summer and winter, a trained translator, and measures on test images."""

    def __init__(self, folder, quick):
        data = np.load(folder / "unpaired" / "summer2winter_32.npz", allow_pickle=False)
        images = {key: data[key] for key in ("A_train", "B_train", "A_test", "B_test")}
        self.a, self.b = images["A_train"], images["B_train"]
        self.translator = CycleGANTranslator(
            n_filters=16,
            n_blocks=3,
            identity_weight=0.0,
            lr=5e-4,
            batch_size=4,
            max_epochs=4 if quick else 20,
            random_state=0,
        ).fit(self.a, self.b)
        layout = self.translator.layout_
        train, test = (
            [
                layout.to_tensor(
                    images[f"{side}_{part}"].reshape(len(images[f"{side}_{part}"]), -1)
                )
                for side in "AB"
            ]
            for part in ("train", "test")
        )
        self.test, self.classifier = test, train_domain_net(*train)
        generators = self.translator.generator_ab_, self.translator.generator_ba_
        self.made = [run(g, X) for g, X in zip(generators, test, strict=True)]

    def features(self, X):
        with torch.no_grad():
            return self.classifier.features(X).numpy()

    def measure(self, pair):
        """Cycle error, difference to the full translator, sum of Fréchet distances."""
        cycle = difference = distance = 0.0
        for k in range(2):
            made = run(pair[k], self.test[k])
            again = run(pair[1 - k], made)
            cycle += float((again - self.test[k]).abs().mean()) / 2
            difference += float((made - self.made[k]).abs().mean()) / 2
            distance += frechet_distance(
                self.features(made), self.features(self.test[1 - k])
            )
        return cycle, difference, distance


def uniform_pairs(base, train, budget, seed):
    """Rival -> pair of generators before the tuning; and those with our repair."""
    settings = {"max_params": None, "max_macs": None} | budget
    generators = base.generator_ab_, base.generator_ba_

    def problems(importance, compensate):
        return [
            PruningProblem(
                module,
                X,
                importance=importance,
                compensate=compensate,
                ignored_layers=(),
                min_channels=1,
                rng=np.random.default_rng(seed),
                **settings,
            )
            for module, X in zip(generators, train, strict=True)
        ]

    def cut(problem_pair, keeps=None):
        keeps = keeps or [problem.widest_uniform() for problem in problem_pair]
        return keeps, tuple(
            problem.finish(keep)
            for problem, keep in zip(problem_pair, keeps, strict=True)
        )

    found, keeps = {}, {}
    for name, importance in (("L1", "l1"), ("group norm", "group"), ("random",) * 2):
        keeps[name], found[f"{name} uniform"] = cut(problems(importance, False))
    scratch = copy.deepcopy(found["L1 uniform"])
    with torch_session(seed, 1):
        for module in scratch:
            _draw_small_weights(module)
    found["from scratch"] = scratch
    ours = problems("obs", True)
    for name in ("L1", "group norm"):
        found[f"{name} uniform, our repair"] = cut(ours, keeps[name])[1]
    found["OBS uniform, our repair"] = cut(ours)[1]
    return found


def photographs(report, folder, quick, part):
    """Equal size, then the same tuning with distillation for every rival."""
    world, budget = Photographs(folder, quick), BUDGETS[part]
    base = world.translator
    tensors = [
        base.layout_.to_tensor(X.reshape(len(X), -1)) for X in (world.a, world.b)
    ]
    # What the pruner trains on: all but sixteen images, 61 steps an epoch.
    train = [X[16:] for X in tensors]
    rivals = uniform_pairs(base, train, budget, 0)
    for seed in range(1 if quick else 2):
        for recipe in ("paper", "default") if not seed else ("default",):
            start = time.process_time()
            pruner = CoEvolutionaryPruner(
                FrozenEstimator(base),
                recipe=recipe,
                finetune_epochs=0,
                random_state=seed,
                **budget,
            ).fit(world.a, world.b)
            name = "recipe paper" if recipe == "paper" else f"ours, search {seed}"
            seconds = time.process_time() - start
            print(
                f"{name}: {pruner.n_evaluations_} evaluations, {seconds:.1f} s of CPU",
                flush=True,
            )
            small = pruner.estimator_
            rivals[name] = small.generator_ab_, small.generator_ba_
    full = [base.generator_ab_, base.generator_ba_]
    teacher = world.measure(full)
    table, after = [], {}
    for name, pair in rivals.items():
        before = world.measure(pair)
        found = []
        for seed in range(2 if quick else 3):
            with torch_session(seed, 1):
                tuned = train_pair(base, pair, train, 1, seed, weight=10.0)
            found.append(world.measure((tuned.generator_ab_, tuned.generator_ba_)))
        after[name] = np.mean(found, axis=0)
        spread = np.std(found, axis=0, ddof=1)
        sizes = [
            f"{sum(map(count, pair)) / sum(map(count, full)):.3f}"
            for count in (count_parameters, lambda m: count_macs(m, (3, 32, 32)))
        ]
        table.append(
            [
                name,
                *sizes,
                "{:.3f}, {:.3f}, {:.2f}".format(*before),
                *(
                    f"{mean:.{digits}f} ± {std:.{digits}f}"
                    for mean, std, digits in zip(
                        after[name], spread, (4, 4, 2), strict=True
                    )
                ),
            ]
        )
        print(*table[-1], flush=True)
    title = " and ".join(f"{v:.0%} {NAMES[k]}" for k, v in budget.items())
    report.table(
        f"summer and winter, {title}, test images (full: cycle {teacher[0]:.4f}, "
        f"Fréchet sum {teacher[2]:.2f})",
        [
            "",
            "parameters",
            "MACs",
            "before: cycle, L1 to full, Fréchet",
            "after 61 steps: cycle",
            "L1 to full",
            "Fréchet sum",
        ],
        table,
    )
    ours = np.mean([v for k, v in after.items() if k.startswith("ours")], axis=0)
    for k, what in enumerate(("cycle error", "L1 to the full translator's images")):
        for name, value in after.items():
            if not name.startswith("ours") and "repair" not in name:
                report.goal(
                    f"{title}: {what} below that of {name}",
                    f"{ours[k]:.4f} against {value[k]:.4f}",
                    ours[k] < value[k],
                )
    report.goal(
        f"{title}: Fréchet sum within 10 % of the full translator's",
        f"{ours[2] / teacher[2]:.3f} of it",
        ours[2] <= 1.1 * teacher[2],
    )


def search(report, folder, quick):
    """CPU of a whole search, covariances and order included; and of an evaluation."""
    a, b = np.random.default_rng(0).uniform(-1, 1, (2, 250, 32, 32, 3))
    base = CycleGANTranslator(
        n_filters=16, n_blocks=3, batch_size=4, max_epochs=1, random_state=0
    ).fit(a[:8], b[:8])
    base._split_domains(a, b, reset=True)
    nets = make_networks(16, 3)
    theirs = published_step([plain_norms(net) for net in nets])
    images = torch.rand(2, 4, 3, 32, 32)
    times = []
    for _ in range(12):
        start = time.process_time()
        theirs(*images)
        times.append(time.process_time() - start)
    published = float(np.median(times[2:]))
    for budget in BUDGETS.values():
        spent = []
        evaluate = Direction.__call__

        def timed(*args, spent=spent, evaluate=evaluate):
            begin = time.process_time()
            worth = evaluate(*args)
            spent.append(time.process_time() - begin)
            return worth

        Direction.__call__ = timed
        start = time.process_time()
        pruner = CoEvolutionaryPruner(
            FrozenEstimator(base), finetune_epochs=0, random_state=0, **budget
        ).fit(a, b)
        seconds = time.process_time() - start
        Direction.__call__ = evaluate
        name = " and ".join(f"{v:.0%} {NAMES[k]}" for k, v in budget.items())
        report.goal(
            f"a whole search, 16 filters, 3 blocks, 32 px, {name}: <= 20 s",
            f"{seconds:.1f} s of CPU, {pruner.n_evaluations_} evaluations",
            seconds <= 20,
        )
        share = np.mean(spent) / published
        report.goal(
            "an evaluation of 16 images <= 1/3 of a published step of batch 4",
            f"{1e3 * np.mean(spent):.0f} of {1e3 * published:.0f} ms, {share:.2f}",
            share <= 1 / 3,
        )


def digit_errors(data, rows, translator):
    """Errors there and back against the known translation."""
    a, b = data.data_a[rows], data.data_b[rows]
    return [
        float(np.abs(translator.transform(a) - data.translate(a)).mean()),
        float(np.abs(translator.inverse_transform(b) - data.translate_back(b)).mean()),
    ]


def digits(report, folder, quick):
    """Error against the known translator, before and after compression."""
    table, ratios, train, test = [], [], slice(0, 700), slice(700, None)
    for seed in range(1 if quick else 3):
        data = make_unpaired_digits(image_size=16, random_state=seed)
        domains = data.data_a[train], data.data_b[train]
        settings = {
            "n_filters": 16,
            "n_blocks": 1,
            "batch_size": 8,
            "lr": 1e-3,
            "max_epochs": 3 if quick else 15,
            "random_state": seed,
        }
        base, same_tint = (
            CycleGANTranslator(
                data.image_shape, identity_weight=weight, **settings
            ).fit(*domains)
            for weight in (0.0, 5.0)
        )
        pruner = CoEvolutionaryPruner(
            FrozenEstimator(base), max_params=0.3, finetune_epochs=2, random_state=seed
        ).fit(*domains)
        errors = [
            digit_errors(data, test, model) for model in (base, pruner, same_tint)
        ]
        a = data.data_a[test]
        nothing = np.abs(a - data.translate(a)).mean()
        ratios.append(sum(errors[1]) / sum(errors[0]))
        cells = [f"{there:.3f}, {back:.3f}" for there, back in errors]
        table.append([seed, f"{nothing:.3f}", *cells, f"{ratios[-1]:.3f}"])
        print(*table[-1], flush=True)
    report.table(
        "digits, mean absolute error (there, back) against the known translator, test "
        "images",
        [
            "seed",
            "doing nothing",
            "full",
            "30 % of the parameters",
            "full, identity_weight 5",
            "30 % / full",
        ],
        table,
    )
    report.goal(
        "30 % of the parameters: at most 10 % more error against the known translator",
        f"{np.mean(ratios):.3f} of it, mean",
        np.mean(ratios) <= 1.1,
    )


def paper_size(report, folder, quick):
    """The published network: one evaluation measured, the rest extrapolated."""
    size = 128 if quick else 256
    torch.manual_seed(0)
    generator, X = CycleGANGenerator(), torch.rand(2, 3, size, size) * 2 - 1
    graph = trace_channels(generator, X[:1, :, :64, :64])
    problem = PruningProblem(
        generator,
        X[:, :, :64, :64],
        max_params=PAPER_SHARE,
        max_macs=None,
        importance="l1",
        compensate=False,
        ignored_layers=(),
        min_channels=1,
        rng=np.random.default_rng(0),
    )
    keep = problem.widest_uniform()
    cost = ChannelCost(generator, graph, torch.zeros(1, 3, 256, 256))
    small = problem.decode(keep).to(memory_format=torch.channels_last)
    images = X[:1].contiguous(memory_format=torch.channels_last)
    times = []
    with torch.no_grad():
        for module, batch in ((generator, X[:1]), (small, images)):
            start = time.process_time()
            module(batch)
            times.append(time.process_time() - start)
    full, left = cost(np.ones(graph.n_genes, bool)), cost(keep)
    macs = count_macs(generator, (3, 256, 256)), count_macs(small, (3, 256, 256))
    report.table(
        f"64 filters, 9 blocks, {size} px, uniform widths at 12.3 / 43.4 MB",
        ["", "full", "small", "ratio"],
        [
            [
                "million parameters",
                f"{full[0] / 1e6:.2f}",
                f"{left[0] / 1e6:.2f}",
                f"{left[0] / full[0]:.3f}",
            ],
            [
                "thousand million MACs at 256 px",
                f"{macs[0] / 1e9:.1f}",
                f"{macs[1] / 1e9:.1f}",
                f"{macs[1] / macs[0]:.3f}",
            ],
            [
                f"a forward of one image of {size} px, CPU s",
                f"{times[0]:.2f}",
                f"{times[1]:.2f}",
                f"{times[1] / times[0]:.3f}",
            ],
        ],
    )
    # An evaluation translates 16 images there and back.
    each = 32 * times[1]
    print(
        f"one evaluation of 16 images: {each:.0f} s of CPU; 280 of them: "
        f"{280 * each / 3600:.1f} h (extrapolated)"
    )


GROUPS = {
    "step": step,
    "search": search,
    "params": partial(photographs, part="params"),
    "macs": partial(photographs, part="macs"),
    "digits": digits,
    "paper-size": paper_size,
}


if __name__ == "__main__":
    run_groups("translation", __doc__, GROUPS, ["params", "macs"])
