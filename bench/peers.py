"""List who is measured: fastridge, scikit-learn, scipy for the bounded problems, and optional packages where installed.

scikit-learn's iterative solvers get the loosest tol that reaches the target accuracy on the case at hand (`loosest_tol`),
since their tol bounds other things; its default is a contender of its own.

Another package is one more `Contender`: it needs the same penalty, an unpenalised intercept and coefficients.
"""

from fnmatch import fnmatch
from functools import partial

import numpy as np
from scipy import linalg, sparse
from scipy.optimize import lsq_linear, nnls
from sklearn.linear_model import Ridge, RidgeClassifier, RidgeClassifierCV, RidgeCV

from bench import optional, ours
from bench.cases import Data, check_patterns
from bench.contender import Answer, Contender, Stop, largest

LSQR_TOL, CG_TOL, LBFGS_TOL, TRF_TOL = 1e-8, 1e-7, 1e-6, 1e-10  # about what the cases here need: where a search begins


def contenders() -> list[Contender]:
    """List all contenders, ours first."""
    return [*ours.contenders(), *_sklearn_fits(), *_other_tasks(), *optional.contenders()]


def select(patterns: str = "*") -> list[Contender]:
    """List the contenders whose name matches one of the comma-separated shell patterns."""
    every = contenders()
    check_patterns(patterns, (contender.name for contender in every), "contender")
    return [contender for contender in every if any(fnmatch(contender.name, pattern) for pattern in patterns.split(","))]


def _sklearn_fits() -> list[Contender]:
    def named(solver: str, **options) -> Contender:
        return Contender(f"sklearn-{solver}", partial(_sklearn, solver), _read_model, **options)

    def named_float64(solver: str, **options) -> Contender:
        return Contender(f"sklearn-{solver}-f64", partial(_sklearn_float64, solver), _read_model, **options)

    return [
        Contender("sklearn-default", partial(_sklearn, "auto"), _read_model),
        named("svd", takes=is_small_enough_for_svd),
        # float64 first: it sets the time after which the search for a tol that float32 may never reach is given up.
        named_float64("cholesky", takes=_is_dense_float32),
        named_float64("lsqr", takes=_is_float32, start_tol=LSQR_TOL),
        named_float64("sparse_cg", takes=_is_float32, start_tol=CG_TOL),
        named("cholesky", takes=is_dense),
        named("lsqr", start_tol=LSQR_TOL),
        named("sparse_cg", start_tol=CG_TOL),
    ]


def _other_tasks() -> list[Contender]:
    def classifier(solver: str, **options) -> Contender:
        return Contender(f"sklearn-{solver}", partial(_sklearn_classifier, solver), _read_model, task="classify", **options)

    def path(solver: str, **options) -> Contender:
        return Contender(f"sklearn-{solver}", partial(_sklearn_path, solver), _read_models, task="path", **options)

    def bounded(task: str, name: str, solve, **options) -> Contender:
        return Contender(f"scipy-{name}", partial(_scipy, solve), _read_reduced, task=task, takes=_is_reducible, **options)

    return [
        Contender("sklearn-default", _sklearn_predict, _read_prediction, task="predict"),
        bounded("positive", "nnls", _nnls),
        bounded("positive", "bvls", partial(_lsq_linear, "bvls")),
        bounded("positive", "trf", partial(_lsq_linear, "trf"), start_tol=TRF_TOL),
        Contender("sklearn-lbfgs", _sklearn_positive, _read_model, task="positive", start_tol=LBFGS_TOL),
        bounded("bounds", "bvls", partial(_lsq_linear, "bvls")),
        bounded("bounds", "trf", partial(_lsq_linear, "trf"), start_tol=TRF_TOL),
        path("lsqr", start_tol=LSQR_TOL),
        path("sparse_cg", start_tol=CG_TOL),
        Contender("sklearn-default", partial(_sklearn_classifier, "auto"), _read_model, task="classify"),
        Contender("sklearn-cholesky-f64", _sklearn_classifier_float64, _read_model, task="classify", takes=_is_dense_float32),
        *(Contender("sklearn-default", _sklearn_choose, _read_choice, task=task) for task in ours.CHOOSING),
        Contender("sklearn-default", _sklearn_choose_for_classes, _read_choice, task="choose for classes"),
        classifier("cholesky", takes=is_dense),
        classifier("lsqr", start_tol=LSQR_TOL),
        classifier("sparse_cg", start_tol=CG_TOL),
    ]


def _sklearn(solver: str, data: Data, stop: Stop):
    return partial(Ridge(data.alpha, solver=solver, **_options(data, stop)).fit, data.X, data.y)


def _sklearn_float64(solver: str, data: Data, stop: Stop):
    """Fit on a float64 copy of X: what is left to do where float32 arithmetic does not reach the target."""
    model = Ridge(data.alpha, solver=solver, **_options(data, stop))
    return lambda: model.fit(data.X.astype(np.float64), data.y)


