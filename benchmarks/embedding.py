"""Students by feature embedding against other distillation, with few and all labels."""

from _harness import run_groups

# isort: split
import time
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from _torch_training import error_rate, load_cifar, load_mnist, train
from skorch import NeuralNetClassifier
from torch import nn
from torch.optim.lr_scheduler import CosineAnnealingLR

from sklcomp.compression import FeatureEmbeddingDistiller
from sklcomp.nn import LeNet, LocalityPreservingLoss, count_parameters, kd_loss
from sklcomp.nn._features import capturing
from sklcomp.nn._running import torch_session

N_VALIDATION = 5000
BATCH, LR, CLIP = 64, 0.05, 1.0


class FitNet(nn.Module):
    """Stages of convolutions, each with batch norm and pooling; then two layers."""

    def __init__(self, stages, hidden=500, n_classes=10):
        super().__init__()
        layers, inputs = [], 3
        for widths, pool in stages:
            for width in widths:
                layers += [
                    nn.Conv2d(inputs, width, 3, padding=1, bias=False),
                    nn.BatchNorm2d(width),
                    nn.ReLU(),
                ]
                inputs = width
            layers.append(nn.MaxPool2d(pool))
        self.features = nn.Sequential(*layers, nn.Flatten())
        self.hidden = nn.Linear(inputs, hidden)
        self.output = nn.Linear(hidden, n_classes)
        self.to(memory_format=torch.channels_last)  # a quarter less time on a CPU

    def forward(self, x):
        return self.output(F.relu(self.hidden(self.features(x))))


def cifar_teacher():
    return FitNet([((96,), 4), ((96,), 4), ((96,), 2)])


def fitnet_1():
    return FitNet([((16, 16, 16), 2), ((32, 32, 32), 2), ((48, 48, 64), 8)])


# Data, teacher and its training, student, steps of every student, whether their rate
# falls to zero (at a constant one the spread of the subsets hid all differences on
# CIFAR), and for each share of the labels how many subsets; the last number of each is
# that of --quick.
CASES = {
    "LeNet 20-50-500 to 4-8-40 on MNIST": (
        load_mnist, LeNet, {"epochs": 4}, lambda: LeNet((4, 8, 40)), 860,
        False,
        {0.01: (10, 3), 0.1: (5, 2), 1.0: (3, 2)},
    ),
    "three layers of 96 to FitNet-1 on CIFAR-10-small": (
        load_cifar, cifar_teacher, {"epochs": 15, "flip": True}, fitnet_1, 300,
        True,
        {0.1: (5, 2), 1.0: (3, 2)},
    ),
}  # fmt: skip


def hint(student, teacher, regressor):
    """FitNet: the teacher's features are predicted linearly from the student's."""
    return F.mse_loss(regressor(student), teacher)


def relational(student, teacher, _):
    """Relational distillation: distances within a batch, in units of their mean."""
    distances = []
    for features in (student, teacher):
        distance = torch.pdist(features)
        distances.append(distance / distance.mean().clamp_min(1e-12))
    return F.smooth_l1_loss(*distances)


def locality(student, teacher, _):
    return LocalityPreservingLoss()(student, teacher)


def random_graph(student, teacher, _):
    """The control: neighbours and weights of another example's features."""
    return LocalityPreservingLoss()(student, teacher[torch.randperm(len(teacher))])


# Loss of the features, and the weights that are tried.
TERMS = {
    "plain": (None, (0.0,)),
    "FitNet hint": (hint, (0.3, 1.0, 3.0, 10.0)),
    "relational": (relational, (1.0, 5.0, 25.0, 100.0)),
    "locality (ours)": (locality, (0.1, 0.3, 1.0, 3.0)),
    "random graph": (random_graph, (0.1, 0.3, 1.0, 3.0)),
}
KD_WEIGHTS = (0.1, 0.3, 1.0, 3.0)


