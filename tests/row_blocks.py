"""An operator as a stranger would write one: blocks of rows, dense and sparse, which live elsewhere; it counts its passes."""

import numpy as np

from fastridge.operators.base import Operator, Traits
from fastridge.problem import Problem


class Rows:
    """What stands for an (m, k) array: a list of its blocks, which nothing but the operator looks into"""

    def __init__(self, blocks):
        self.blocks = blocks
        self.shape = (sum(map(len, blocks)), blocks[0].shape[1])

    def __getitem__(self, rows):
        starts = np.cumsum([0, *map(len, self.blocks)])
        return self.blocks[int(np.flatnonzero(starts == rows.start)[0])]


class RowBlocks(Operator):
    """R (X - 1 mean') for X in blocks of rows, `roots` of the sample weights alike; tall only, one pass a product"""

    def __init__(self, blocks, mean, roots):
        self.parts, self.mean, self.roots = blocks, mean, roots
        self.shape = (sum(block.shape[0] for block in blocks), blocks[0].shape[1])
        self.n_passes = 0
        self._traits = Traits(8 * self.shape[0] * self.shape[1], self.shape[0] * self.shape[1], 1, False, 1, transposes=False)

    @property
    def traits(self):
        return self._traits

    def _over_rows(self, targets=None):
        self.n_passes += 1
        yield from zip(self.parts, self.roots, self.parts if targets is None else targets.blocks, strict=True)

    def matvec(self, v):
        return Rows([root * (X @ v - self.mean @ v) for X, root, _ in self._over_rows()])

    def rmatvec(self, u):
        return sum(X.T @ (root * t) - np.outer(self.mean, (root * t).sum(axis=0)) for X, root, t in self._over_rows(u))

    def normal(self, v, target=None):
        out = np.zeros_like(v)
        for X, root, t in self._over_rows(target):
            fit = root * (root * (X @ v - self.mean @ v) - (0 if target is None else t))
            out += X.T @ fit - np.outer(self.mean, fit.sum(axis=0))
        return out

    def gram(self, go_on=None):
        return np.asfortranarray(sum(block.T @ block for _, _, block in self.blocks()))

    def blocks(self):
        lo = 0
        for X, root, _ in self._over_rows():
            yield lo, lo + X.shape[0], root * ((X if isinstance(X, np.ndarray) else X.toarray()) - self.mean)
            lo += X.shape[0]

    @property
    def sq_norms(self):
        if not hasattr(self, "_sq_norms"):
            self._sq_norms = sum((block**2).sum(axis=0) for _, _, block in self.blocks())
        return self._sq_norms

    def sq_target(self, target):
        return sum((t**2).sum(axis=0) for t in target.blocks)

    def take_targets(self, target, chosen):
        return Rows([t[:, chosen] for t in target.blocks])


def blocks_problem(X, Y, penalty, weights, cuts, make):
    """The problem of X (n, p) and Y (n, k) with an intercept, its rows cut into blocks, each stored by its `make`"""
    mean, y_mean = np.average(X, axis=0, weights=weights), np.average(Y, axis=0, weights=weights)
    roots = np.split(np.sqrt(weights)[:, None], cuts)
    operator = RowBlocks([store(block) for store, block in zip(make, np.split(X, cuts), strict=True)], mean, roots)
    target = Rows([root * (block - y_mean) for root, block in zip(roots, np.split(Y, cuts), strict=True)])
    return Problem(operator, target, penalty, np.stack([mean, 0 * mean]), np.stack([y_mean, 0 * y_mean]))
