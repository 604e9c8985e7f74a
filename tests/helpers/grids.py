"""Images with missing pixels, and the matrices that the solvers never form."""

import numpy as np
from scipy.fft import dct


def dense_operator(weights):
    """``C^T diag(W) C`` with the DCT matrix of each axis written out."""
    cosines = np.ones((1, 1))
    for n in weights.shape:
        cosines = np.kron(cosines, dct(np.eye(n), axis=0, norm="ortho"))
    return cosines.T @ (weights.ravel()[:, None] * cosines)


def dense_solution(image, observed, weights):
    operator, known = dense_operator(weights), observed.ravel()
    x = image.ravel().copy()
    missing = ~known
    right = -operator[np.ix_(missing, known)] @ x[known]
    x[missing] = np.linalg.solve(operator[np.ix_(missing, missing)], right)
    return x.reshape(image.shape)


def random_case(rng, shape, missing=0.6):
    """An image and a mask, of which one pixel is observed and one is missing."""
    image = rng.random(shape)
    observed = rng.random(shape) > missing
    seen, hidden = rng.choice(image.size, 2, replace=False)
    observed.flat[seen], observed.flat[hidden] = True, False
    return image, observed


def random_residual(rng, observed, n_images=1):
    """Right-hand sides on the missing pixels, which cannot be written to."""
    residual = np.where(observed, 0, rng.normal(size=(n_images, *observed.shape)))
    masks = np.broadcast_to(observed, residual.shape)
    residual.flags.writeable = False
    return residual, masks


def dense_correction(residual, observed, weights):
    """Solution of ``A_mm e_m = r_m``, zero at observed pixels."""
    missing = ~observed.ravel()
    matrix = dense_operator(weights)[np.ix_(missing, missing)]
    found = np.zeros(observed.size)
    found[missing] = np.linalg.solve(matrix, residual.ravel()[missing])
    return found.reshape(observed.shape)
