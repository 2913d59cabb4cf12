"""
An estimate, its bound and the truth
====================================

A fit has converged when its error is *proven* to be at most `tol`. The columns of these data are strongly correlated,
which makes conjugate gradients (CG) slow, so that there are steps to look at. A callback keeps what the solver says
after every step.
"""

import numpy as np
from matplotlib import pyplot as plt

from fastridge import ridge
from fastridge.plots import ConvergenceDisplay

rng = np.random.default_rng(0)
mixed = np.logspace(0, -2, 30)[:, None] * rng.standard_normal((30, 30))
X = rng.standard_normal((300, 30)) @ mixed
y = X @ rng.standard_normal(30) + rng.standard_normal(300)

steps = []
solution = ridge(X, y, alpha=0.1, solver="cg", callback=steps.append)
print(solution.report)

# %%
# The true error comes from a solution by numpy, and from solves that are stopped after every number of steps.

A = X - X.mean(axis=0)
H = A.T @ A + 0.1 * np.eye(30)
exact = np.linalg.solve(H, A.T @ (y - y.mean()))


def true_error(coef):
    """Relative, in the norm of the objective"""
    d = coef - exact
    return np.sqrt((d @ H @ d) / (exact @ H @ exact))


stopped = [ridge(X, y, alpha=0.1, solver="cg", max_iter=k + 1) for k in range(len(steps))]
true_errors = np.array([true_error(answer.coef) for answer in stopped])

ConvergenceDisplay.from_progress(steps, tol=1e-6, true_errors=true_errors).plot()
plt.show()

# %%
# The bound is above the true error at every step. The estimate is not, which is why nothing that is claimed rests on
# it.

bounds = np.array([step.error_bound for step in steps])
assert (bounds >= true_errors).all()

estimates = np.array([step.error for step in steps])
print((estimates < true_errors).sum(), "of", len(steps), "estimates are too small")
