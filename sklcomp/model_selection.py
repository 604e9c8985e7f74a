"""Splits of multi-label data."""

from numbers import Integral
from typing import Any

import numpy as np
from scipy import sparse
from sklearn.model_selection import BaseCrossValidator
from sklearn.utils import check_array, check_random_state
from sklearn.utils.validation import check_consistent_length

from sklcomp.utils._stratification import stratify
from sklcomp.utils._validation import refuse_masked

__all__ = ["IterativeStratifiedKFold"]


class IterativeStratifiedKFold(BaseCrossValidator):
    """K folds that each hold their share of every label.

    Iterative stratification: the rarest label left is dealt out first, each of its
    examples to the fold that lacks it most. A random split of multi-label data
    often leaves a fold without any example of a rare label, on which ranking measures
    are then undefined.

    Parameters
    ----------
    n_splits : int, default=5
        Number of folds, at least 2.
    random_state : int, RandomState instance or None, default=None
        Breaks ties between folds; the split is random even with None.

    See Also
    --------
    sklearn.model_selection.StratifiedKFold : The same for one label.

    Notes
    -----
    A fold is as large as any other up to one row wherever labels leave the choice; a
    label with fewer examples than folds is missing in some of them.

    References
    ----------
    K. Sechidis, G. Tsoumakas, I. Vlahavas: On the Stratification of Multi-Label Data,
    ECML PKDD 2011.

    Examples
    --------
    >>> import numpy as np
    >>> from sklcomp.model_selection import IterativeStratifiedKFold
    >>> Y = np.array([[1, 0], [1, 1], [0, 1], [0, 0], [1, 0], [1, 1], [0, 1], [0, 0]])
    >>> folds = IterativeStratifiedKFold(2, random_state=0)
    >>> for train, test in folds.split(np.zeros((8, 1)), Y):
    ...     print(Y[test].sum(axis=0), len(test))
    [2 2] 4
    [2 2] 4
    """

    def __init__(self, n_splits: int = 5, *, random_state: Any = None) -> None:
        self.n_splits = n_splits
        self.random_state = random_state

    @refuse_masked
    def split(self, X: Any, y: Any = None, groups: Any = None) -> Any:
        """Indices of the training and the test rows of every fold.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Only its length matters.
        y : {array-like, sparse matrix} of shape (n_samples, n_labels) or (n_samples,)
            Indicator matrix; nonzero is present. Classes if 1-D.
        groups : None
            Ignored.

        Yields
        ------
        train, test : ndarray of int
            Row numbers.

        Raises
        ------
        ValueError
            If y is missing or of another length than X, or ``n_splits`` is no integer
            between 2 and the number of examples.
        """
        if y is None:
            msg = "IterativeStratifiedKFold needs y, the labels to stratify by."
            raise ValueError(msg)
        check_consistent_length(X, y)
        yield from super().split(X, y, groups)

    def get_n_splits(self, X: Any = None, y: Any = None, groups: Any = None) -> int:
        """Number of folds.

        Parameters
        ----------
        X, y, groups : None
            Ignored.

        Returns
        -------
        n_splits : int
            As given.
        """
        return self.n_splits

    def _iter_test_indices(self, X=None, y=None, groups=None):
        y = check_array(y, accept_sparse=True, ensure_2d=False, dtype=None)
        if y.ndim == 1:
            classes, codes = np.unique(y, return_inverse=True)
            y = np.eye(len(classes), dtype=np.int8)[codes]
        n_splits, n_samples = self.n_splits, y.shape[0]
        if not (isinstance(n_splits, Integral) and 2 <= n_splits <= n_samples):
            msg = (
                f"n_splits={n_splits!r} must be an integer between 2 and the number of "
                f"examples, {n_samples}."
            )
            raise ValueError(msg)
        Y = sparse.csr_array(y != 0)
        folds = stratify(Y, int(n_splits), check_random_state(self.random_state))
        for fold in range(int(n_splits)):
            yield np.flatnonzero(folds == fold)
