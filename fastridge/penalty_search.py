"""What RidgeCV and RidgeClassifierCV share: a search over penalties by leave-one-out, folds or a criterion, and the fit there."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from inspect import signature
from numbers import Integral, Real
from typing import Any, ClassVar, Literal, Self

import numpy as np
from sklearn.base import BaseEstimator, RegressorMixin, is_classifier
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import check_scoring, get_scorer, get_scorer_names
from sklearn.metrics._scorer import _BaseScorer, _PassthroughScorer
from sklearn.model_selection import check_cv
from sklearn.utils import Bunch, check_scalar
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.metadata_routing import MetadataRouter, MethodMapping, _raise_for_params, _routing_enabled, process_routing
from sklearn.utils.validation import _check_method_params, column_or_1d

from fastridge import validation
from fastridge.classifier import ClassesCoded, RidgeClassifier
from fastridge.estimators import Ridge, RidgeBase, unchanged_on_failure
from fastridge.formulation import plain_form
from fastridge.functional import solve
from fastridge.operators.base import Array, Vector
from fastridge.parallel import resolve_threads
from fastridge.penalty_range import useful_penalties
from fastridge.request import Method, Request, RowsRequest
from fastridge.rows import RowSource
from fastridge.selection import groups, probes, streams
from fastridge.selection.choice import BEST, RULES, Choice, Found
from fastridge.selection.criteria import CRITERIA
from fastridge.selection.folds import fit_folds
from fastridge.selection.group_scores import LOO, OF_GROUPS
from fastridge.selection.loo import LeaveOneOut
from fastridge.selection.spread import MOST_TARGETS, Spread
from fastridge.solution import Solution
from fastridge.sums import check_memory

PREDICTION_BYTES = 1 << 26
"""Of leave-one-out predictions that are held for a scorer at a time, at least those of one penalty; or a fourth of X, if more."""
PENALTIES = 30
"""On the grid of alphas="auto"."""
EXTENSIONS, MORE = 3, 10
"""How often that grid goes on past an edge where the best alpha is, and by how many."""


class _Given(RegressorMixin, BaseEstimator):  # type: ignore[misc]
    """A regressor whose predictions are what it is given, as scorers take it"""

    def fit(self, X: Array, y: Array) -> Self:
        return self

    def predict(self, X: Array) -> Array:
        return X


class _GivenScores(ClassesCoded):
    """A classifier whose decision function is what it is given"""

    def __init__(self) -> None:
        pass

    def fit(self, X: Array, y: Array) -> Self:
        return self

    def decision_function(self, X: Array) -> Array:
        return X

    def __sklearn_is_fitted__(self) -> bool:
        return True


class RidgeCVBase(RidgeBase):
    """What both share: parameters (described in `RidgeCV`), the search, the final fit"""

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "alphas": ["array-like", Interval(Real, 0, None, closed="neither"), StrOptions({"auto"})],
        "fit_intercept": ["boolean"],
        "scoring": [StrOptions(set(get_scorer_names()) | set(CRITERIA)), callable, None],
        "cv": ["cv_object"],
        "gcv_mode": [StrOptions({"auto", "svd", "eigen"}), None],
        "store_cv_results": ["boolean"],
        "alpha_per_target": ["boolean"],
        "rule": [StrOptions(set(RULES))],
        "feature_groups": ["array-like", None],
    }

    # What `RidgeBase` has as parameters, and is no choice here.
    warm_start, solver = False, "auto"

    gcv_mode: str | None = None
    alpha_per_target: bool = False
    feature_groups: Any = None
    cv_results_: Array
    choice_: Choice
    groups_: Array
    n_evaluations_: int

    def __init__(
        self,
        alphas: validation.Penalties | Literal["auto"],
        fit_intercept: bool,
        scoring: Any,
        cv: Any,
        store_cv_results: bool,
        rule: str,
        tol: float,
        penalty_weights: Any,
        n_threads: int | None,
        verbose: bool,
    ) -> None:
        self.alphas: Any = alphas
        self.fit_intercept = fit_intercept
        self.scoring = scoring
        self.cv = cv
        self.store_cv_results = store_cv_results
        self.rule = rule
        self.tol = tol
        self.penalty_weights = penalty_weights
        self.n_threads = n_threads
        self.verbose = verbose

    def _search_and_solve(self, X: Any, y: Any, sample_weight: Any, params: dict[str, Any]) -> tuple[Solution, Found]:
        """Choose the penalty and solve there; where that raises, what was fitted before stays"""
        _raise_for_params(params, self, "fit")
        self._validate_params()
        alphas = self._alphas()
        self._check_together()
        method = self._method()
        if sample_weight is not None:
            params = params | {"sample_weight": sample_weight}
        scorer = self._get_scorer()
        if _routing_enabled():
            routed = process_routing(self, "fit", **params)
        else:
            weighted = sample_weight is not None and (self.cv is None or _takes_weights(scorer))
            score_params = {"sample_weight": sample_weight} if weighted else {}
            routed = Bunch(scorer=Bunch(score=score_params), splitter=Bunch(split={}))
        labels: Any = None

        def targets(y: Any, sample_weight: Any, n_samples: int) -> tuple[Vector, Vector | None]:
            nonlocal labels
            labels = y
            return self._targets(y, sample_weight, n_samples)

        request: Request
        with unchanged_on_failure(self):
            if isinstance(X, RowSource):
                if self.feature_groups is not None:
                    raise ValueError("feature_groups takes X in memory: rows of a source have one alpha for all features")
                if y is not None or params:
                    raise ValueError("y, sample_weight and groups live with the rows: name them in scan(..., target=, weight=)")
                request, search = self._search_of_rows(X, method)
                return self._chosen(request, search, alphas, method)
            X, target, weights = self._coded(X, y, sample_weight, targets)
            if is_classifier(self) and not self._binarizer.y_type_.startswith("multilabel"):
                labels = column_or_1d(labels)
            asked: dict[str, Any] = {"fit_intercept": self.fit_intercept, "penalty_weights": self.penalty_weights}
            asked |= {"positive": False, "bounds": None}
            request = Request.of_data(X, target, weights, method, alpha=1.0, dtype=X.dtype, **asked)
            if self._criterion is not None:
                search = partial(self._by_criterion, request, method)
            elif self.cv is None:
                score = None if self.scoring is None else self._score_by(scorer, labels, routed.scorer.score)
                search = partial(self._leave_one_out, request, score)
            else:
                splitter = check_cv(self.cv, labels, classifier=is_classifier(self))
                pairs = splitter.split(X, labels, **routed.splitter.split)
                splits = [(_indices(train), _indices(test)) for train, test in pairs]
                if any(0 in (len(train), len(test)) for train, test in splits):
                    raise ValueError("cv leaves a fold without rows to train on or to score")
                search = partial(self._by_folds, request, labels, splits, method, scorer, routed.scorer.score)
            return self._chosen(request, search, alphas, method)

    @property
    def _criterion(self) -> str | None:
        """The name of the criterion that scores penalties, where it is one of fits to all rows"""
        return self.scoring if isinstance(self.scoring, str) and self.scoring in CRITERIA else None

    def _check_together(self) -> None:
        """Refuse parameters that do not go together"""
        if self.cv is not None:
            for name in ("store_cv_results", "alpha_per_target"):
                if getattr(self, name):
                    raise ValueError(f"cv!=None and {name}=True are incompatible")
        if self._criterion is not None:
            if self.cv is not None:
                raise ValueError(
                    f"scoring={self.scoring!r} is a criterion of the fit to all rows: it takes cv=None, got {self.cv!r}"
                )
            if self.store_cv_results:
                raise ValueError(f"scoring={self.scoring!r} has no results of rows that store_cv_results=True could keep")
        if self.rule != BEST and self.cv is None and self.scoring is not None:
            raise ValueError(
                f"rule={self.rule!r} needs standard errors, and with scoring={self.scoring!r} and cv=None scores have none: take "
                "scoring=None (leave-one-out errors), or folds (cv=5)"
            )
        if self.feature_groups is not None:
            if self.cv is not None or self.store_cv_results or self.rule != BEST:
                raise ValueError(
                    f"feature_groups finds penalties by a gradient: it takes cv=None, store_cv_results=False and rule={BEST!r}"
                )
            if self.scoring is not None and self.scoring not in OF_GROUPS:
                raise ValueError(f"with feature_groups, scoring must be None or one of {OF_GROUPS}, got {self.scoring!r}")
            if np.ndim(self.penalty_weights) == 2:
                raise ValueError("feature_groups takes penalty_weights with one number for each feature, not a matrix")

    def _search_of_rows(self, source: RowSource, method: Method) -> tuple[RowsRequest, Callable[[Vector], Found]]:
        """The request of rows that a source yields, after a first pass, and what scores penalties there"""
        if self.store_cv_results:
            raise ValueError("store_cv_results=True keeps a number for every row, which a source of rows is too long for")
        if not source.repeatable:
            raise ValueError(f"{source!r} can be read once, and to choose a penalty takes two passes at least: give a callable")
        by_moments: Callable[[Vector, Vector, float], Vector] | None = None
        if self.cv is None:
            if self.scoring is not None and self._criterion is None:
                raise ValueError(
                    "leave-one-out of a source of rows is scored by squared errors: scoring must be None, or one of "
                    + ", ".join(CRITERIA)
                )
        elif isinstance(self.cv, Integral) and int(self.cv) > 1:
            by_moments = None if is_classifier(self) else self._scores_of_moments()
            if by_moments is None and not (is_classifier(self) and self.scoring in (None, "accuracy")):
                raise ValueError(
                    "folds of a source of rows are scored by R2 or (root) mean squared errors, those of classifiers by accuracy, "
                    f"got scoring={self.scoring!r}"
                )
        else:
            raise ValueError(f"cv must be None or a number of folds for a source of rows, got {self.cv!r}")
        n_folds = 0 if self.cv is None else int(self.cv)
        check_memory(source.n_features, 3 + n_folds + n_folds // 2)
        self._met(source)
        if self.cv is not None and is_classifier(self):
            coding = self._coding(source)
            streams.check_fold_memory(n_folds, self._most_alphas(), source.n_features, coding.n_targets)
            scored = source.recoded(coding.n_targets, replace(coding, factors=None))  # by the weights of samples alone
            source = source.recoded(coding.n_targets, coding)
        else:
            source = self._source(source)
        asked = {"positive": False, "bounds": None, "penalty_weights": self.penalty_weights}
        request = RowsRequest.of_source(source, method, alpha=1.0, fit_intercept=self.fit_intercept, **asked)
        threads = resolve_threads(self.n_threads)
        request, moments = streams.after_first_pass(replace(request, with_gram=True), n_folds, threads)
        problem = request.problem(threads)
        form = plain_form(problem)
        k = source.n_targets
        each = self.alpha_per_target and not source.one_target

        def start(answer: streams.Answer, chosen: Array) -> Vector:
            return np.ascontiguousarray(form.coefficients(answer(chosen)))

        def leave_one_out(alphas: Vector) -> Found:
            n_groups = _groups(k, each)
            sums, spread, answer = streams.leave_one_out(form.problem, alphas, self.fit_intercept, n_groups)
            scores = -sums / problem.design.shape[0]
            return Found(alphas, scores if each else scores.mean(axis=1), spread, partial(start, answer))

        def criterion(alphas: Vector) -> Found:
            assert self._criterion is not None
            scores, answer = streams.criterion(self._criterion, form.problem, alphas, self.fit_intercept)
            size = None if self._criterion == "gcv" else float(problem.design.shape[0])
            return Found(alphas, scores if each else scores.mean(axis=1), start=partial(start, answer), size=size)

        def folds(alphas: Vector) -> Found:
            fits = streams.fold_fits(moments, request, alphas, method)
            if by_moments is None:
                fitted = list(fits)
                return _found_by_folds(alphas, streams.accuracy(scored, fitted), max(fold.doubt for fold in fitted))
            scores, doubt = [], 0.0
            for fold in fits:
                known = fold.sq_errors()
                if known is None:
                    raise ValueError("the fits leave next to nothing of y, and sums cannot tell how little: use cv=None")
                scores.append(by_moments(*known))
                doubt = max(doubt, fold.doubt)
            return _found_by_folds(alphas, np.array(scores), doubt)

        return request, folds if self.cv is not None else leave_one_out if self._criterion is None else criterion

    def _chosen(
        self, request: Request, search: Callable[[Vector], Found], given: Vector | int, method: Method
    ) -> tuple[Solution, Found]:
        """Search, go on past an edge where that is asked for, solve at the best, and keep what was found"""
        alphas = _grid(request, given, self.n_threads) if isinstance(given, int) else given
        method.monitor().say(f"{len(alphas)} penalties from {alphas.min():.3g} to {alphas.max():.3g} are scored")
        found = search(alphas)
        for _ in range(EXTENSIONS if isinstance(self.alphas, str) and any(found.edges(self.rule)) else 0):
            found = search(_extended(found.alphas, *found.edges(self.rule)))
            if not any(found.edges(self.rule)):
                break
        for name in ("cv_results_", "choice_", "groups_", "n_evaluations_"):
            if hasattr(self, name):
                delattr(self, name)
        if self.feature_groups is not None:
            return self._by_groups(request, found, method)
        chosen, best = found.chosen(self.rule), found.best
        one, k = request.y.ndim == 1, len(request.penalty)
        penalty = np.broadcast_to(found.alphas[chosen], (k,))
        start = None if found.start is None else found.start(np.broadcast_to(chosen, (k,)))
        found = replace(found, start=None)
        solution = _solve_from(replace(request, penalty=np.array(penalty)), start, method=method)
        if found.results is not None:
            self.cv_results_ = found.results[:, :, 0] if one else found.results.transpose(0, 2, 1)
        self.alphas_, self.scores_ = found.alphas, found.scores
        if np.ndim(chosen):
            self.alpha_ = np.array(penalty) if k > 1 else float(penalty[0])  # as scikit-learn's shapes are
            self.best_score_ = found.scores[chosen, np.arange(k)]
        else:
            chosen, best = int(chosen), int(best)
            self.alpha_, self.best_score_ = float(found.alphas[chosen]), float(found.scores[chosen])
        sure = found.standard_errors, found.indistinguishable
        bound = float(solution.report.error_bound)
        self.choice_ = Choice(found.alphas, found.scores, *sure, best, chosen, self.rule, bound, *self._how(found))
        return solution, found

    def _by_groups(self, request: Request, shared: Found, method: Method) -> tuple[Solution, Found]:
        """Go on from the best penalty that all groups share to one for each, solve there, and keep what was found"""
        labels, index = validation.check_feature_groups(self.feature_groups, request.X.shape[1])
        name, best = LOO if self.scoring is None else self.scoring, shared.best
        apart = np.ndim(best) > 0  # the targets
        starts = np.atleast_1d(shared.alphas[best])
        least = shared.scores[best, np.arange(len(starts))] if apart else np.atleast_1d(shared.scores[best])
        method.monitor().say(f"{len(labels)} groups of features: from one alpha, {starts.min():.3g} or more, to one for each")
        fit = groups.fit_groups(request, index, name, starts, least, self.n_threads, partial(_solve_from, method=method))
        self.groups_, self.n_evaluations_ = labels, fit.n_evaluations
        self.alphas_, self.scores_ = shared.alphas, shared.scores
        self.alpha_, self.best_score_ = (fit.alphas, fit.scores) if apart else (fit.alphas[0], float(fit.scores[0]))
        return fit.solution, Found(starts[:1], least[:1], doubt=shared.doubt, note=fit.note(labels))

    def _how(self, found: Found) -> tuple[str, str]:
        """Where scores come from, and what they are called"""
        name = getattr(self.scoring, "__name__", "score") if callable(self.scoring) else self.scoring
        if self._criterion is not None:
            by = CRITERIA[self._criterion] + f", with degrees of freedom from {found.n_probes} probes" * bool(found.n_probes)
            return by, "log evidence" if self._criterion == "evidence" else f"negative {name.upper()}"
        if self.cv is None:
            return "leave-one-out", _words(name or "neg_mean_squared_error")
        default = "accuracy" if is_classifier(self) else "r2"
        return f"{found.n_folds} fold" + "s" * (found.n_folds > 1), _words(name or default)

    def _warn_of_doubts(self, found: Found) -> Self:
        """Say where scores are in doubt or the best is at an edge; `fit` calls this itself, last, the warning names its caller"""
        if found.doubt:
            warnings.warn(
                f"the fits that are scored reached an H-norm error of {found.doubt:.1e} where tol={self.tol:g} was asked: scores "
                "may be off; loosen tol, or leave out the smallest alphas",
                ConvergenceWarning,
                stacklevel=3,
            )
        if found.note:
            warnings.warn(found.note, stacklevel=3)
        low, high = found.edges(self.rule)
        said = []
        if low:
            said.append(f"the best alpha is the smallest, {found.alphas.min():g}: a smaller one may be better still")
        if high and self.rule == BEST:
            said.append(f"the best alpha is the largest, {found.alphas.max():g}: a larger one may be better still")
        elif high:
            said.append(
                f"the alpha chosen is the largest, {found.alphas.max():g}: a larger one may be within one standard error too"
            )
        for words in said:
            warnings.warn(f'{words}. Try more of them, or alphas="auto"', stacklevel=3)  # who called fit
        return self

    def _method(self) -> Method:
        return Method.checked("auto", self.tol, None, self.n_threads, verbose=self.verbose)

    def _alphas(self) -> Vector | int:
        """The penalties, (a,), or how many there are to be"""
        given = self.alphas
        if isinstance(given, str):
            return PENALTIES
        if isinstance(given, Integral) and int(given) > 1:
            return int(given)
        lowest = {"min_val": 0.0, "include_boundaries": "neither" if self.cv is None else "left"}
        values = given if np.ndim(given) else [given]
        names = ["alphas"] if len(values) == 1 else [f"alphas[{i}]" for i in range(len(values))]
        for name, value in zip(names, values, strict=True):
            check_scalar(value, name, target_type=Real, **lowest)
        checked = validation.check_alphas(np.asarray(values, dtype=np.float64))
        assert not isinstance(checked, int)
        return checked

    def _most_alphas(self) -> int:
        """How many penalties are scored at once, at most"""
        given = self._alphas()
        n = given if isinstance(given, int) else len(given)
        return n + 2 * EXTENSIONS * MORE * isinstance(self.alphas, str)

    def _score_by(self, scorer: Any, labels: Any, score_params: dict[str, Any]) -> Callable[[Vector], Any]:
        """A function that scores leave-one-out predictions, (n, k): a number, or one for each target"""
        if is_classifier(self):
            given = _GivenScores()
            given._binarizer, given.classes_ = self._binarizer, self.classes_
            return lambda out: scorer(given, out[:, 0] if out.shape[1] == 1 else out, labels, **score_params)
        if self.alpha_per_target and labels.ndim == 2:
            return lambda out: [scorer(_Given(), out[:, j], labels[:, j], **score_params) for j in range(out.shape[1])]
        return lambda out: scorer(_Given(), out[:, 0] if labels.ndim == 1 else out, labels, **score_params)

    def _leave_one_out(self, request: Request, score: Callable[[Vector], Any] | None, alphas: Vector) -> Found:
        """Scores of all penalties by leave-one-out errors"""
        n, y = request.X.shape[0], request.y.reshape(len(request.y), -1)
        k = y.shape[1]
        each = self.alpha_per_target and request.y.ndim == 2
        search, spread = LeaveOneOut(request, alphas, self.n_threads, self.gcv_mode == "svd"), None
        results = np.empty((n, len(alphas), k), dtype=request.X.dtype) if self.store_cv_results else None
        if score is None:
            left_out = search.errors(keep=self.store_cv_results, n_groups=_groups(k, each))
            scores, spread = -left_out.sq_sums / n, left_out.spread
            if results is not None and left_out.errors is not None:
                results[...] = np.square(left_out.errors)
            if not each:
                scores = scores.mean(axis=1)
        else:
            per_target, at_once = [], max(PREDICTION_BYTES, search.problem.design.traits.n_bytes // 4) // (8 * n * k)
            for lo in range(0, len(alphas), max(1, at_once)):
                some = slice(lo, min(len(alphas), lo + max(1, at_once)))
                predictions = _predictions(search, some, y)
                if results is not None:
                    results[:, some] = predictions
                per_target += [score(np.ascontiguousarray(predictions[:, a])) for a in range(predictions.shape[1])]
            scores = np.asarray(per_target, dtype=np.float64)
        return Found(alphas, scores, spread, search.start, results)

    def _by_criterion(self, request: Request, method: Method, alphas: Vector) -> Found:
        """Scores of all penalties by a criterion of the fits to all rows"""
        assert self._criterion is not None
        each, name = self.alpha_per_target and request.y.ndim == 2, self._criterion
        size = None if name == "gcv" else float(len(request.y))  # what a relative difference of residuals makes of logarithms
        if self.gcv_mode in (None, "auto") and name != "evidence" and min(request.X.shape) > probes.MAX_EXACT:
            scores, of_probes, doubt = probes.scores(name, request, alphas, method)
            if not each:
                scores, of_probes = scores.mean(axis=1), of_probes.mean(axis=1)
            spread = Spread.of(of_probes) if np.isfinite(of_probes).all() else None
            return Found(alphas, scores, spread, doubt=doubt, size=size, n_probes=len(of_probes))
        search = LeaveOneOut(request, alphas, self.n_threads, self.gcv_mode == "svd", strict=True)
        scores = search.scores(name)
        return Found(alphas, scores if each else scores.mean(axis=1), start=search.start, size=size)

    def _by_folds(
        self,
        request: Request,
        labels: Any,
        splits: list[tuple[Array, Array]],
        method: Method,
        scorer: Any,
        score_params: dict[str, Any],
        alphas: Vector,
    ) -> Found:
        """Scores of all penalties in the mean over folds"""
        X = request.X
        by_moments = self._known_from_moments(request, score_params)
        scores = np.empty((len(splits), len(alphas)))
        monitor, doubt = method.monitor(), 0.0
        for i, fold in enumerate(fit_folds(request, alphas, splits, method)):
            monitor.say(f"fold {i + 1} of {len(splits)}")
            doubt = max(doubt, fold.doubt)
            known = fold.sq_errors() if by_moments is not None and len(fold.test) > 1 else None
            if known is not None and by_moments is not None:
                scores[i] = by_moments(*known)
                continue
            rows, y = X[fold.test], labels[fold.test]
            params = _check_method_params(X, score_params, indices=fold.test)
            if not isinstance(scorer, _BaseScorer | _PassthroughScorer):
                for a, alpha in enumerate(alphas):
                    scores[i, a] = scorer(self._fitted(alpha, fold.coefs[a], fold.intercepts[a]), rows, y, **params)
                continue
            score = self._score_by(scorer, y, params)
            for a in range(len(alphas)):
                scores[i, a] = score(rows @ fold.coefs[a].T + fold.intercepts[a])
        return _found_by_folds(alphas, scores, doubt)

    def _known_from_moments(
        self, request: Request, score_params: dict[str, Any]
    ) -> Callable[[Vector, Vector, float], Vector] | None:
        """`_scores_of_moments`, where scores depend on nothing else"""
        weighted = request.weights is not None
        if is_classifier(self) or set(score_params) - {"sample_weight"} or (weighted and not score_params):
            return None
        return self._scores_of_moments()

    def _scores_of_moments(self) -> Callable[[Vector, Vector, float], Vector] | None:
        """A function of squared errors (a, k), those of means (k,) and the weight, if there is one for `scoring`"""
        if self.scoring == "neg_mean_squared_error":
            return lambda sq, sq_y, weight: -(sq / weight).mean(axis=1)
        if self.scoring == "neg_root_mean_squared_error":
            return lambda sq, sq_y, weight: -np.sqrt(sq / weight).mean(axis=1)
        return _r2 if self.scoring in (None, "r2") else None

    def _fitted(self, alpha: float, coef: Vector, intercept: Vector) -> RidgeBase:
        """An estimator fitted to a training set, as any function may take it"""
        model = (RidgeClassifier if is_classifier(self) else Ridge)(alpha, fit_intercept=self.fit_intercept, tol=self.tol)
        for name in ("n_features_in_", "feature_names_in_", "classes_", "_binarizer"):
            if hasattr(self, name):
                setattr(model, name, getattr(self, name))
        one = len(coef) == 1 and not is_classifier(self)
        model.coef_, model.intercept_ = (coef[0], float(intercept[0])) if one else (coef, intercept)
        return model

    def get_metadata_routing(self) -> MetadataRouter:
        """Which arguments of `fit` go to the scorer and to the splitter; see scikit-learn's user guide on metadata routing"""
        to_score = MethodMapping().add(caller="fit", callee="score")
        to_split = MethodMapping().add(caller="fit", callee="split")
        router = MetadataRouter(owner=self).add_self_request(self)
        return router.add(scorer=self._get_scorer(), method_mapping=to_score).add(splitter=self.cv, method_mapping=to_split)

    def _get_scorer(self) -> Any:
        """The scorer, weighted as scikit-learn's is"""
        scoring = None if self._criterion is not None else self.scoring
        if _routing_enabled() and scoring is None:
            return get_scorer("accuracy" if is_classifier(self) else "r2").set_score_request(sample_weight=True)
        return check_scoring(estimator=self, scoring=scoring, allow_none=True)


