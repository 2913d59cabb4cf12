"""A sample of the search for false claims; and that the search finds what it looks for, with the truth that it judges by."""

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
import scipy.sparse as sp
import search
from search import KINDS, Verdict, fits, judge, make_case, table, verdicts
from truth import TRUSTED, DecimalSystem, Exact, FloatSystem, InFractions, Truth, fractions

pytestmark = pytest.mark.usefixtures("one_blas_thread")

SAMPLE = {100: range(400), 1200: range(20)}
"""Seeds of the cases that are judged here, by the most unknowns that they may have: less than a minute."""
TOGETHER = 20
FOUND = {
    (100, 131): "ridge_path warned where columns are 1e100 apart",
    (100, 271): "the rounding of a projection off unpenalised features was not in the bound",
    (300, 2000068): "the same",
    (3000, 1000236): "the same",
    (100, 6008183): "products in one pass were differences of numbers 1e9 times what was left: a false bound of the spectrum",
    (100, 6008487): "cd raised LinAlgError where numbers left float64",
    (100, 6007587): "ridge_path warned of an overflow",
    (100, 6000395): "svd warned of an overflow",
}
"""Cases that failed once, (most unknowns, seed), and how."""


def failures(max_size, seed):
    """What is wrong with the answers to a case"""
    return [str(verdict) for verdict in verdicts(make_case(seed, max_size)) if verdict.failures]


@pytest.mark.parametrize(
    ("max_size", "first"), [(max_size, first) for max_size, seeds in SAMPLE.items() for first in seeds[::TOGETHER]]
)
def test_no_claim_is_false(max_size, first):
    found = [failure for seed in range(first, first + TOGETHER) for failure in failures(max_size, seed)]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(("max_size", "seed"), FOUND)
def test_what_failed_once(max_size, seed):
    assert not failures(max_size, seed)


def lying(case, **claims):
    """The verdict on the answer to a case, had it claimed something else"""
    number, coef, intercept, report = next(fits(case))
    return judge(case, case.truth(), number, coef, intercept, replace(report, **claims))


def plain_case(alpha=1.0, scale=1.0, **options):
    rng = np.random.default_rng(0)
    X = rng.standard_normal((30, 5))
    y = scale * (X.sum(axis=1) + rng.standard_normal(30) + 1)
    case = make_case(0, 5)
    options = {**case.setting.options, "solver": "cg", "tol": 1e-3, "fit_intercept": True, "max_iter": None, **options}
    setting = replace(case.setting, way="ridge", alphas=np.array([[alpha]]), options=options)
    return replace(case, setting=setting, X=X, Y=y[:, None], y=y, sample_weight=None, truth=lambda: Truth(X, y[:, None]))


def test_a_true_claim_is_no_failure():
    assert verdicts(plain_case())[0].failures == ()


def test_what_is_false_is_found():
    rough = plain_case(tol=0.5, max_iter=1)
    true = lying(rough)
    assert true.failures == ()
    assert 1e-2 < true.coef <= true.bound
    assert "false bound" in lying(rough, error_bound=true.coef / 2).failures
    assert {"false zero", "false bound"} <= set(lying(rough, error=0.0, error_bound=0.0).failures)
    claimed = plain_case(tol=1e-3, max_iter=1)
    assert "false claim" in lying(claimed, status="converged").failures
    assert lying(claimed, status="max_iter").failures == ()
    assert "wrong status" in lying(claimed, status="estimated", error=1.0).failures
    assert "unproven" in lying(plain_case(), status="converged", error_bound=2e-3).failures
    # Coefficients are right, the intercept is off by more than tol.
    number, coef, intercept, report = next(fits(plain_case(tol=1e-9)))
    off = judge(plain_case(tol=1e-9), Truth(rough.X, rough.Y), number, coef, intercept + 1e-3, report)
    assert {"false claim (intercept)", "false bound (intercept)"} <= set(off.failures)


def test_exceptions_and_warnings_are_found(monkeypatch):
    def raising(*args, **options):
        raise ZeroDivisionError("by zero")

    def warning(*args, **options):
        return np.float64(1) / np.float64(0)

    monkeypatch.setattr(search, "ridge", raising)
    assert verdicts(plain_case())[0].failures == ("raised ZeroDivisionError",)
    monkeypatch.setattr(search, "ridge", warning)
    assert verdicts(plain_case())[0].failures == ("warned RuntimeWarning",)


def test_cases_in_processes_of_their_own():
    found = list(search.search(range(3), 5))
    alone = [verdict for seed in range(3) for verdict in verdicts(make_case(seed, 5))]
    assert sorted((v.setting.seed, v.coef, v.bound) for v in found) == [(v.setting.seed, v.coef, v.bound) for v in alone]
    assert f"{'all':<24}{len(alone):>8}" in table(found, "kind", lambda verdict: [verdict.setting.kind])


