"""
Time to accuracy
================

How long does each solver take to *prove* how much? `ConvergenceDisplay` draws the bounds that a callback was told
against time. A direct solver is one point: it has nothing to say before it has finished, and then it is as accurate as
float64 allows.
"""

import numpy as np
from matplotlib import pyplot as plt

from fastridge import explain, ridge
from fastridge.plots import ConvergenceDisplay

rng = np.random.default_rng(0)
X = rng.standard_normal((8000, 400)) + rng.standard_normal((8000, 1))
y = X @ rng.standard_normal(400) + rng.standard_normal(8000)

figure, ax = plt.subplots(layout="constrained")
for solver in ("cg", "cd", "cholesky"):
    steps = []
    ridge(X, y, solver=solver, tol=1e-10, callback=steps.append)
    ConvergenceDisplay.from_progress(steps).plot(ax, x="seconds", name=solver)
ax.axhline(1e-6, color="gray", linestyle=":", linewidth=1)
plt.show()

# %%
# The dotted line is the default tol. Which solver is there first depends on the data. ``solver="auto"`` weighs up
# beforehand what each would take:

print(explain(X, y))
