"""Choice of order, noise and nuclear by observed pixels that are hidden first."""

import itertools
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
from scipy.stats import rankdata
from sklearn.utils import check_random_state

GRIDS: dict[str, tuple[float, ...]] = {
    "order": (0.75, 1.0, 1.25, 1.5, 1.75, 2.0),
    "noise": (0.0, 0.1, 0.3, 1.0, 3.0),
    "nuclear": (0.0, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0),
}
DEFAULTS = {"order": 1.5, "noise": 0.0, "nuclear": 0.0}
# The nuclear norm costs a hundred times as much: it comes after the others.
STAGES = (("order", "noise"), ("nuclear",))
# With fewer observed pixels the hidden ones are drawn more often.
FEW_PIXELS = 2000
MAX_REPEAT_FACTOR = 5
# A sample of the images decides where there are more pixels than this.
MAX_PIXELS = 2**20


def choose_parameters(
    images: np.ndarray,
    observed: np.ndarray,
    settings: dict[str, Any],
    recover: Callable[[np.ndarray, np.ndarray, dict[str, Any]], np.ndarray],
    *,
    holdout: float,
    n_repeats: int,
    random_state: Any,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Replace each "auto" among the settings by a value of its grid.

    A candidate is recovered from what is left when ``holdout`` of the observed pixels
    are hidden, ``n_repeats`` times. Of all candidates whose squared error at hidden
    pixels exceeds the least by no more than one standard error (of the difference, over
    the hidden pixels), the one nearest to the default is taken.

    Parameters
    ----------
    images : ndarray of shape (n_images, *grid)
    observed : ndarray of the same shape, bool
    settings : dict
        "order", "noise" and "nuclear", numbers or "auto".
    recover : callable
        ``recover(images, observed, settings)`` gives the recovered images.
    holdout, n_repeats, random_state
        As in DCTImputer; with random_state=None the mask is the seed.

    Returns
    -------
    chosen : dict
        The settings without "auto".
    cv_results : dict
        As of GridSearchCV: "params", "mean_test_score" (minus the squared error),
        "std_test_score" over the repeats, "rank_test_score" and a "param_" for each.
    """
    rng = check_random_state(
        mask_seed(observed) if random_state is None else random_state
    )
    size = max(1, MAX_PIXELS // int(observed[0].size))
    if len(images) > size:
        sample = np.sort(rng.choice(len(images), size, replace=False))
        images, observed = images[sample], observed[sample]
    factor = -(-FEW_PIXELS // max(1, int(np.count_nonzero(observed))))
    n_draws = n_repeats * min(factor, MAX_REPEAT_FACTOR)
    draws = [hide_pixels(observed, holdout, rng) for _ in range(n_draws)]
    scale = float(np.abs(images[observed]).max()) or 1.0

    def measure(candidate):
        errors = []
        for hidden in draws:
            found = recover(images, observed & ~hidden, candidate)
            errors.append(((found[hidden] - images[hidden]) / scale) ** 2)
        return errors

    tried: list[dict[str, Any]] = []
    errors: list[list[np.ndarray]] = []
    chosen = settings | {
        name: DEFAULTS[name] for name, value in settings.items() if value == "auto"
    }
    for names in STAGES:
        free = [name for name in names if settings[name] == "auto"]
        if not free:
            continue
        grid = itertools.product(*(GRIDS[name] for name in free))
        candidates = [chosen | dict(zip(free, values, strict=True)) for values in grid]
        measured = [measure(candidate) for candidate in candidates]
        chosen = _nearest_to_default(candidates, measured)
        tried += candidates
        errors += measured
    return chosen, _cv_results(tried, errors, scale)


def hide_pixels(
    observed: np.ndarray, share: float, rng: np.random.RandomState
) -> np.ndarray:
    """Mask of observed pixels to hide: at least one of each image, and never all."""
    draws = np.where(observed, rng.random_sample(observed.shape), np.inf)
    axes = tuple(range(1, observed.ndim))
    hidden = draws <= np.maximum(share, draws.min(axis=axes, keepdims=True))
    hidden &= observed & (hidden != observed).any(axis=axes, keepdims=True)
    if not hidden.any():
        msg = (
            f"holdout={share} hides none of the {observed.sum()} observed pixels; "
            "raise holdout or give more pixels."
        )
        raise ValueError(msg)
    return hidden


def mask_seed(observed: np.ndarray) -> int:
    """A seed that equal masks share."""
    return zlib.crc32(np.packbits(observed).tobytes())


def _nearest_to_default(candidates, measured):
    errors = [np.concatenate(draws) for draws in measured]
    means = np.array([error.mean() for error in errors])
    best = errors[int(means.argmin())]
    distances = np.array(
        [
            sum(
                abs(GRIDS[name].index(value) - GRIDS[name].index(DEFAULTS[name]))
                for name, value in candidate.items()
                if value in GRIDS[name]
            )
            for candidate in candidates
        ]
    )
    for i in np.lexsort((means, distances)):
        excess = errors[i] - best
        if excess.mean() <= excess.std() / np.sqrt(excess.size):
            return candidates[i]
    raise AssertionError("the best candidate is within its own standard error")


def _cv_results(candidates, measured, scale):
    scores = np.array(
        [[-(error.mean()) * scale**2 for error in draws] for draws in measured]
    )
    means = scores.mean(axis=1)
    results = {
        f"param_{name}": np.array([candidate[name] for candidate in candidates])
        for name in DEFAULTS
    }
    return results | {
        "params": candidates,
        "mean_test_score": means,
        "std_test_score": scores.std(axis=1),
        "rank_test_score": rankdata(-means, method="min").astype(np.int32),
    }