def test_a_crash_and_a_fit_without_end_are_found(monkeypatch):
    class Process(search.Worker):
        """A worker without a process: the other end closes, or does not answer"""

        def __init__(self, max_size):
            self.connection, self.other = search.multiprocessing.Pipe()
            self.crashes = max_size == 5

        def begin(self, seeds):
            begun = super().begin(seeds)
            if self.crashes:
                self.other.close()
            return begun

        def stop(self):
            self.connection.close()

    monkeypatch.setattr(search, "Worker", Process)
    assert [verdict.failures for verdict in search.search([0], 5)] == [("crash",)]
    assert [verdict.failures for verdict in search.search([0], 6, patience=0.1)] == [("no end",)]


@pytest.mark.parametrize("kind", KINDS)
def test_kinds_of_data(kind):
    for c in (1, 2, 7, 60):
        X = KINDS[kind](np.random.default_rng(c), c)
        assert min(X.shape) >= 1
        assert sp.issparse(X) or isinstance(X, np.ndarray)
        assert np.isfinite(X.data if sp.issparse(X) else X).all()


def test_a_seed_is_the_same_case_again():
    one, other = (make_case(11, 50) for _ in range(2))
    assert str(one.setting) == str(other.setting)
    np.testing.assert_array_equal(one.Y, other.Y)


# The truth.


@pytest.mark.parametrize("seed", range(60))
def test_the_truth_against_fractions(seed):
    rng = np.random.default_rng(seed)
    n, p = rng.integers(2, 6, 2)
    X = rng.standard_normal((n, p))
    if seed % 3 == 0:
        X[:, -1] = X[:, 0] * (1 + 10.0 ** rng.uniform(-14, -3) * rng.standard_normal(n))
    if seed % 4 == 1:
        X = X * 10.0 ** rng.uniform(-60, 60, p)
    if seed % 5 == 2:
        X = X + 10.0 ** rng.uniform(3, 12) * np.abs(X).max(axis=0)
    fit_intercept, alpha = bool(rng.random() < 0.6), 10.0 ** rng.uniform(-12, 12)
    s, d = 10.0 ** rng.uniform(-3, 3, n), 10.0 ** rng.uniform(-6, 6, p)
    y = (rng.standard_normal(n) + 3) * 10.0 ** rng.choice([0.0, 160.0, -160.0])
    size = np.abs(X).max(axis=0)
    coef = np.linalg.lstsq(np.vstack([X / size, 1e-3 * np.eye(p)]), np.append(y, np.zeros(p)), rcond=None)[0] / size
    intercept = float(fit_intercept * y.mean())
    exact = InFractions(X, y, alpha, s, fit_intercept, d)
    sq_error, sq_size = exact.sq_norm(fractions(coef) - exact.w), exact.sq_size
    sq_off = sum(fractions(s)) * (Fraction(intercept) - exact.intercept(coef)) ** 2
    distance = Truth(X, y[:, None], s, fit_intercept, d).distance(alpha, 0, coef, intercept)
    assert distance.known
    # Fractions leave the range of floats: their roots are taken of ratios.
    wanted = np.sqrt(float(sq_error / sq_size)), np.sqrt(float((sq_error + sq_off) / sq_size))
    np.testing.assert_allclose((distance.coef, distance.joint), wanted, rtol=TRUSTED, atol=2 * distance.noise)
    np.testing.assert_allclose(Exact(X, y, alpha, s, fit_intercept, d).error(coef), wanted[0], rtol=1e-6)


@pytest.mark.parametrize("shape", [(60, 25), (25, 60)])
@pytest.mark.parametrize("zeros", [False, True])
def test_floats_and_decimals_agree(shape, zeros):
    rng = np.random.default_rng(5)
    X, Y = rng.standard_normal(shape) + 3, rng.standard_normal((shape[0], 2))
    d = np.where(np.arange(shape[1]) < 3, 0.0 if zeros else 2.0, 1.0)
    data = Truth(X, Y, None, True, d).data
    coef = rng.standard_normal(shape[1])
    for target in (0, 1):
        one, other = (system(data, 0.1).distance(target, coef, 0.5) for system in (FloatSystem, DecimalSystem))
        np.testing.assert_allclose((one.coef, one.joint), (other.coef, other.joint), rtol=1e-6)


def test_what_the_truth_says_where_there_is_nothing_to_find():
    X = np.random.default_rng(6).standard_normal((8, 3))
    constant = Truth(X, np.full((8, 1), 0.1))
    assert constant.distance(1.0, 0, np.zeros(3), 0.1).joint == 0
    assert constant.distance(1.0, 0, np.full(3, 1e-9), 0.1).coef == np.inf
    assert constant.distance(1.0, 0, np.full(3, np.nan), 0.1).coef == np.inf
    fixed = Truth(X, X[:, :1], None, True, np.array([1.0, np.inf, 1.0]))
    assert fixed.distance(1.0, 0, np.array([1.0, 1e-30, 0.0]), 0.0).coef == np.inf
    large = np.random.default_rng(7).standard_normal((400, 1)) * np.ones(400)
    assert not Truth(large, large[:, :1]).distance(1e-200, 0, np.zeros(400), 0.0).known


def test_a_verdict_is_read_in_three_lines():
    verdict = verdicts(plain_case())[0]
    assert isinstance(verdict, Verdict)
    assert len(str(verdict).splitlines()) == 3
