"""
Predicted against actual values, and residuals
==============================================

scikit-learn's `PredictionErrorDisplay` takes the estimators of this package as they are.
"""

from matplotlib import pyplot as plt
from sklearn.datasets import load_diabetes
from sklearn.metrics import PredictionErrorDisplay
from sklearn.model_selection import train_test_split

from fastridge import RidgeCV

X, y = load_diabetes(return_X_y=True)
X, X_test, y, y_test = train_test_split(X, y, random_state=0)
model = RidgeCV(alphas="auto").fit(X, y)

# %%
# On rows that the fit has not seen, points scatter about the diagonal; the smallest values are predicted too large and
# the largest too small, as a penalty and noisy features have it.

PredictionErrorDisplay.from_estimator(model, X_test, y_test, kind="actual_vs_predicted")
plt.show()

# %%
# Residuals scatter about zero. Larger predictions have larger ones: the noise is not the same for all.

PredictionErrorDisplay.from_estimator(model, X_test, y_test, kind="residual_vs_predicted")
plt.show()