def _groups(k: int, each: bool) -> int:
    """How many groups of targets have a spread of their own; 0 where that would take too long"""
    if not each:
        return 1
    return k if k <= MOST_TARGETS else 0


def _found_by_folds(alphas: Vector, scores: Vector, doubt: float) -> Found:
    """Of the scores of all folds, (m, a)"""
    spread = Spread.of(scores) if len(scores) > 1 and np.isfinite(scores).all() else None
    return Found(alphas, scores.mean(axis=0), spread, doubt=doubt, n_folds=len(scores))


def _words(name: str) -> str:
    """The name of a scorer in words"""
    words = name.replace("_", " ")
    return "negative " + words.removeprefix("neg ") if words.startswith("neg ") else words


def _predictions(search: LeaveOneOut, some: slice, y: Vector) -> Vector:
    """Of the models that have not seen a row, (n, a, k); rows without weight are in no model, and all of them predict those"""
    errors = search.errors(some, keep=True).errors
    assert errors is not None
    request = search.request
    if request.weights is None:
        return y[:, None, :] - errors
    root = np.sqrt(request.weights)
    unseen = np.flatnonzero(root == 0)
    root[unseen] = 1.0
    predictions: Vector = y[:, None, :] - errors / root[:, None, None]
    for place, a in enumerate(range(len(search.alphas))[some]) if len(unseen) else ():
        w, b = search.coefficients(np.full(y.shape[1], a))
        predictions[unseen, place] = request.X[unseen] @ w + b
    return predictions


