"""Which criterion chooses well, and how often the best penalty is among those that cannot be told apart from the choice.

Made regressions whose truth is known: the mean squared error of predictions of new samples is computed for every penalty, and
compared at the penalty that a criterion chooses and at the best of them. Takes some five minutes.

    python examples/criteria.py
"""

import warnings

import numpy as np

from fastridge import RidgeCV

ALPHAS = np.geomspace(1e-2, 1e5, 40)
REPETITIONS = 200
WAYS = {
    "leave-one-out": {},
    "5 folds": {"cv": 5},
    "GCV": {"scoring": "gcv"},
    "AIC": {"scoring": "aic"},
    "BIC": {"scoring": "bic"},
    "evidence": {"scoring": "evidence"},
    "one standard error": {"rule": "one_standard_error"},
}


def made(rng, n, p, dense, signal):
    """Return X of neighbouring columns with correlation 0.5, y, and the error at every penalty of ALPHAS.

    Coefficients are normal, of all features or of three; `signal` is the variance of the signal over that of the noise.
    """
    covariance = 0.5 ** np.abs(np.subtract.outer(np.arange(p), np.arange(p)))
    X = rng.standard_normal((n, p)) @ np.linalg.cholesky(covariance).T
    w = np.zeros(p)
    if dense:
        w = rng.standard_normal(p)
    else:
        w[rng.choice(p, 3, replace=False)] = 3 * rng.standard_normal(3)
    noise = np.sqrt(w @ covariance @ w / signal)
    y = X @ w + noise * rng.standard_normal(n)
    u, s, vt = np.linalg.svd(X - X.mean(axis=0), full_matrices=False)
    image = u.T @ (y - y.mean())
    off = (s / (s**2 + ALPHAS[:, None]) * image) @ vt - w
    return X, y, np.einsum("ai,ij,aj->a", off, covariance, off) + noise**2


def main():
    warnings.filterwarnings("ignore", message="the best alpha is")
    print("mean excess over the least possible error, in per cent; how often the best alpha is told apart from the choice")
    for n, p in ((100, 20), (1000, 50), (60, 200)):
        for dense in (True, False):
            for signal in (0.2, 4):
                rng = np.random.default_rng(0)
                excess = {way: [] for way in WAYS}
                found = []
                for _ in range(REPETITIONS):
                    X, y, errors = made(rng, n, p, dense, signal)
                    for way, options in WAYS.items():
                        choice = RidgeCV(ALPHAS, **options).fit(X, y).choice_
                        excess[way].append(errors[choice.chosen] / errors.min() - 1)
                        if way == "leave-one-out":
                            found.append(choice.indistinguishable[errors.argmin()])
                row = ", ".join(f"{way} {100 * np.mean(part):.1f}" for way, part in excess.items())
                kind = "all" if dense else "three"
                told_apart = 100 * (1 - np.mean(found))
                print(f"{n} x {p}, {kind} features, signal {signal}: {row}; {told_apart:.0f} % told apart", flush=True)


if __name__ == "__main__":
    main()
