"""Recover a photograph with 95 % of its pixels missing, learn labels, shrink networks.

Prints the quality of linear interpolation and of the DCT norm, and draws the picture
into examples/output/quickstart.png. Then learns attributes of handwritten digits: all
at once, and one more that arrives later with few annotations. At last a network that
was trained on such digits is pruned to a tenth of its parameters, and teaches smaller
ones: one that sees few labels, and one that sees no data at all. And grey digits are
translated to blue ones, by networks that are made small together.
"""

import warnings
from pathlib import Path
from time import perf_counter

import matplotlib as mpl
import numpy as np
import torch
import torch.nn.functional as F
from scipy.interpolate import griddata
from skimage import data
from skimage.metrics import structural_similarity
from skimage.util import img_as_float
from sklearn.datasets import load_digits
from sklearn.frozen import FrozenEstimator
from sklearn.metrics import roc_auc_score
from sklearn.multiclass import OneVsRestClassifier
from sklearn.svm import LinearSVC
from skorch import NeuralNetClassifier
from torch import nn

import sklcomp
from sklcomp.compression import (
    CoEvolutionaryPruner,
    DataFreeDistiller,
    EvolutionaryPruner,
    FeatureEmbeddingDistiller,
)
from sklcomp.datasets import (
    load_digit_attributes,
    make_masked_images,
    make_multilabel_stream,
    make_unpaired_digits,
)
from sklcomp.metrics import one_error, precision_at_k, psnr
from sklcomp.multilabel import PrivilegedMultiLabelClassifier, StreamingLabelClassifier
from sklcomp.recovery import recover_image
from sklcomp.translation import CycleGANTranslator

mpl.use("Agg")
import matplotlib.pyplot as plt

MISSING = 0.95
OUTPUT = Path(__file__).resolve().parent / "output" / "quickstart.png"


def interpolate(image):
    """Linear interpolation between the observed pixels, nearest outside their hull."""
    points = np.argwhere(~np.isnan(image))
    values = image[tuple(points.T)]
    grid = tuple(np.indices(image.shape))
    linear = griddata(points, values, grid, method="linear")
    nearest = griddata(points, values, grid, method="nearest")
    return np.where(np.isnan(linear), nearest, linear)


def compare(photograph, observed):
    """Rows (method, PSNR, SSIM, seconds) and the pictures, one for each method."""
    methods = {
        "linear interpolation": interpolate,
        "sklcomp.recovery.recover_image": recover_image,
    }
    rows, pictures = [], []
    for name, recover in methods.items():
        start = perf_counter()
        picture = recover(observed)
        seconds = perf_counter() - start
        ssim = structural_similarity(photograph, picture, data_range=1)
        rows.append((name, psnr(photograph, picture), ssim, seconds))
        pictures.append(picture)
    return rows, pictures


def draw(pictures, path):
    """Titled pictures side by side, one screen pixel for each of theirs."""
    side = next(iter(pictures.values())).shape[0] / 100
    fig, axes = plt.subplots(
        1,
        len(pictures),
        figsize=(len(pictures) * (side + 0.12), side + 0.45),
        dpi=100,
        gridspec_kw={
            "left": 0.01,
            "right": 0.99,
            "bottom": 0.01,
            "top": 0.92,
            "wspace": 0.02,
        },
    )
    for ax, (title, picture) in zip(axes, pictures.items(), strict=True):
        ax.imshow(np.nan_to_num(picture), cmap="gray", vmin=0, vmax=1)
        ax.set_title(title, fontsize=16)
        ax.axis("off")
    path.parent.mkdir(exist_ok=True)
    fig.savefig(path)
    plt.close(fig)


def learn_attributes():
    """Rows (method, one-error, precision@3, AUC) on digits that were not learned."""
    X, y = load_digit_attributes(return_X_y=True)
    X = X / 16
    rivals = {
        "one-vs-rest LinearSVC": OneVsRestClassifier(
            LinearSVC(C=0.3, loss="hinge", max_iter=20_000)
        ),
        "PrivilegedMultiLabelClassifier": PrivilegedMultiLabelClassifier(
            0.3, slack_cap=1.5, random_state=0
        ),
    }
    for name, model in rivals.items():
        scores = model.fit(X[:900], y[:900]).decision_function(X[900:])
        yield (
            name,
            one_error(y[900:], scores),
            precision_at_k(y[900:], scores, k=3),
            roc_auc_score(y[900:], scores),
        )


