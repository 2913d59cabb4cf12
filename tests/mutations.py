"""Break the package in one place at a time, and see whether the tests notice: `python tests/mutations.py [words of a file name]`

Each mutation is made in a copy, so that the checkout stays as it is.
"""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
MUTATIONS = [  # file of the package, text, what takes its place, names of the tests that should notice
    ("krylov/proof", "run.sq_gained + run.sq_bound, sq_bound", "run.sq_gained, sq_bound", "krylov"),
    ("krylov/estimate", "self.radau * sq_new, 0.0", "0.5 * self.radau * sq_new, 0.0", "path certificate"),
    ("krylov/iteration", "length**2 * np.maximum", "length * np.maximum", "warm_start"),
    ("krylov/proof", "return 4 * ROUNDING * problem.frobenius", "return 0 * problem.frobenius", "krylov"),
    ("path", "        self.bound[row] += lost\n", "", "path digits penalty_weights"),
    ("path", "np.full(own.shape[1], alphas[i])", "np.full(own.shape[1], penalties[i])", "digits path"),
    ("problem", "(self.y_mean[1] - shift[1]) - low", "(self.y_mean[1] - shift[1]) + low", "digits"),
    ("problem", "column_dots(fit, fit) + penalty * column_dots(w, w)", "column_dots(fit, fit)", "certificate solvers_grid"),
    ("problem", "sq_error + loss / (1 - loss) * column_dots(residual, residual)", "sq_error", "certificate"),
    ("problem", "(most / (most + self.penalty))", "(most / (most + 4 * self.penalty))", "solvers_grid certificate invariances"),
    ("problem", "d * np.sqrt(np.where(np.isinf(weights), 0.0, weights))[:, None]", "1.0 * d", "penalty_weights bounds estimator"),
    ("least_squares", "inverse[np.isinf(d)] = 0.0", "pass", "digits"),
    ("least_squares", "- (doubt * np.abs(v))", "+ (doubt * np.abs(v))", "digits"),
    ("normal_equations", "np.sqrt(self._theta) * check.spread", "self._theta * check.spread", "moments"),
    ("normal_equations", "reach + np.tile(equations.target_doubt, n_repeats)", "reach", "moments"),
    ("solvers/galerkin", "residual) / alpha, energy", "residual), energy", "path"),
    ("solvers/eigen", "np.maximum(s - self.doubt, 0.0)", "(s + self.doubt)", "many_penalties"),
    ("solvers/spectral", "1 - (1 - np.minimum(theta, 1.0)) ** 2)", "np.minimum(theta, 1.0))", "certificate"),
    ("solvers/cholesky", "factor.loss == np.inf)", "False)", "certificate"),
    ("solvers/shifted", "last_gamma * (1.0 - ratio)", "last_gamma * (1.0 + ratio)", "path"),
    ("solvers/bounded/certificate", "(2 * ends - pull * d))", "(ends - pull * d))", "bounds path_bounds"),
    ("solvers/bounded/certificate", "[g - doubt, g + doubt]", "[g, g]", "bounds path_bounds"),
    ("solvers/bounded/records", "math.sqrt(sq_size) - error", "math.sqrt(sq_size)", "bounds"),
    ("operators/composed", "(0.5 * (self.image.T", "(1.0 * (self.image.T", "operator penalty_weights digits"),
    ("operators/composed", "Origin(self.mean_error * np.sqrt(sq_scale)", "Origin(self.mean_error * sq_scale", "digits operator"),
    ("operators/composed", "np.hstack([others, self.basis])", "self.basis", "operator"),
    ("operators/design", "(mean - rounded)) + (offset - rounded)", "(mean - rounded)) - (offset - rounded)", "digits"),
    ("operators/design", "missing = total_weight - stored", "missing = n - stored", "digits"),
    ("operators/design", "sq_norms + total_weight * shift**2", "sq_norms", "operator"),
    ("moments", "coefs[:, :, active] = answers.coefs", "coefs[:, :, ~active] = 0.0", "moments partial_fit"),
    ("moments", "(sq < -doubt).any()", "(sq < -1e9 * doubt).any()", "moments"),
    ("sums", "seen * part * moved**2", "0 * moved", "moments"),
    ("sums", "2 * (sq + weight", "0.02 * (sq + weight", "moments"),
    ("sums", "+ self.weight * off**2", "", "moments"),
    ("penalty_range", "factor.diagonal()[:rank] ** 2", "factor.diagonal()[:rank]", "path"),
    ("penalty_range", "- size * last", "", "path"),
    ("preconditioners", "1.0 / (fold + doubt / sigma)", "1.0 / (1 + doubt / sigma)", "preconditioners certificate"),
    ("preconditioners", "least / (least +", "10 * least / (least +", "preconditioners certificate"),
    ("units", "    power -= power % 2\n", "", "digits"),
    ("units", "np.where(self.free[:, None], 0, self.excess(alpha))", "self.excess(alpha)", "digits"),
    ("scales", "n - float(weights @ weights) / n if", "n - 1 if", "scales"),
    ("standard_form", "    target -= basis @ (basis.T @ target)\n", "", "penalty_weights"),
    ("standard_form", "+ self.tilt * np.sqrt(sq_left)", "", "digits penalty_weights"),
    ("standard_form", "sq_fitted=(fit**2).sum(axis=0)", "sq_fitted=None", "penalty_weights digits"),
]


def verdict(copy, name, old, new, tests):
    """What the tests say of the copy of the package with this mutation"""
    path = copy / "fastridge" / f"{name}.py"
    before = path.read_text(encoding="utf-8")
    if before.count(old) != 1:
        return "OUTDATED"
    path.write_text(before.replace(old, new), encoding="utf-8")
    files = [f"tests/test_{test}.py" for test in tests.split()]
    done = subprocess.run([sys.executable, "-m", "pytest", "-x", "-q", *files], cwd=copy, stdout=subprocess.DEVNULL, check=False)
    path.write_text(before, encoding="utf-8")
    return {0: "MISSED", 1: "noticed"}.get(done.returncode, "NOT RUN")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "copy"
        shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(".git", "build", "__pycache__"))
        for mutation in MUTATIONS:
            if any(word in mutation[0] for word in sys.argv[1:] or [""]):
                print(f"{verdict(copy, *mutation):9}", *map(repr, mutation[:3]), flush=True)
