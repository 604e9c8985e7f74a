"""Hint for users of DCTImputer whose flat rows may be images."""

from typing import Any

import numpy as np

from sklcomp.utils._messages import warn_user

# Rows as many as these, a third as far from the next ones as from others, are those of
# a picture (photographs: 0.1 to 0.3; samples in random order: 1).
MIN_PICTURE = 16
MIN_PAIRS = 100
PICTURE_RATIO = 0.34


def hint_at_pictures(X: np.ndarray) -> None:
    """Warn where rows are far more like their neighbours than like rows further off.

    Signals that are samples come in no such order; rows of a picture do.
    """
    n_rows, n_columns = X.shape
    if min(n_rows, n_columns) < MIN_PICTURE:
        return
    # Columns may be in any units, and large ones would decide alone.
    scale = np.nanmax(np.abs(X), axis=0, initial=0)
    rows = X / np.where(scale > 0, scale, 1)

    def difference(step: Any) -> Any:
        pairs = np.abs(rows[step:] - rows[:-step])
        known = ~np.isnan(pairs)
        return pairs[known].mean() if known.sum() >= MIN_PAIRS else np.nan

    apart = min(difference(n_rows // 2), difference(n_rows // 3))
    if difference(1) < PICTURE_RATIO * apart:
        warn_user(
            f"The {n_rows} rows of X are each recovered as a signal, but look like the "
            "rows of one picture. For a picture pass X[np.newaxis], or use "
            f"recover_image(X); for signals image_shape=({n_columns},) says so.",
            UserWarning,
        )
