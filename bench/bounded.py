"""Solve a ridge problem with bounds on its coefficients to nearly machine precision, as a reference.

With H = A'A + alpha I and g the gradient at w, any u within the bounds has `P(u) >= P(w) - ||v||^2 / (2 alpha)`, where v_j is
g_j less what a bound that holds pushes back; the reference is accepted by that, with g computed from the data.
"""

import numpy as np
from scipy import linalg
from scipy.optimize import minimize

GOAL = 1e-8  # of the error that the reference may have itself, by the bound above
MAX_ROUNDS = 100  # of guessing which bounds hold; five are usual
SLACK = 1e-10  # by which a bound may be missed, relative to the largest coefficient


def solve(reference) -> np.ndarray:
    """Return w*, (p,), for a `Reference` with one target and at most some thousand columns.

    L-BFGS-B comes near; then the columns where w - g / diag(H) leaves the bounds are put on them, the others solved for, until
    the guess repeats itself (primal-dual active sets: Hintermueller, Ito & Kunisch 2002, DOI 10.1137/S1052623401383558).
    """
    A, alpha = reference.A, reference.alphas[0]
    p = A.shape[1]
    H = A.small_gram() if A.shape[0] >= p else None
    if H is None:
        raise ValueError("references with bounds are for n >= p")
    H[np.diag_indices(p)] += alpha
    rhs = -reference.gradient(np.zeros((1, p)))[0]
    lower, upper = (np.broadcast_to(bound, p) for bound in reference.data.bounds)

    def objective(w):
        product = H @ w
        return 0.5 * (w @ product) - rhs @ w, product - rhs

    w = minimize(objective, np.clip(0, lower, upper), jac=True, method="L-BFGS-B", bounds=list(zip(lower, upper, strict=True))).x
    held = None
    for _ in range(MAX_ROUNDS):
        aim = w - (H @ w - rhs) / H.diagonal()
        last, held = held, np.where(aim <= lower, -1, np.where(aim >= upper, 1, 0))
        if last is not None and (held == last).all():
            break
        free = held == 0
        w = np.where(held < 0, lower, np.where(held > 0, upper, 0.0))
        factor = linalg.cho_factor(H[np.ix_(free, free)])
        w[free] = linalg.cho_solve(factor, (rhs - H @ w)[free])
    for _ in range(3):  # with the gradient from the data, rounding in H no longer matters
        w[free] -= linalg.cho_solve(factor, reference.gradient(w[None, :])[0][free])
    w = np.clip(w, lower, upper)

    gradient = reference.gradient(w[None, :])[0]
    left = np.where(w <= lower, np.minimum(gradient, 0), np.where(w >= upper, np.maximum(gradient, 0), gradient))
    error = linalg.norm(left) / np.sqrt(alpha * (w @ H @ w))
    if error > GOAL:
        raise ArithmeticError(f"the reference solution with bounds may be off by {error:.1e}, more than {GOAL}")
    return w


def first_order(reference, step) -> float:
    """Return g*'(w - w*) >= 0, what P(w) - P* has beside half the squared H-norm of the step; infinite outside the bounds."""
    best = reference.coef[0]
    lower, upper = reference.data.bounds
    slack = SLACK * np.abs(best).max()
    if np.any(best + step < lower - slack) or np.any(best + step > upper + slack):
        return np.inf
    if not hasattr(reference, "best_gradient"):
        reference.best_gradient = reference.gradient(reference.coef)[0]
    # What a free column has of a gradient is rounding.
    held = (best <= lower) | (best >= upper)
    return max(0.0, float(reference.best_gradient[held] @ step[held]))
