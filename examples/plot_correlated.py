"""
Why a penalty helps where columns are correlated
================================================

The expected squared error of a coefficient is its squared bias plus its variance. Least squares has no bias. But where
columns are nearly equal, only their sum is well known, and the variance of each coefficient is large. A penalty adds
some bias and takes off much of the variance.

Here ten columns share a common part, and the noise is drawn 2000 times.
"""

import numpy as np
from matplotlib import pyplot as plt

from fastridge import ridge_path

rng = np.random.default_rng(0)
common = rng.standard_normal((60, 1))
X = common + 0.3 * rng.standard_normal((60, 10))
true = np.linspace(0.5, 1.5, 10)
draws = (X @ true)[:, None] + 2 * rng.standard_normal((60, 2000))

alphas = np.logspace(-2, 4, 40)
coefs = ridge_path(X, draws, alphas).coefs  # all draws and penalties at once
print(coefs.shape)

# %%
# Squared bias rises with alpha and variance falls; their sum is least in between.

sq_bias = ((coefs.mean(axis=1) - true) ** 2).sum(axis=1)
variance = coefs.var(axis=1).sum(axis=1)
sq_error = sq_bias + variance
best = alphas[np.argmin(sq_error)]

figure, ax = plt.subplots(layout="constrained")
ax.loglog(alphas, sq_bias, color="tab:blue", label="squared bias")
ax.loglog(alphas, variance, color="tab:orange", label="variance")
ax.loglog(alphas, sq_error, color="black", label="their sum")
ax.axvline(best, color="tab:red", ls="--", label=f"least: alpha {best:.2g}")
ax.set(xlabel="alpha", ylabel="squared error of the coefficients", ylim=(0.02, None))
ax.legend(frameon=False)
plt.show()

# %%
# How many times less that is than at the smallest alpha:

print(sq_error[0] / sq_error.min())