def add_label(n_annotated=40, n_draws=20):
    """AUC of an eleventh label, means over draws: from scratch, and added."""
    X, y = make_multilabel_stream(
        3000, 100, n_initial=10, n_new=1, dependence=0.9, random_state=0
    )
    known, new, test = y[:, :10], y[:, 10], slice(1000, None)
    found = []
    for seed in range(n_draws):
        model = StreamingLabelClassifier(0.1, random_state=0).fit(
            X[:1000], known[:1000]
        )
        rows = np.random.default_rng(seed).permutation(1000)[:n_annotated]
        alone = LinearSVC(C=0.1, loss="hinge", max_iter=20_000).fit(X[rows], new[rows])
        model.add_labels(X[rows], new[rows], y_past=known[rows])
        scores = (
            alone.decision_function(X[test]),
            model.decision_function(X[test])[:, 10],
        )
        found.append([roc_auc_score(new[test], score) for score in scores])
    return np.mean(found, axis=0)


class DigitNet(nn.Module):
    """A small convolutional network with a residual sum."""

    def __init__(self, width=24):
        super().__init__()
        self.first = nn.Conv2d(1, width, 3, padding=1)
        self.second = nn.Conv2d(width, 2 * width, 3, padding=1)
        self.norm = nn.BatchNorm2d(2 * width)
        self.third = nn.Conv2d(2 * width, 2 * width, 3, padding=1)
        self.output = nn.Linear(2 * width * 4, 10)

    def forward(self, x):
        x = F.relu(self.first(x.reshape(-1, 1, 8, 8)))
        x = F.max_pool2d(F.relu(self.norm(self.second(x))), 2)
        x = F.max_pool2d(F.relu(x + self.third(x)), 2)
        return self.output(x.flatten(1))


def make_net(max_epochs, **module):
    """An untrained net for digits."""
    return NeuralNetClassifier(
        DigitNet,
        criterion=nn.CrossEntropyLoss,
        optimizer=torch.optim.Adam,
        lr=2e-3,
        max_epochs=max_epochs,
        batch_size=64,
        train_split=None,
        verbose=0,
        **module,
    )


def train_on_digits():
    """A trained net, images and digits; the last 497 are left for tests."""
    X, y = load_digits(return_X_y=True)
    X = (X / 16).astype(np.float32)
    torch.manual_seed(0)
    return make_net(10).fit(X[:1300], y[:1300]), X, y


def prune_network(net, X, y):
    """Report of a pruner, and test accuracy before and after."""
    pruner = EvolutionaryPruner(
        FrozenEstimator(net), max_params=0.1, finetune_epochs=6, random_state=0
    ).fit(X[:1300], y[:1300])
    return pruner.report_, *(m.score(X[1300:], y[1300:]) for m in (net, pruner))


def teach_network(teacher, X, y):
    """Rows (method, test accuracy) of students that saw 130 labels."""
    for method, weights in (
        ("labels alone", {"gamma": 0.0}),
        ("FeatureEmbeddingDistiller", {"gamma": 1.0, "kd_weight": 1.0}),
    ):
        distiller = FeatureEmbeddingDistiller(
            make_net(100, module__width=6),
            FrozenEstimator(teacher),
            random_state=0,
            **weights,
        ).fit(X[:130], y[:130])
        yield method, distiller.score(X[1300:], y[1300:])


def teach_without_data(teacher, X, y):
    """Test accuracy of a student that has seen no digit."""
    # A table of pixels: mean and deviation of each are all that is told.
    mean, std = X[:1300].mean(axis=0), X[:1300].std(axis=0) + 0.01
    distiller = DataFreeDistiller(
        make_net(1, module__width=6),
        FrozenEstimator(teacher),
        input_shape=(64,),
        input_mean=mean,
        input_std=std,
        random_state=0,
    ).fit()
    return distiller.score(X[1300:], y[1300:])


