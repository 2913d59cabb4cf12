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

LEAST_SCALE = 1e-9


def contenders() -> list[Contender]:
    """List those whose package is installed."""
    every = [
        ("sklearnex", Contender("sklearnex", _sklearnex, _read_model, takes=_is_dense)),
        ("glum", Contender("glum", _glum, _read_model, takes=_is_small_gram)),
        ("himalaya", Contender("himalaya", _himalaya, _read_model, takes=_is_small_svd)),
        ("himalaya", Contender("himalaya-random", _himalaya_random, _read_groups, task="choose for groups")),
        ("himalaya", Contender("himalaya-gradient", _himalaya_gradient, _read_groups, task="choose for groups", takes=_is_wide)),
        ("snapml", Contender("snapml", _snapml, _read_centred, takes=_is_dense_tall, start_tol=1e-7)),
        ("sklearn", Contender("liblinear", _liblinear, _read_centred, takes=_is_dense_tall, start_tol=1e-6)),
    ]
    return [contender for package, contender in every if find_spec(package)]


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


def _himalaya_random(data: Data, stop: Stop):
    """Its default number of random ratios of penalties, each with all of the choices, scored by five folds."""
    from himalaya.kernel_ridge import MultipleKernelRidgeCV
    from himalaya.ridge import GroupRidgeCV

    params = {"n_iter": 100, "alphas": data.choices, "progress_bar": False}
    options = {"fit_intercept": True, "random_state": 0, "solver_params": params}
    if data.X.shape[0] >= data.X.shape[1]:
        return partial(GroupRidgeCV(groups=data.groups, **options).fit, data.X, data.y)
    return partial(_fit_kernels, MultipleKernelRidgeCV, data, options)


def _himalaya_gradient(data: Data, stop: Stop):
    """Its gradient of the error over five folds."""
    from himalaya.kernel_ridge import MultipleKernelRidgeCV

    options = {"solver": "hyper_gradient", "random_state": 0, "solver_params": {"max_iter": 100, "progress_bar": False}}
    return partial(_fit_kernels, MultipleKernelRidgeCV, data, options)


def _fit_kernels(cls, data: Data, options: dict) -> tuple:
    """Fit on kernels of the groups, and return the penalties, the coefficients and the intercept"""
    A, mean = data.X - data.X.mean(axis=0), data.y.mean()
    groups = [A[:, data.groups == g] for g in range(data.groups.max() + 1)]
    options = {name: value for name, value in options.items() if name != "fit_intercept"}
    model = cls(kernels="precomputed", **options).fit(np.stack([some @ some.T for some in groups]), data.y - mean)
    scales = _scales(model)
    coef = np.empty(data.X.shape[1])
    for g, some in enumerate(groups):
        coef[data.groups == g] = scales[g] * (some.T @ model.dual_coef_)
    return 1 / scales, coef, mean - data.X.mean(axis=0) @ coef


def _read_groups(result, data: Data) -> Answer:
    if isinstance(result, tuple):
        alphas, coef, intercept = result
        return Answer(coef, intercept, solver="kernels", alphas=alphas)
    coef = np.empty(data.X.shape[1])
    coef[np.argsort(data.groups, kind="stable")] = result.coef_  # they come group after group
    return Answer(coef, result.intercept_, solver="svd", alphas=1 / _scales(result))


def _scales(model):
    """Return the inverse penalties of groups; what is left of a group with a share of 1e-20 is rounding"""
    return np.maximum(np.exp(model.deltas_).ravel(), LEAST_SCALE)


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


def _is_wide(data: Data) -> bool:
    return data.X.shape[0] < data.X.shape[1]


def _is_small_gram(data: Data) -> bool:
    return data.X.shape[1] <= 2000 and data.y.ndim == 1


def _is_small_svd(data: Data) -> bool:
    return _is_dense(data) and data.X.size * min(data.X.shape) <= 2e9
