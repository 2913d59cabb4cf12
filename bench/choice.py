"""Choose penalties from outside, in float64 and without fastridge: by leave-one-out errors, or by R2 over five folds."""

import numpy as np
from scipy import linalg
from scipy.optimize import minimize

STARTS = (3.0, 6.0)  # logarithms of a penalty for all groups of features, from which the search for one each goes on
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


class GroupReference:
    """Hold the least sum of squared leave-one-out errors of dense data with a penalty for each group of features, one target."""

    def __init__(self, data):
        self.A, self.y, self.groups = data.X - data.X.mean(axis=0), data.y - data.y.mean(), data.groups
        self.centres = data.X.mean(axis=0), data.y.mean()

        def log_error(theta) -> float:
            return float(np.log(self._fitted(np.exp(theta))[1]))

        n_groups = self.groups.max() + 1
        # Differences for derivatives: more steps than a gradient would take.
        found = [minimize(log_error, np.full(n_groups, start), method="L-BFGS-B", options={"ftol": 1e-13}) for start in STARTS]
        self.least = float(np.exp(min(result.fun for result in found)))

    def error(self, answer) -> float:
        """Return the larger of the relative excess of the sum of squares and the error of the coefficients at these penalties."""
        w, sq = self._fitted(np.asarray(answer.alphas, dtype=np.float64))
        d, step = np.asarray(answer.alphas)[self.groups], np.ravel(answer.coef) - w
        mean, y_mean = self.centres
        off = np.sqrt(len(self.y)) * (np.ravel(answer.intercept)[0] - (y_mean - mean @ np.ravel(answer.coef)))
        norms = [np.sqrt(np.sum((self.A @ v) ** 2) + d @ v**2) for v in (step, w)]
        return float(max(sq / self.least - 1, np.hypot(norms[0], off) / norms[1]))

    def _fitted(self, alphas) -> tuple:
        """Return the coefficients and the sum of squared leave-one-out errors at the penalties of groups."""
        d, (n, p) = alphas[self.groups], self.A.shape
        if n < p:
            # K + I without the direction of the mean, in which the inverse is one.
            inverse = linalg.inv((self.A / d) @ self.A.T + np.eye(n)) - 1 / n
            residual = inverse @ self.y
            return self.A.T @ residual / d, float(np.sum((residual / inverse.diagonal()) ** 2))
        solved = linalg.solve(self.A.T @ self.A + np.diag(d), self.A.T, assume_a="pos")
        w = solved @ self.y
        left = 1 - 1 / n - np.einsum("ij,ji->i", self.A, solved)
        return w, float(np.sum(((self.y - self.A @ w) / left) ** 2))
