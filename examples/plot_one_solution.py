"""
There is one solution
=====================

Two equal columns: least squares cannot say how they share their coefficient, and any point of a valley is a minimum.
With a penalty the objective is strongly convex. It has one minimum, at which each column has a half.
"""

import numpy as np
from matplotlib import pyplot as plt

from fastridge import Ridge

rng = np.random.default_rng(0)
x = rng.standard_normal(50)
X = np.column_stack([x, x])
y = 2 * x + 0.5 * rng.standard_normal(50)


def objective(w, alpha):
    """At w, (..., 2)"""
    return 0.5 * np.sum((y - w @ X.T) ** 2, axis=-1) + 0.5 * alpha * np.sum(w**2, axis=-1)


grid = np.stack(np.meshgrid(np.linspace(-2, 4, 121), np.linspace(-2, 4, 121)), axis=-1)
figure, axes = plt.subplots(1, 2, figsize=(9, 4.5), sharey=True, layout="constrained")
for ax, alpha in zip(axes, (0.0, 20.0), strict=True):
    values = objective(grid, alpha)
    ax.contour(grid[..., 0], grid[..., 1], np.sqrt(values - values.min()), 15, cmap="viridis")
    w = Ridge(alpha, fit_intercept=False, solver="svd" if alpha == 0 else "auto").fit(X, y).coef_
    ax.plot(*w, "o", color="tab:red", label="of minimum norm" if alpha == 0 else "the minimum")
    ax.set(title=f"alpha {alpha:g}", xlabel="first coefficient", aspect="equal")
    ax.legend()
axes[0].set_ylabel("second coefficient")
plt.show()

# %%
# At a distance d from the minimum the objective is higher by alpha d^2 / 2 or more.

away = rng.standard_normal((1000, 2))
higher = objective(w + away, 20.0) - objective(w, 20.0)
print((higher >= 0.5 * 20.0 * np.sum(away**2, axis=1)).all())
