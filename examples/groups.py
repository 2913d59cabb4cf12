"""How many groups of features are worth a penalty each: R2 of new samples, by one alpha and by one for every group.

A third of the groups has strong effects, a third effects of a fifth of that, a third none; half of the variance of y is signal.
Takes half a minute.

    python examples/groups.py
"""

import warnings

import numpy as np

from fastridge import RidgeCV

REPETITIONS, NEW = 20, 2000
WAYS = {"one alpha": None, "leave-one-out": {}, "GCV": {"scoring": "gcv"}, "evidence": {"scoring": "evidence"}}


def main():
    warnings.filterwarnings("ignore", message="the best alpha is|feature groups")
    print("| rows x features, groups | " + " | ".join(WAYS) + " |")
    for n, p, n_groups in ((600, 100, 12), (150, 60, 3), (150, 60, 12), (60, 120, 3), (60, 120, 12)):
        labels = np.arange(p) % n_groups
        found = {way: [] for way in WAYS}
        for seed in range(REPETITIONS):
            rng = np.random.default_rng(seed)
            X = rng.standard_normal((n + NEW, p))
            signal = X @ (np.array([1.0, 0.2, 0.0])[labels % 3] * rng.standard_normal(p))
            y = signal + signal.std() * rng.standard_normal(n + NEW)
            for way, options in WAYS.items():
                groups = {} if options is None else {"feature_groups": labels} | options
                found[way].append(RidgeCV("auto", **groups).fit(X[:n], y[:n]).score(X[n:], y[n:]))
        print(f"| {n} x {p}, {n_groups} | " + " | ".join(f"{np.mean(part):.2f}" for part in found.values()) + " |", flush=True)


if __name__ == "__main__":
    main()
