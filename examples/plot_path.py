"""
Coefficients against alpha
==========================

`ridge_path` solves at many penalties for little more than the price of one. As alpha grows all coefficients shrink
towards zero, and none is ever exactly zero.
"""

from matplotlib import pyplot as plt
from sklearn.datasets import load_diabetes

from fastridge import RidgeCV, ridge_path
from fastridge.plots import PathDisplay

data = load_diabetes()
path = ridge_path(data.data, data.target)
print(path)

# %%
# The dashed line is the penalty that leave-one-out errors choose. Some coefficients change their sign on the way there:
# the blood serum measurements s1 to s5 are strongly correlated, and a small penalty lets them grow against one another.

chosen = RidgeCV(alphas="auto").fit(data.data, data.target).alpha_
PathDisplay.from_path(path, feature_names=data.feature_names, alpha=chosen).plot()
plt.show()

# %%
# With bounds a path is as certified as without. Here no coefficient may be negative, and some stay at zero until alpha
# is small.

positive = ridge_path(data.data, data.target, positive=True)
PathDisplay.from_path(positive, feature_names=data.feature_names).plot()
plt.show()
