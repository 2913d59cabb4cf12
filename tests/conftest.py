"""Fixtures that several test files use."""

import pytest
from threadpoolctl import threadpool_limits

from fastridge import parallel
from fastridge.operators import dense, lines
from fastridge.solvers import descent


@pytest.fixture
def small_pieces(monkeypatch):
    """Cut work so small that tiny problems run in many lanes and blocks, and coordinate descent sweeps over the data"""
    monkeypatch.setattr(parallel, "LANE_BYTES", 64)
    monkeypatch.setattr(lines, "BLOCK_BYTES", 256)
    monkeypatch.setattr(dense, "PIECE_BYTES", 256)
    monkeypatch.setattr(descent, "MAX_GRAM", 0)


@pytest.fixture(scope="module")
def one_blas_thread():
    """Keep BLAS on one thread: thousands of tiny problems would otherwise wait for its threads on a busy machine"""
    with threadpool_limits(1, user_api="blas"):
        yield
