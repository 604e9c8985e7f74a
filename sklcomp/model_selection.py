"""IterativeStratifiedKFold: folds of multi-label data, for users and their searches."""

from numbers import Integral
from typing import Any

import numpy as np
from scipy import sparse
from sklearn.model_selection import BaseCrossValidator
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_consistent_length

from sklcomp.utils._messages import show
from sklcomp.utils._stratification import stratify
from sklcomp.utils._targets import as_indicator, check_classes, read_targets
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
            Indicator matrix of 0/1 or False/True. Classes if 1-D or one column.
        groups : None
            Ignored.

        Yields
        ------
        train, test : ndarray of int
            Row numbers.

        Raises
        ------
        ValueError
            If y is missing, of another length than X, neither an indicator matrix nor
            classes (label sets, -1/+1, numbers), or holds missing values; if
            ``n_splits`` is no integer between 2 and the number of examples, or exceeds
            the members of every class.
        """
        if y is None:
            msg = "IterativeStratifiedKFold needs y, the labels to stratify by."
            raise ValueError(msg)
        y = read_targets(y)
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

    def _iter_test_indices(
        self, X: Any = None, y: Any = None, groups: Any = None
    ) -> Any:
        n_splits, n_samples = self.n_splits, y.shape[0]
        if not (isinstance(n_splits, Integral) and 2 <= n_splits <= n_samples):
            msg = (
                f"n_splits={show(n_splits)} must be an integer between 2 and the "
                f"number of examples, {n_samples}."
            )
            raise ValueError(msg)
        if y.ndim == 2 and y.shape[1] != 1:
            Y = as_indicator(y)
        else:
            Y = _one_hot(check_classes(y), n_splits)
        folds = stratify(Y, int(n_splits), check_random_state(self.random_state))
        for fold in range(int(n_splits)):
            yield np.flatnonzero(folds == fold)


def _one_hot(y: np.ndarray, n_splits: int) -> sparse.csr_array:
    """Indicator of the classes, of which one at least has a member for each fold."""
    classes, codes, counts = np.unique(y, return_inverse=True, return_counts=True)
    if counts.max() < n_splits:
        msg = (
            f"n_splits={show(n_splits)} exceeds the members of every class in y, at "
            f"most {counts.max()} of each: nothing can be stratified. Choose fewer "
            "folds, or KFold."
        )
        raise ValueError(msg)
    return sparse.csr_array(np.eye(len(classes), dtype=np.int8)[codes])
