"""Choose penalties from outside, in float64 and without fastridge: by leave-one-out errors, or by R2 over five folds."""

import numpy as np
from scipy import linalg

N_FOLDS = 5  # of rows in their order, as scikit-learn's KFold cuts them


def best_alphas(A, targets, alphas, task: str) -> np.ndarray:
    """Return the best of `alphas` for each target (n, k) of the centred matrix A: one for all, or each its own."""
    scores = _fold_scores(A, targets, alphas) if task == "choose by folds" else -_sq_errors(A, targets, alphas)
    if task == "choose for each target":
        return np.asarray(alphas)[scores.argmax(axis=0)]
    return np.full(targets.shape[1], alphas[scores.mean(axis=1).argmax()])


def _sq_errors(A, targets, alphas) -> np.ndarray:
    """Return the sums of the squared leave-one-out errors, (alphas, k); a mean is fitted anew without every row."""
    n, p = A.shape
    s, v = linalg.eigh(A.small_gram())
    sums = np.zeros((len(alphas), targets.shape[1]))
    if n < p:
        s, v = s[1:], v[:, 1:]  # without the direction of the mean, in which nothing is left
        inner = v.T @ targets
        for a, alpha in enumerate(alphas):
            errors = (v @ (inner / (s + alpha)[:, None])) / ((v**2) @ (1 / (s + alpha)))[:, None]
            sums[a] = (errors**2).sum(axis=0)
        return sums
    inner = v.T @ A.rmatvec(targets)
    for rows, block in A.blocks():
        image = block @ v
        for a, alpha in enumerate(alphas):
            left = 1 - 1 / n - (image**2) @ (1 / (s + alpha))
            errors = (targets[rows] - image @ (inner / (s + alpha)[:, None])) / left[:, None]
            sums[a] += (errors**2).sum(axis=0)
    return sums


def _fold_scores(A, targets, alphas) -> np.ndarray:
    """Return R2 of the rows held out in the mean over folds, (alphas, k), of dense tall data."""
    n = len(targets)
    scores = np.zeros((len(alphas), targets.shape[1]))
    for test in np.array_split(np.arange(n), N_FOLDS):
        train = np.setdiff1d(np.arange(n), test)
        mean, y_mean = A.X[train].mean(axis=0, dtype=np.float64), targets[train].mean(axis=0)
        X, y = A.X[train] - mean, targets[train] - y_mean
        s, v = linalg.eigh(X.T @ X)
        inner = v.T @ (X.T @ y)
        for a, alpha in enumerate(alphas):
            rest = targets[test] - y_mean - (A.X[test] - mean) @ (v @ (inner / (s + alpha)[:, None]))
            spread = targets[test] - targets[test].mean(axis=0)
            scores[a] += (1 - (rest**2).sum(axis=0) / (spread**2).sum(axis=0)) / N_FOLDS
    return scores