def translate_digits():
    """Rows (title, parameters, error there, error back) of two translators."""
    digits = make_unpaired_digits(image_size=16, random_state=0)
    (a, b), (a_test, b_test) = (
        (digits.data_a[rows], digits.data_b[rows])
        for rows in (slice(0, 350), slice(350, 550))
    )
    translator = CycleGANTranslator(
        digits.image_shape,
        n_filters=8,
        n_blocks=1,
        identity_weight=0,
        batch_size=8,
        lr=1e-3,
        max_epochs=8,
        random_state=0,
    ).fit(a, b)
    pruner = CoEvolutionaryPruner(
        FrozenEstimator(translator), max_params=0.3, finetune_epochs=2, random_state=0
    ).fit(a, b)
    sizes = [pruner.report_.before["parameters"], pruner.report_.after["parameters"]]
    for title, size, model in zip(
        ("CycleGANTranslator", "CoEvolutionaryPruner"),
        sizes,
        (translator, pruner),
        strict=True,
    ):
        there = model.transform(a_test) - digits.translate(a_test)
        back = model.inverse_transform(b_test) - digits.translate_back(b_test)
        yield title, size, np.abs(there).mean(), np.abs(back).mean()


def show_recovery():
    """Hide pixels of a photograph, recover them by two methods, and draw."""
    photograph = img_as_float(data.camera())
    masked, _ = make_masked_images(
        photograph[np.newaxis], missing=MISSING, random_state=0
    )
    rows, pictures = compare(photograph, masked[0])
    height, width = photograph.shape
    print(f"\nPhotograph of {height} x {width} pixels, {MISSING:.0%} of them missing\n")
    print(f"{'method':32}{'PSNR/dB':>8}{'SSIM':>8}{'seconds':>9}")
    for name, decibel, ssim, seconds in rows:
        print(f"{name:32}{decibel:8.2f}{ssim:8.3f}{seconds:9.2f}")
    draw(
        {
            "original": photograph,
            f"observed: {1 - MISSING:.0%} of the pixels": masked[0],
            f"recovered: {rows[-1][1]:.1f} dB": pictures[-1],
        },
        OUTPUT,
    )
    print(f"\nPicture: {OUTPUT}")


def show_attributes():
    """Learn labels that teach each other."""
    print("\nEight attributes of handwritten digits (even, prime, closed loop, ...)\n")
    print(f"{'method':32}{'one-error':>10}{'precision@3':>13}{'AUC':>8}")
    for name, error, precision, auc in learn_attributes():
        print(f"{name:32}{error:10.3f}{precision:13.3f}{auc:8.3f}")


def show_late_label():
    """Add a label to a model that knows ten."""
    alone, added = add_label()
    print("\nOne more label, annotated on 40 examples, beside ten known ones\n")
    print(f"{'LinearSVC from scratch':48}AUC {alone:.3f}")
    print(f"{'StreamingLabelClassifier.add_labels':48}AUC {added:.3f}")


def show_pruning(net, X, y):
    """Cut nine tenths out of a network."""
    report, before, after = prune_network(net, X, y)
    print("\nA network for digits, pruned to a tenth of its parameters\n")
    print(f"{'':32}{'before':>10}{'after':>10}")
    for row in ("parameters", "MACs", "bytes"):
        print(f"{row:32}{report.before[row]:10,}{report.after[row]:10,}")
    print(f"{'accuracy on other digits':32}{before:10.3f}{after:10.3f}")


def show_students(net, X, y):
    """Let the network teach small ones, with few labels and with no data."""
    print("\nA network of a sixteenth of its parameters, taught with 130 labels\n")
    for method, accuracy in teach_network(net, X, y):
        print(f"{method:46}{accuracy:6.3f}")
    accuracy = teach_without_data(net, X, y)
    print(f"{'DataFreeDistiller, with no data at all':46}{accuracy:6.3f}")


def show_translation():
    """Translate between two kinds of pictures that come in no pairs."""
    print("\nGrey digits to blue ones and back, learned without pairs: mean error\n")
    print(f"{'':32}{'parameters':>11}{'there':>8}{'back':>8}")
    for title, size, there, back in translate_digits():
        print(f"{title:32}{size:11,}{there:8.3f}{back:8.3f}")


def main():
    """One after the other."""
    print("Compiling the kernels (seconds, the first time only) ...")
    sklcomp.warmup()
    show_recovery()
    show_attributes()
    show_late_label()
    net, X, y = train_on_digits()
    show_pruning(net, X, y)
    show_students(net, X, y)
    show_translation()


if __name__ == "__main__":
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        main()
