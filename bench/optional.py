"""Further packages that solve the same problem, each measured where it is installed and left out where it is not.

Left out for good: LIBLINEAR and Snap ML on sparse data, since both penalise the intercept, and centring first, as is done
for them here on dense data, would fill X in; Snap ML on wide data, which stops short of the target at any tol.
"""

from functools import partial
from importlib.util import find_spec

import numpy as np
from scipy import sparse
from sklearn.svm import LinearSVR

from bench.cases import Data
from bench.contender import Answer, Contender, Stop, largest


def contenders() -> list[Contender]:
    """List those whose package is installed."""
    every = {
        "sklearnex": Contender("sklearnex", _sklearnex, _read_model, takes=_is_dense),
        "glum": Contender("glum", _glum, _read_model, takes=_is_small_gram),
        "himalaya": Contender("himalaya", _himalaya, _read_model, takes=_is_small_svd),
        "snapml": Contender("snapml", _snapml, _read_centred, takes=_is_dense_tall, start_tol=1e-7),
        "sklearn": Contender("liblinear", _liblinear, _read_centred, takes=_is_dense_tall, start_tol=1e-6),
    }
    return [contender for package, contender in every.items() if find_spec(package)]


def _sklearnex(data: Data, stop: Stop):
    """Normal equations, by oneDAL."""
    from sklearnex.linear_model import Ridge

    return partial(Ridge(data.alpha).fit, data.X, data.y)


def _glum(data: Data, stop: Stop):
    """Least squares on the normal matrix; its objective is the mean over samples."""
    from glum import GeneralizedLinearRegressor

    model = GeneralizedLinearRegressor(alpha=data.alpha / len(data.y), l1_ratio=0, family="normal", solver="irls-ls")
    return partial(model.fit, data.X, data.y)


def _himalaya(data: Data, stop: Stop):
    """An SVD."""
    from himalaya.ridge import Ridge

    return partial(Ridge(alpha=data.alpha, fit_intercept=True).fit, data.X, data.y)


def _snapml(data: Data, stop: Stop):
    """Coordinate descent on the primal."""
    from snapml import LinearRegression

    model = LinearRegression(regularizer=data.alpha, fit_intercept=False, dual=False, tol=stop.tol, max_iter=1000)
    return partial(_fit_centred, model, data)


def _liblinear(data: Data, stop: Stop):
    """Newton's method on the primal: the squared loss without a tube, 1/2 ||w||^2 + C sum r^2 with C = 1 / (2 alpha)."""
    loss = "squared_epsilon_insensitive"
    C = 1 / (2 * data.alpha)
    model = LinearSVR(epsilon=0, loss=loss, C=C, fit_intercept=False, dual=False, tol=stop.tol, max_iter=100)
    return partial(_fit_centred, model, data)


def _fit_centred(model, data: Data) -> tuple:
    mean, y_mean = data.X.mean(axis=0), data.y.mean()
    coef = np.ravel(model.fit(data.X - mean, data.y - y_mean).coef_)
    return coef, y_mean - mean @ coef


def _read_centred(result, data: Data) -> Answer:
    return Answer(*result, solver="centred")


def _read_model(model, data: Data) -> Answer:
    coef = np.asarray(model.coef_)
    if coef.shape[-1] != data.X.shape[1]:
        coef = coef.T  # himalaya: (p, k)
    return Answer(coef, model.intercept_, str(getattr(model, "solver_", "direct")), largest(getattr(model, "n_iter_", None)))


def _is_dense(data: Data) -> bool:
    return not sparse.issparse(data.X)


def _is_dense_tall(data: Data) -> bool:
    n, p = data.X.shape
    # Both take a multiple of the others' time on large data: a copy in their own format, and hundreds of passes.
    return _is_dense(data) and n >= p and data.X.size <= 2e6 and data.y.ndim == 1


def _is_small_gram(data: Data) -> bool:
    return data.X.shape[1] <= 2000 and data.y.ndim == 1


def _is_small_svd(data: Data) -> bool:
    return _is_dense(data) and data.X.size * min(data.X.shape) <= 2e9
