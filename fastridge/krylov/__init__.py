"""Conjugate gradients for several right-hand sides at once, and what their coefficients prove about the error."""
