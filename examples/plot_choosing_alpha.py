"""
Choosing alpha
==============

`RidgeCV` scores every penalty by exact leave-one-out errors, all from one decomposition. Here the result is held
against what nobody has in practice: a large set of rows that no fit has seen.
"""

import numpy as np
from matplotlib import pyplot as plt

from fastridge import RidgeCV, ridge_path
from fastridge.plots import ScoreDisplay

rng = np.random.default_rng(0)
w = rng.standard_normal(60)


def draw(n):
    """Correlated columns, and a noisy linear response"""
    X = rng.standard_normal((n, 60)) + 2 * rng.standard_normal((n, 1))
    return X, X @ w + 10 * rng.standard_normal(n)


X, y = draw(100)
X_new, y_new = draw(20_000)

model = RidgeCV(alphas="auto", store_cv_results=True).fit(X, y)
print(model.alpha_, model.best_score_)

# %%
# The band is one standard error of the leave-one-out scores. The black line is the score on the new rows: the choice of
# leave-one-out is near the best for them.

display = ScoreDisplay.from_estimator(model).plot()
path = ridge_path(X, y, model.alphas_)
errors = path.predict(X_new) - y_new
order = np.argsort(model.alphas_)
scores = -np.mean(errors**2, axis=1)
display.ax_.plot(model.alphas_[order], scores[order], color="black", linestyle="--")
display.ax_.set_title("leave-one-out (blue) and 20,000 new rows (black)")
plt.show()
