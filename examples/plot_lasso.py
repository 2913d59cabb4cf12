"""
Ridge shrinks, the lasso selects
================================

Both penalties draw coefficients towards zero. The squared one of ridge regression shrinks all of them and sets none to
zero. The absolute one of the lasso sets some to zero: it selects. fastridge has no such penalty; scikit-learn has.
"""

import numpy as np
from matplotlib import pyplot as plt
from sklearn.datasets import load_diabetes
from sklearn.linear_model import lasso_path

from fastridge import ridge_path

X, y = load_diabetes(return_X_y=True)
ridge = ridge_path(X, y)
alphas, lasso, _ = lasso_path(X - X.mean(axis=0), y - y.mean())

figure, axes = plt.subplots(1, 2, figsize=(9, 4), sharey=True, layout="constrained")
axes[0].semilogx(ridge.alphas, ridge.coefs)
axes[1].semilogx(alphas, lasso.T)
axes[0].set(title="ridge", xlabel="alpha", ylabel="coefficient")
axes[1].set(title="lasso", xlabel="alpha of scikit-learn's Lasso")
plt.show()

# %%
# How many coefficients are not zero, at a large and at a small penalty:

print("ridge:", np.count_nonzero(ridge.coefs[[0, -1]], axis=1))
print("lasso:", np.count_nonzero(lasso.T[[1, -1]], axis=1))

# %%
# In the directions of the right singular vectors of the centred X, ridge multiplies the coefficients of least squares
# by s^2 / (s^2 + alpha), with s the singular value. Directions that the data hardly show (small s) shrink first.

s = np.linalg.svd(X - X.mean(axis=0), compute_uv=False)
figure, ax = plt.subplots(layout="constrained")
ax.semilogx(ridge.alphas, s**2 / (s**2 + ridge.alphas[:, None]), color="tab:blue")
ax.set(xlabel="alpha", ylabel="factor, a line for each singular value")
plt.show()
