"""The solvers: each takes a Problem and Settings and returns an Answer; none knows of another, of storage or of weights."""
