"""How the time of a product grows with workers, rows and features: measured on one and two workers, and a model of it."""

import warnings

import numpy as np

from bench.clusters import CLUSTER, N_FEATURES, N_ROUNDS, dense_rows, hardly_any_rows, once

SIZES = (50_000, 100_000, 200_000, 400_000, 800_000)
FEATURES = (1000, 10_000, 100_000, 1_000_000)


def measure() -> list[dict]:
    """Return seconds of products: of rows x 100 dense, and of hardly any rows with many features."""
    import distributed

    points = []
    for n_workers in (1, 2):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with distributed.LocalCluster(n_workers=n_workers, **CLUSTER) as cluster, distributed.Client(cluster):
                for kind, sizes, make in (("rows", SIZES, dense_rows), ("features", FEATURES, hardly_any_rows)):
                    for size in sizes:
                        p = N_FEATURES if kind == "rows" else size
                        operator = make(size).operator(True, 1, False)[0]
                        v = np.random.default_rng(0).standard_normal((p, 1))
                        seconds = sorted(once(lambda operator=operator, v=v: operator.normal(v)) for _ in range(N_ROUNDS))
                        points.append({"workers": n_workers, "kind": kind, "size": size, "seconds": seconds[N_ROUNDS // 2]})
    return points


def fitted(points: list[dict]) -> dict:
    """Return the constants of seconds = bytes / (workers rate) + start + workers (task + 16 p / wire), by least squares of ratios

    16 p bytes travel to each worker and back. Constants are not negative.
    """
    from scipy.optimize import nnls

    terms = np.array([_terms(**{name: point[name] for name in ("workers", "kind", "size")}) for point in points])
    seconds = np.array([point["seconds"] for point in points])
    constants = nnls(terms / seconds[:, None], np.ones(len(points)))[0]
    return dict(zip(("seconds_per_byte", "start", "task", "seconds_per_byte_sent"), constants.tolist(), strict=True))


def _terms(workers: int, kind: str, size: int) -> list[float]:
    p = N_FEATURES if kind == "rows" else size
    n_bytes = 8.0 * N_FEATURES * size if kind == "rows" else 0.0
    return [n_bytes / workers, 1.0, float(workers), 16.0 * p * workers]
