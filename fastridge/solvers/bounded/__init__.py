"""Bounds on the coefficients: sweeps of coordinate descent that settle which are active, and Newton steps on the others."""

from fastridge.solvers.bounded.gram import by_gram
from fastridge.solvers.bounded.solver import BoundedSolver, solve, unsolved

__all__ = ["BoundedSolver", "by_gram", "solve", "unsolved"]
