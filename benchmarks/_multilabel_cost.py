"""What PrivilegedLogisticClassifier costs, against fits of LogisticRegression."""

import time
import warnings
from functools import cache, partial

import numpy as np
from _harness import data_folder, peak_memory, race
from _multilabel_data import load
from scipy import sparse
from sklearn.linear_model import LogisticRegression
from sklearn.multiclass import OneVsRestClassifier
from sklearn.preprocessing import StandardScaler

from sklcomp.multilabel import PrivilegedLogisticClassifier
from sklcomp.solvers.logistic._design import prepare_design
from sklcomp.solvers.logistic._labels import solve_logistic

SETS = (
    "emotions", "scene", "yeast", "medical", "enron", "corel5k", "bibtex", "delicious",
)  # fmt: skip
# C times the mean squared norm of centred rows.
COST = 10.0
TOLS = (1e-1, 3e-2, 1e-2, 3e-3, 1e-3, 3e-4, 1e-4)
GOALS = {"dense": 0.5, "sparse": 0.8}


def varying(Y):
    return (Y.min(axis=0) == 0) & (Y.max(axis=0) == 1)


def training_rows(folder, name, most=5000):
    X, Y = load(folder, name)
    X, Y = X[:most], Y[:most]
    if not sparse.issparse(X):
        X = StandardScaler().fit_transform(X)
    return X, np.ascontiguousarray(Y[:, varying(Y)])


def one_vs_rest(C, X, Y):
    model = OneVsRestClassifier(LogisticRegression(C=C, tol=1e-3)).fit(X, Y)
    coef = np.vstack([label.coef_ for label in model.estimators_])
    return coef, np.concatenate([label.intercept_ for label in model.estimators_])


def all_at_once(C, tol, X, Y):
    design = prepare_design(X)
    targets = np.ascontiguousarray(Y.T, dtype=np.int8)
    penalty = np.full(len(targets), 1 / C)
    result = solve_logistic(design, targets, penalty=penalty, tol=tol, max_iter=1000)
    return design.natural(result.solution)


def objective(C, X, Y, solution):
    coef, intercept = solution
    Z = X @ coef.T + intercept
    return C * (np.logaddexp(0, Z) - Y * Z).sum() + 0.5 * (coef**2).sum()


def whole_fits(report, folder, names):
    rows = []
    for name in names:
        X, Y = training_rows(folder, name)
        model = PrivilegedLogisticClassifier(random_state=0)
        found = race(
            {"ours": partial(model.fit, X, Y), "theirs": partial(one_vs_rest, 1, X, Y)}
        )
        ours, theirs = (found[key]["cpu"] for key in ("ours", "theirs"))
        ratio = ours / theirs
        rows.append([name, *Y.shape, f"{ours:.3f}", f"{theirs:.3f}", f"{ratio:.2f}"])
        report.goal(
            f"{name}: our fit, tuned, <= 5 of LogisticRegression's as it is",
            f"{ratio:.2f}",
            ratio <= 5,
        )
    report.table(
        "our fit, which tunes itself, against one of LogisticRegression(tol=1e-3)",
        ["data", "rows", "labels", "our CPU / s", "its CPU / s", "ratio"],
        rows,
    )


def single_fits(report, folder, names):
    rows = []
    for name in names:
        X, Y = training_rows(folder, name)
        kind = "sparse" if sparse.issparse(X) else "dense"
        C = COST / prepare_design(X).variance.sum()
        theirs = partial(one_vs_rest, C, X, Y)
        wanted = objective(C, X, Y, theirs())
        for tol in TOLS:
            ours = partial(all_at_once, C, tol, X, Y)
            excess = objective(C, X, Y, ours()) / wanted - 1
            if excess <= 0:
                break
        found = race({"ours": ours, "theirs": theirs})
        seconds = [found[key]["cpu"] for key in ("ours", "theirs")]
        ratio = seconds[0] / seconds[1]
        shown = f"{tol:g}" if excess <= 0 else f"{tol:g} (not equal)"
        cells = (f"{value:.3f}" for value in (*seconds, ratio))
        rows.append([name, kind, f"{C:.2g}", shown, f"{excess:+.1e}", *cells])
        report.goal(
            f"{name}: all labels at once <= {GOALS[kind]} of LogisticRegression's",
            f"{ratio:.2f}",
            excess <= 0 and ratio <= GOALS[kind],
        )
    report.table(
        "one C, at an objective that is not larger than LogisticRegression(tol=1e-3)'s",
        [
            "data",
            "",
            "C",
            "our tol",
            "our objective less its, relative",
            "our CPU / s",
            "its CPU / s",
            "ratio",
        ],
        rows,
    )


@cache
def delicious(n_rows):
    """Loaded once, so that its memory is not counted."""
    X, Y = load(data_folder(), "delicious")
    return X[:n_rows], np.ascontiguousarray(Y[:n_rows])


def fit_delicious(n_rows):
    warnings.simplefilter("ignore")  # of a child process: constant labels
    PrivilegedLogisticClassifier(random_state=0).fit(*delicious(n_rows))


def warm_up(n_rows):
    warnings.simplefilter("ignore")
    X, Y = delicious(n_rows)
    PrivilegedLogisticClassifier(random_state=0).fit(X[:200], Y[:200, :20])


def memory(report, n_rows):
    grown = peak_memory(partial(fit_delicious, n_rows), partial(warm_up, n_rows))
    if grown is None:
        return
    X, Y = delicious(n_rows)
    arrays = grown / (8 * Y.size)
    report.goal(
        f"delicious, {Y.shape[0]} x {Y.shape[1]}: memory above X <= 3 arrays of "
        "doubles of the shape of Y",
        f"{arrays:.2f} ({grown / 1e9:.2f} GB)",
        arrays <= 3,
    )


def growth(report, quick):
    X, Y = delicious(4000 if quick else None)
    n_rows, n_labels = (2000, (50, 100, 200)) if quick else (4000, (200, 400, 800))
    few = n_labels[0] // 2
    # Labels in any order, so that a larger number means no other kind of them.
    order = np.random.default_rng(0).permutation(
        np.flatnonzero(varying(Y[: n_rows // 2]))
    )
    Y = np.ascontiguousarray(Y[:, order])
    cases = {
        "rows": [(len(Y) // k, few) for k in (4, 2, 1)],
        "labels": [(n_rows, k) for k in n_labels],
    }
    rows, slopes = [], {}
    model = PrivilegedLogisticClassifier(random_state=0)
    for what, sizes in cases.items():
        seconds = []
        for n, k in sizes:
            start = time.process_time()
            model.fit(X[:n], Y[:n, :k])
            seconds.append(time.process_time() - start)
            rows.append([n, k, f"{seconds[-1]:.2f}"])
        grid = np.log([size[what == "labels"] for size in sizes])
        slopes[what] = float(np.polyfit(grid, np.log(seconds), 1)[0])
    report.table("delicious, our fit", ["rows", "labels", "CPU / s"], rows)
    for what, slope in slopes.items():
        report.goal(
            f"CPU time of our fit is linear in {what} (slope <= 1.1)",
            f"{slope:.2f}",
            slope <= 1.1,
        )


def cost(report, folder, quick):
    """Time of the whole fit and of one batched fit, memory, and how they grow."""
    names = ("emotions", "medical") if quick else SETS
    whole_fits(report, folder, names)
    single_fits(report, folder, names)
    memory(report, 3000 if quick else None)
    growth(report, quick)
