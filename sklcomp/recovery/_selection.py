"""Choice of order, noise and nuclear by hiding observed pixels and predicting them.

``recover_image``, ``DCTImputer`` and ``DCTRegressor`` call it where they are "auto".
"""

import itertools
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
from scipy.ndimage import distance_transform_edt
from scipy.stats import rankdata
from sklearn.utils import check_random_state

GRIDS: dict[str, tuple[float, ...]] = {
    # Large holes want the lowest, small gaps the highest, random masks those between.
    "order": (0.75, 1.0, 1.25, 1.5, 1.75, 2.0),
    # The largest leave hardly more than the nuclear norm alone.
    "nuclear": (0.0, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 1000.0),
}
# Weights of noise to begin with, in steps of half a decade, beside 0.
N_NOISE = 4
# A step beyond the border must lower the error by this share to be worth another.
NOISE_GAIN = 1e-3
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
    spectrum: Callable[[Any], Any],
    recover: Callable[..., np.ndarray],
    *,
    holdout: float,
    n_repeats: int,
    random_state: Any,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Replace each "auto" among the settings by a value of its grid.

    A candidate is recovered from what is left when ``holdout`` of the observed pixels
    are hidden, in gaps like the missing ones, ``n_repeats`` times. Of all candidates
    whose squared error exceeds the least by no more than one standard error (of the
    difference, over the scored pixels), the one nearest to the default is taken. The
    weights of noise grow, or shrink, while the outermost is the best.

    Parameters
    ----------
    images : ndarray of shape (n_images, *grid)
    observed : ndarray of the same shape, bool
    settings : dict
        "order", "noise" and "nuclear", numbers or "auto"; None for an order that
        weights replace.
    spectrum : callable
        ``spectrum(order)`` gives the weights of an order, with their ``noise_range``.
    recover : callable
        ``recover(images, observed, spectrum=..., nuclear=..., noise=...)`` gives the
        recovered images.
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
    # Squares of pixels near the limits of their type would overflow.
    scale = float(np.abs(images[observed]).max()) or 1.0

    share = float(observed.mean())

    def measure(candidate: Any) -> Any:
        terms = {name: candidate[name] for name in ("noise", "nuclear")}
        terms["spectrum"] = spectrum(candidate["order"])
        errors = []
        for hidden, scored in draws:
            found = recover(images, observed & ~hidden, **terms)
            errors.append(((found[scored] - images[scored]) / scale) ** 2)
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
        candidates, measured, distances = _search(
            chosen, free, measure, lambda order: spectrum(order).noise_range(share)
        )
        chosen = _nearest_to_default(candidates, measured, distances)
        tried += candidates
        errors += measured
    return chosen, _cv_results(tried, errors, scale)


def _search(chosen: Any, free: Any, measure: Any, noise_range: Any) -> Any:
    """Candidates of one stage, their errors and their distances to the default."""
    candidates, measured, distances = [], [], []
    searched = [name for name in free if name in GRIDS]
    for values in itertools.product(*(GRIDS[name] for name in searched)):
        base = chosen | dict(zip(searched, values, strict=True))
        line = {base["noise"]: None}
        if "noise" in free:
            line = _measure_noise(
                lambda noise, base=base: measure(base | {"noise": noise}),
                *noise_range(base["order"]),
            )
        distance = sum(_distance_to_default(name, base[name]) for name in searched)
        for step, noise in enumerate(sorted(line)):
            candidates.append(base | {"noise": noise})
            measured.append(line[noise] or measure(candidates[-1]))
            distances.append(distance + step)
    return candidates, measured, distances


