"""fastridge at its defaults, and with each solver asked for by name; a task it has no function for yet says what is missing."""

import inspect
import re
from dataclasses import replace
from functools import partial

import numpy as np
from scipy import sparse

import fastridge
from bench.cases import Data
from bench.choice import N_FOLDS
from bench.contender import Answer, Contender, Stop, largest

CHOOSING = {"choose": {}, "choose for each target": {"alpha_per_target": True}, "choose by folds": {"cv": N_FOLDS}}


def contenders() -> list[Contender]:
    """List ours, for all tasks."""
    return [
        Contender("fastridge", partial(_ridge, "auto"), _read_model),
        Contender("fastridge-cholesky", partial(_ridge, "cholesky"), _read_model, takes=_has_small_side),
        Contender("fastridge-svd", partial(_ridge, "svd"), _read_model, takes=_is_small_enough_for_svd),
        Contender("fastridge-cg", partial(_ridge, "cg"), _read_model),
        Contender("fastridge-cd", partial(_ridge, "cd"), _read_model, takes=_is_small_enough_for_cd),
        Contender("fastridge", _predict, _read_prediction, task="predict"),
        Contender("fastridge", _positive, _read_model, task="positive", lacks=partial(_lacks_parameter, "positive")),
        Contender("fastridge", _bounded, _read_model, task="bounds", lacks=partial(_lacks_parameter, "bounds")),
        Contender("fastridge", _path, _read_path, task="path", lacks=partial(_lacks, "ridge_path")),
        Contender("fastridge", _classifier, _read_model, task="classify", lacks=partial(_lacks, "RidgeClassifier")),
        *(Contender("fastridge", _choose, _read_model, task=task, lacks=partial(_lacks, "RidgeCV")) for task in CHOOSING),
        Contender("fastridge", _choose_for_groups, _read_groups, task="choose for groups", lacks=partial(_lacks, "RidgeCV")),
        Contender("fastridge", _choose_for_classes, _read_model, task="choose for classes", lacks=partial(_lacks, "RidgeCV")),
    ]


def _ridge(solver: str, data: Data, stop: Stop):
    options = _options(stop)
    if solver in ("cg", "cd"):
        # Asked for by name, they may be hopeless: no more steps than these rates, faster than the real ones, allow.
        k = data.y[:1].size
        step_seconds = 5e-5 + data.n_bytes / 4e10 + 4 * data.n_stored * k / 1e11
        options["max_iter"] = max(100, int(stop.seconds / step_seconds))
    return partial(fastridge.Ridge(data.alpha, solver=solver, **options).fit, data.X, data.y)


def _predict(data: Data, stop: Stop):
    return partial(fastridge.Ridge(data.alpha, **_options(stop)).fit(data.X, data.y).predict, data.X)


def _positive(data: Data, stop: Stop):
    return partial(fastridge.Ridge(data.alpha, positive=True, **_options(stop)).fit, data.X, data.y)


def _bounded(data: Data, stop: Stop):
    return partial(fastridge.Ridge(data.alpha, bounds=data.bounds, **_options(stop)).fit, data.X, data.y)


def _path(data: Data, stop: Stop):
    return partial(fastridge.ridge_path, data.X, data.y, alphas=data.alphas, **_options(stop))


def _classifier(data: Data, stop: Stop):
    return partial(fastridge.RidgeClassifier(data.alpha, **_options(stop)).fit, data.X, data.y.argmax(axis=1))


def _choose(data: Data, stop: Stop):
    return partial(fastridge.RidgeCV(data.choices, **CHOOSING[data.task], **_options(stop)).fit, data.X, data.y)


def _choose_for_classes(data: Data, stop: Stop):
    return partial(fastridge.RidgeClassifierCV(data.choices, **_options(stop)).fit, data.X, data.y.argmax(axis=1))


def _choose_for_groups(data: Data, stop: Stop):
    return partial(fastridge.RidgeCV(data.choices, feature_groups=data.groups, **_options(stop)).fit, data.X, data.y)


def _options(stop: Stop) -> dict:
    return {} if stop.tol is None else {"tol": stop.tol}


def _read_model(model, data: Data) -> Answer:
    report = model.report_
    return Answer(
        model.coef_,
        model.intercept_,
        solver=report.solver,
        n_iter=largest(report.n_iter),
        n_iter_all_targets=int(np.sum(report.n_iter)),
        status=str(report.status),
        claimed_error=largest(report.error),
        claimed_bound=largest(report.error_bound),
        proof_steps=_proof_steps(report.history, model.tol),
        reason=report.reason,
        preconditioner=_preconditioner(report, data) if report.solver == "cg" else None,
    )


def _read_groups(model, data: Data) -> Answer:
    return replace(_read_model(model, data), alphas=model.alpha_)


def _proof_steps(history: tuple[float, ...], tol: float) -> int:
    """Count the steps since the estimate of the error first was at most tol: what CG took to prove it."""
    passed = next((i for i, error in enumerate(history) if error <= tol), len(history) - 1)
    return max(0, len(history) - 1 - passed)


def _read_prediction(prediction, data: Data) -> Answer:
    return Answer(None, None, solver="predict", prediction=prediction)


def _read_path(path, data: Data) -> Answer:
    places = [abs(path.alphas - alpha).argmin() for alpha in data.measured_alphas]
    return Answer(path.coefs[places], path.intercepts[places], solver="path")


def _preconditioner(report, data: Data) -> str | None:
    """Return "gram" or "sketch" where the step that gave the answer was CG with such a factor, as far as can be told."""
    last_step = report.reason.rpartition("so on to ")[2]
    if report.reason == "asked for":
        return None
    if last_step == report.reason:  # the first choice: its name is in the plan
        last_step = str(fastridge.explain(data.X, data.y, alpha=data.alpha)).partition("\n")[0]
    found = re.search(r"(gram|sketch) preconditioner", last_step)
    return found[1] if found else None


def _lacks_parameter(name: str) -> str | None:
    return None if name in inspect.signature(fastridge.Ridge).parameters else f"fastridge.Ridge has no {name} yet"


def _lacks(name: str) -> str | None:
    return None if hasattr(fastridge, name) else f"there is no fastridge.{name} yet"


def _has_small_side(data: Data) -> bool:
    # A Gram matrix of this size takes 200 MB and a second; above, conjugate gradients win on every case here.
    return min(data.X.shape) <= 5000


def _is_small_enough_for_svd(data: Data) -> bool:
    # n p min(n, p): above, an SVD takes seconds and is never the fastest.
    return not sparse.issparse(data.X) and data.X.size * min(data.X.shape) <= 2e9


def _is_small_enough_for_cd(data: Data) -> bool:
    # Coordinate descent may need thousands of sweeps where columns are correlated, for every target.
    return data.n_stored * data.y[:1].size <= 1_000_000
