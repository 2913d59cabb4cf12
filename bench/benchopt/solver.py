"""fastridge as a solver of benchopt's ridge benchmark: copy this file there, as `solvers/fastridge.py`.

The benchmark minimises 1/2 ||y - X beta - b||^2 + 1/2 lmbd ||beta||^2, so that alpha = lmbd. A curve of benchopt is made of fits
from scratch to smaller and smaller tolerances: tol here, the relative H-norm error that a fit is proven to stay below.
"""

from typing import ClassVar

import numpy as np
from benchopt import BaseSolver

import fastridge

LEAST_TOL = 1e-15  # no float64 answer is nearer; 0 is asked for where nothing but the number of steps is to end a fit


class Solver(BaseSolver):
    """Fit by `fastridge.ridge`."""

    name = "fastridge"
    requirements: ClassVar = ["pip::fastridge-solvers"]
    sampling_strategy = "tolerance"
    parameters: ClassVar = {"solver": ["auto"]}

    def set_objective(self, X, y, lmbd=1.0, fit_intercept=False):
        """Take the data and the penalty."""
        self.X, self.y, self.lmbd, self.fit_intercept = X, y, lmbd, fit_intercept

    def warm_up(self):
        """Load what a first fit loads."""
        self.run(0.5)

    def run(self, tol):
        """Fit to a tolerance; from 1 on the answer is zero, whose relative error is 1."""
        if tol >= 1:
            self.coef, self.intercept = np.zeros(self.X.shape[1]), np.mean(self.y) if self.fit_intercept else 0.0
            return
        options = {"solver": self.solver, "fit_intercept": self.fit_intercept, "tol": max(tol, LEAST_TOL)}
        solution = fastridge.ridge(self.X, self.y, self.lmbd, **options)
        self.coef, self.intercept = solution.coef, solution.intercept

    def get_result(self):
        """Return the coefficients, and the intercept behind them where there is one."""
        return {"beta": np.append(self.coef, self.intercept) if self.fit_intercept else self.coef}