def _measure_noise(measure: Any, start: Any, limit: Any) -> Any:
    """Errors of weights from ``start`` on, and of 0, as far as the border is the best.

    Steps of half a decade, of which the nearest to ``start`` is the first.
    """

    def weight(step: Any) -> Any:
        return (1.0, 3.0)[step % 2] * 10.0 ** (step // 2)

    low = round(2 * np.log10(start))
    high = low + N_NOISE - 1
    line = {w: measure(w) for w in (0.0, *map(weight, range(low, high + 1)))}
    for edge, direction in ((high, 1), (low, -1)):
        means = {w: np.concatenate(errors).mean() for w, errors in line.items()}
        best = min(means.values())
        is_best = means[weight(edge)] == best
        while is_best and weight(edge + direction) <= limit:
            edge += direction
            line[weight(edge)] = errors = measure(weight(edge))
            mean = np.concatenate(errors).mean()
            is_best, best = mean < (1 - NOISE_GAIN) * best, mean
    return line


def hide_pixels(
    observed: np.ndarray, share: float, rng: np.random.RandomState
) -> tuple[np.ndarray, np.ndarray]:
    """Hide about a share of the observed pixels, in gaps like those that are there.

    Where single pixels are missing, single ones must be hidden to tell which setting
    fills them best; where holes are, holes. So balls around observed pixels are hidden
    whose radii are drawn from the distances of the missing pixels to the observed ones.

    Returns
    -------
    hidden : ndarray of bool
        At least one pixel of each image that has two, and never all.
    scored : ndarray of bool
        The hidden pixels in the inner half of the balls, as deep in a gap as the
        missing ones are.
    """
    # Single pixels in place of balls made large holes look like small gaps: order 2 was
    # chosen for them, 5 dB below order 1.
    hidden, scored = np.zeros_like(observed), np.zeros_like(observed)
    for image, outer, inner in zip(observed, hidden, scored, strict=True):
        if np.count_nonzero(image) > 1:
            _hide_balls(image, outer, inner, share, rng)
    if not scored.any():
        msg = (
            f"holdout={share} hides none of the {observed.sum()} observed pixels; "
            "give images with more pixels."
        )
        raise ValueError(msg)
    return hidden, scored


def _hide_balls(
    observed: np.ndarray,
    hidden: Any,
    scored: Any,
    share: Any,
    rng: np.random.RandomState,
) -> None:
    """Fill the two masks of one image, in place."""
    points = np.argwhere(observed)
    n_hidden = max(1, round(share * len(points)))
    centers = points[rng.randint(len(points), size=n_hidden)]
    depths = distance_transform_edt(~observed)[~observed]
    # Halves are as fine as matters, and leave few different balls. None may be larger
    # than the share of the image that is hidden.
    largest = max(1.0, (share * observed.size) ** (1 / observed.ndim) / 2)
    radii = np.ones(n_hidden)
    if len(depths):
        radii = np.minimum(np.round(2 * rng.choice(depths, n_hidden)) / 2, largest)
    balls = {radius: _ball(radius, observed.shape) for radius in np.unique(radii)}
    density = len(points) / observed.size
    # Its center is observed; of the other pixels of a ball the usual share is.
    expected = [1 + density * (len(balls[radius]) - 1) for radius in radii]
    n_balls = max(1, np.searchsorted(np.cumsum(expected), n_hidden))
    for radius, offsets in balls.items():
        at = centers[:n_balls][radii[:n_balls] == radius]
        for mask, reach in ((hidden, radius), (scored, max(1.0, radius / 2))):
            near = offsets[np.linalg.norm(offsets, axis=1) < reach]
            places = (at[:, np.newaxis] + near).reshape(-1, observed.ndim)
            inside = ((places >= 0) & (places < observed.shape)).all(axis=1)
            mask[tuple(places[inside].T)] = True
    hidden &= observed
    if hidden.sum() == len(points):
        # Nothing would be left to recover from.
        hidden[tuple(points[rng.randint(len(points))])] = False
    scored &= hidden


def _ball(radius: Any, shape: tuple[int, ...]) -> Any:
    """Offsets nearer than the radius, of shape (n_offsets, n_axes)."""
    reach = [min(int(np.ceil(radius)) - 1, n - 1) for n in shape]
    box = np.stack(np.meshgrid(*(np.arange(-r, r + 1) for r in reach)), axis=-1)
    offsets = box.reshape(-1, len(shape))
    return offsets[np.linalg.norm(offsets, axis=1) < radius]


def mask_seed(observed: np.ndarray) -> int:
    """A seed that equal masks share."""
    # hash() of bytes is another number in every process.
    return zlib.crc32(np.packbits(observed).tobytes())


def _distance_to_default(name: str, value: Any) -> Any:
    return abs(GRIDS[name].index(value) - GRIDS[name].index(DEFAULTS[name]))


def _nearest_to_default(candidates: Any, measured: Any, distances: Any) -> Any:
    errors = [np.concatenate(draws) for draws in measured]
    means = np.array([error.mean() for error in errors])
    best = errors[int(means.argmin())]
    for i in np.lexsort((means, distances)):
        # The minimum is flat, since hidden pixels hold noise too: a candidate is worse
        # only where that is certain.
        excess = errors[i] - best
        if excess.mean() <= excess.std() / np.sqrt(excess.size):
            return candidates[i]
    raise AssertionError("the best candidate is within its own standard error")


def _cv_results(candidates: Any, measured: Any, scale: Any) -> Any:
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
