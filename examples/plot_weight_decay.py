"""
Weight decay is ridge regression
================================

Gradient descent on the squared loss, with every weight multiplied by 1 - eta alpha in each step ("weight decay"), is
gradient descent on the objective of ridge regression: the gradient of alpha ||w||^2 / 2 is alpha w. It ends at the
ridge solution, after as many steps as the condition of the problem demands.
"""

import numpy as np
from matplotlib import pyplot as plt

from fastridge import Ridge

rng = np.random.default_rng(0)
X = rng.standard_normal((200, 20)) * np.logspace(0, 0.5, 20)
y = X @ rng.standard_normal(20) + rng.standard_normal(200)
A, b = X - X.mean(axis=0), y - y.mean()

figure, ax = plt.subplots(layout="constrained")
for alpha in (10.0, 100.0, 1000.0):
    solution = Ridge(alpha, tol=1e-12).fit(X, y).coef_
    eta = 1 / (np.linalg.norm(A, 2) ** 2 + alpha)
    w, distances = np.zeros(20), []
    for _ in range(300):
        w = (1 - eta * alpha) * w + eta * A.T @ (b - A @ w)
        distances.append(np.linalg.norm(w - solution) / np.linalg.norm(solution))
    ax.semilogy(distances, label=f"alpha {alpha:g}")
ax.set(xlabel="step of gradient descent", ylabel="distance to the ridge solution, relative")
ax.legend(frameon=False)
plt.show()

# %%
# With steps that differ from weight to weight (Adam) the two are not the same: Loshchilov & Hutter (2019), "Decoupled
# weight decay regularization".