class Race:
    """One teacher, one student, and what each method makes of a subset."""

    def __init__(self, folder, name):
        load, make_teacher, training, self.make, *rest = CASES[name]
        self.n_steps, self.is_falling, self.shares = rest
        X, y, self.X_test, self.y_test = load(folder)
        n_held = min(N_VALIDATION, len(X) // 5)
        order = np.random.default_rng(0).permutation(len(X))
        self.X_held, self.y_held = X[order[:n_held]], y[order[:n_held]]
        self.X, self.y = X[order[n_held:]], y[order[n_held:]]
        torch.manual_seed(0)
        self.teacher = train(make_teacher(), self.X, self.y, seed=0, **training)
        self.error = error_rate(self.teacher, self.X_test, self.y_test)
        with torch.no_grad():
            answers = [self.ask(self.teacher, batch) for batch in self.X.split(500)]
        self.features, self.scores = map(torch.cat, zip(*answers, strict=True))

    @staticmethod
    def ask(net, X):
        with capturing(net, "penultimate") as seen:
            output = net(X)
        return seen[0], output

    def subset(self, share, seed):
        """As many of every class, drawn anew for each seed."""
        if share == 1:
            return np.arange(len(self.y))
        rng = np.random.default_rng(seed)
        n = round(share * len(self.y) / 10)
        return np.concatenate(
            [rng.permutation(np.flatnonzero(self.y == c))[:n] for c in range(10)]
        )

    def student(self, term, weight, kd_weight, share, seed):
        """Train: same initial weights, batches and steps for every method."""
        rows = self.subset(share, seed)
        with torch_session(seed, 1):
            net = self.make()
            regressor = None
            parameters = list(net.parameters())
            if term is hint:
                width = self.ask(net.eval(), self.X[:2])[0].shape[1]
                regressor = nn.Linear(width, self.features.shape[1])
                parameters += regressor.parameters()
            optimizer = torch.optim.SGD(parameters, lr=LR, momentum=0.9)
            falling = CosineAnnealingLR(optimizer, self.n_steps)
            rng = np.random.default_rng(seed)
            net.train()
            step = 0
            while step < self.n_steps:
                order = rng.permutation(rows)
                for batch in np.split(
                    order[: len(order) // BATCH * BATCH], len(order) // BATCH
                ):
                    own, output = self.ask(net, self.X[batch])
                    loss = F.cross_entropy(output, self.y[batch])
                    if kd_weight:
                        loss = loss + kd_weight * kd_loss(output, self.scores[batch])
                    if term is not None:
                        theirs = self.features[batch]
                        loss = loss + weight * term(own, theirs, regressor)
                    optimizer.zero_grad()
                    loss.backward()
                    nn.utils.clip_grad_norm_(parameters, CLIP)
                    optimizer.step()
                    if self.is_falling:
                        falling.step()
                    step += 1
                    if step == self.n_steps:
                        break
        return net.eval()

    def choose(self, term, weights, share, seeds, kd_weight=None):
        """The weight with the least mean error on the validation part."""
        errors = []
        for weight in weights:
            pair = (weight, kd_weight) if kd_weight is not None else (0.0, weight)
            errors.append(
                np.mean(
                    [
                        error_rate(
                            self.student(term, *pair, share, seed),
                            self.X_held,
                            self.y_held,
                        )
                        for seed in seeds
                    ]
                )
            )
        return weights[int(np.argmin(errors))]


def race(report, folder, quick, name, share):
    """Weights are chosen on subsets that are not used in the table."""
    contest = Race(folder, name)
    n_full, n_quick = contest.shares[share]
    n_seeds = n_quick if quick else n_full
    tuning = [1000] if quick else [1000, 1001]
    kd = contest.choose(None, KD_WEIGHTS, share, tuning)
    table, errors = [], {}
    for kd_weight in (0.0, kd):
        for method, (term, weights) in TERMS.items():
            weight = weights[0]
            if term is not None:
                weight = contest.choose(term, weights, share, tuning, kd_weight)
            label = f"{method} + KD" if kd_weight else method
            errors[label] = found = [
                error_rate(
                    contest.student(term, weight, kd_weight, share, seed),
                    contest.X_test,
                    contest.y_test,
                )
                for seed in range(n_seeds)
            ]
            is_edge = term is not None and weight in (weights[0], weights[-1])
            shown = f"{weight} (edge)" if is_edge else weight
            row = [
                label,
                shown,
                kd_weight,
                f"{np.mean(found):.2f}",
                f"{np.std(found, ddof=1):.2f}",
            ]
            print(f"{share:.0%}", *row, flush=True)
            table.append(row)
    report.table(
        f"{name}, {share:.0%} of the labels, {n_seeds} subsets: test error in % "
        f"(teacher {contest.error:.2f})",
        ["", "weight", "KD weight", "mean", "spread"],
        table,
    )
    judge(report, f"{name}, {share:.0%}", share, errors)


def judge(report, title, share, errors):
    """Our goals, by paired differences over the same subsets."""
    ours = np.array(errors["locality (ours) + KD"])
    rivals = {
        label: np.array(found) - ours
        for label, found in errors.items()
        if label.endswith("+ KD") and "ours" not in label
    }
    to_kd = rivals.pop("plain + KD")
    line = f"{to_kd.mean():+.2f} ± {to_kd.std(ddof=1) / len(to_kd) ** 0.5:.2f}"
    if share == 0.01:
        best = min(
            (k for k in rivals if "random" not in k), key=lambda k: rivals[k].mean()
        )
        report.goal(
            f"{title}: locality + KD >= 0.8 points better than KD",
            line,
            to_kd.mean() >= 0.8,
        )
        gain = rivals[best].mean()
        report.goal(
            f"{title}: >= 0.3 points better than the best rival ({best})",
            f"{gain:+.2f}",
            gain >= 0.3,
        )
    else:
        report.goal(
            f"{title}: locality + KD not worse than KD beyond the spread",
            line,
            to_kd.mean() >= -to_kd.std(ddof=1),
        )


def cost(report, folder, quick):
    """CPU of a step with the estimator against a step of plain training."""
    rng = np.random.default_rng(0)
    X = rng.random((1280, 1, 28, 28), dtype=np.float32)
    y = rng.integers(10, size=len(X))
    teacher, epochs = LeNet(), (6, 30)
    n_steps = (epochs[1] - epochs[0]) * len(X) // BATCH

    def seconds(fit):
        """Least CPU time of the steps alone: a long training less a short one."""
        least = []
        for max_epochs in epochs:
            net = NeuralNetClassifier(
                LeNet((4, 8, 40)),
                criterion=nn.CrossEntropyLoss,
                optimizer=torch.optim.SGD,
                lr=0.01,
                batch_size=BATCH,
                max_epochs=max_epochs,
                train_split=None,
                verbose=0,
            )
            best = np.inf
            for _ in range(2 if quick else 4):
                start = time.process_time()
                fit(net)
                best = min(best, time.process_time() - start)
            least.append(best)
        return least[1] - least[0]

    def distil(**settings):
        return lambda net: FeatureEmbeddingDistiller(
            net, teacher, random_state=0, **settings
        ).fit(X, y)

    arms = {
        "plain skorch": lambda net: net.fit(X, y),
        "KD alone": distil(gamma=0.0, kd_weight=1.0),
        "locality": distil(),
        "locality + KD": distil(kd_weight=1.0),
        "locality, teacher asked in every step": distil(cache_teacher=False),
    }
    times = {label: seconds(fit) for label, fit in arms.items()}
    plain = times["plain skorch"]
    report.table(
        f"{n_steps} steps of {BATCH} images, teacher of {count_parameters(teacher):,} "
        f"parameters, student of {count_parameters(LeNet((4, 8, 40))):,}; CPU seconds",
        ["", "seconds", "to plain"],
        [[k, f"{v:.2f}", f"{v / plain:.2f}"] for k, v in times.items()],
    )
    ratio = times["locality"] / plain
    report.goal("a step with locality: <= 1.5x plain", f"{ratio:.2f}", ratio <= 1.5)


def complexity(report, folder, quick):
    """One evaluation of each loss and its gradient, against the teacher's width."""
    rows = []
    for width in (100, 500, 2000):
        student = torch.randn(BATCH, 40, requires_grad=True)
        teacher = torch.randn(BATCH, width)
        regressor = nn.Linear(40, width)
        row = [width]
        for term in (locality, relational, hint):
            best = np.inf
            for _ in range(5):
                start = time.process_time()
                for _ in range(50):
                    term(student, teacher, regressor).backward()
                best = min(best, (time.process_time() - start) / 50)
            row.append(f"{1e3 * best:.2f}")
        rows.append([*row, f"{count_parameters(regressor):,}"])
    report.table(
        f"a loss and its gradient, batches of {BATCH}, student features of 40: ms",
        ["teacher features", "locality", "relational", "hint", "hint's parameters"],
        rows,
    )


GROUPS = {
    "cost": cost,
    "complexity": complexity,
    **{
        f"{short}-{100 * share:.0f}": partial(race, name=name, share=share)
        for short, name in zip(("mnist", "cifar"), CASES, strict=True)
        for share in CASES[name][-1]
    },
}


if __name__ == "__main__":
    need_data = [n for n, g in GROUPS.items() if isinstance(g, partial)]
    run_groups("embedding", __doc__, GROUPS, need_data)