def _sklearn_predict(data: Data, stop: Stop):
    return partial(Ridge(data.alpha).fit(data.X, data.y).predict, data.X)


def _sklearn_positive(data: Data, stop: Stop):
    return partial(Ridge(data.alpha, positive=True, **_options(data, stop)).fit, data.X, data.y)


def _sklearn_classifier(solver: str, data: Data, stop: Stop):
    return partial(RidgeClassifier(data.alpha, solver=solver, **_options(data, stop)).fit, data.X, data.y.argmax(axis=1))


def _sklearn_classifier_float64(data: Data, stop: Stop):
    model, labels = RidgeClassifier(data.alpha, solver="cholesky"), data.y.argmax(axis=1)
    return lambda: model.fit(data.X.astype(np.float64), labels)


def _sklearn_path(solver: str, data: Data, stop: Stop):
    """Fit at a few of the penalties only; the row says so, and what is reported is the time of all (`Data.share_fitted`)."""
    options = _options(data, stop)
    return lambda: [Ridge(alpha, solver=solver, **options).fit(data.X, data.y) for alpha in data.sampled_alphas]


def _sklearn_choose(data: Data, stop: Stop):
    return partial(RidgeCV(data.choices, **ours.CHOOSING[data.task]).fit, data.X, data.y)


def _sklearn_choose_for_classes(data: Data, stop: Stop):
    return partial(RidgeClassifierCV(data.choices).fit, data.X, data.y.argmax(axis=1))


def _options(data: Data, stop: Stop) -> dict:
    if stop.tol is None:
        return {}
    step_bytes_per_second = 2.5e10 if is_dense(data) else 5e9  # of two products, for one target after the other
    step_seconds = 1e-4 + 2 * data.n_bytes / step_bytes_per_second
    return {"tol": stop.tol, "max_iter": int(np.clip(stop.seconds / (step_seconds * data.y[:1].size), 100, 20_000))}


def _read_model(model, data: Data) -> Answer:
    n_iter = largest(getattr(model, "n_iter_", None))
    return Answer(model.coef_, model.intercept_, getattr(model, "solver_", "lbfgs"), n_iter=n_iter)


def _read_choice(model, data: Data) -> Answer:
    return Answer(model.coef_, model.intercept_, "auto" if data.task == "choose by folds" else "eigh")


def _read_prediction(prediction, data: Data) -> Answer:
    return Answer(None, None, solver="predict", prediction=prediction)


def _read_models(models, data: Data) -> Answer:
    coefs = np.stack([model.coef_ for model in models])
    return Answer(coefs, np.array([model.intercept_ for model in models]), models[0].solver_)


def _scipy(solve, data: Data, stop: Stop):
    """Solve on the Cholesky factor of the normal matrix: scipy's solvers then see p rows instead of n."""

    def fit():
        X, y = data.X, data.y
        n, p = X.shape
        mean, y_mean = np.asarray(X.mean(axis=0)).ravel(), y.mean()
        if sparse.issparse(X):
            gram, cross = (X.T @ X).toarray() - n * np.outer(mean, mean), X.T @ y - n * y_mean * mean
        else:
            A = X - mean
            gram, cross = A.T @ A, A.T @ (y - y_mean)
        gram[np.diag_indices(p)] += data.alpha
        factor = linalg.cholesky(gram)  # upper: ||factor w - target||^2 is the objective but for a constant
        coef = solve(factor, linalg.solve_triangular(factor, cross, trans="T"), data.bounds, stop)
        return coef, y_mean - mean @ coef

    return fit


def _nnls(factor, target, bounds, stop: Stop):
    return nnls(factor, target)[0]


def _lsq_linear(method: str, factor, target, bounds, stop: Stop):
    options = {} if stop.tol is None else {"tol": stop.tol}
    return lsq_linear(factor, target, bounds=bounds, method=method, max_iter=1000, **options).x


def _read_reduced(result, data: Data) -> Answer:
    return Answer(*result, solver="scipy")


def is_dense(data: Data) -> bool:
    """Tell whether X is an array."""
    return not sparse.issparse(data.X)


def is_small_enough_for_svd(data: Data) -> bool:
    """Tell whether n p min(n, p) is so small that an SVD takes seconds; above it is never the fastest."""
    return is_dense(data) and data.X.size * min(data.X.shape) <= 2e9


def _is_float32(data: Data) -> bool:
    return data.X.dtype == np.float32


def _is_dense_float32(data: Data) -> bool:
    return is_dense(data) and _is_float32(data)


def _is_reducible(data: Data) -> bool:
    return data.X.shape[1] <= 500  # an active set changes by one column a step, and every step solves a system
