"""Matrices as solvers see them: one contract (`base`), whatever stores the entries."""