def _takes_weights(scorer: Any) -> bool:
    """Whether a scorer has a use for sample weights"""
    if hasattr(scorer, "_accept_sample_weight"):
        return bool(scorer._accept_sample_weight())
    return "sample_weight" in signature(scorer).parameters


def _indices(rows: Any) -> Array:
    """Of rows given by their indices or by a mask"""
    rows = np.asarray(rows)
    return np.flatnonzero(rows) if rows.dtype == bool else rows


def _r2(sq: Vector, sq_y: Vector, weight: float) -> Vector:
    """In the mean over targets; that of a constant target is 1 where it is met exactly, else 0"""
    lost = np.divide(sq, sq_y, out=(sq > 0).astype(np.float64), where=np.broadcast_to(sq_y > 0, sq.shape))
    return 1.0 - np.asarray(lost.mean(axis=1))


def _grid(request: Request, n_penalties: int, n_threads: int | None) -> Vector:
    """Penalties that suit the data, in the user's units, from the smallest up"""
    problem = request.problem(n_threads)
    penalties, _ = useful_penalties(plain_form(problem).problem, n_penalties)
    return np.ascontiguousarray(problem.user_penalties(penalties)[::-1])


def _extended(alphas: Vector, low: bool, high: bool) -> Vector:
    """A grid that rises evenly in log alpha, with more points past its edges"""
    factors = (alphas[1] / alphas[0]) ** np.arange(1, MORE + 1)
    with np.errstate(over="ignore"):
        more: Vector = np.concatenate([alphas[0] / factors[::-1] if low else [], alphas, alphas[-1] * factors if high else []])
    within: Vector = more[(more > 0) & np.isfinite(more)]
    return within


def _solve_from(request: Request, start: Vector | None, *, method: Method) -> Solution:
    """Solve, from an answer that is as good as exact where there is one: it takes as little as a proof"""
    if start is not None:
        solution = solve(request, replace(method, solver="cg", verbose=False), start, likely=True)
        report = solution.report
        if report.converged:
            proof = "" if report.n_iter.any() else "; one product proved it"
            reason = "the decomposition that chose alpha gave the answer" + proof
            return replace(solution, report=replace(report, reason=reason))
    return solve(request, method)
