"""The dense loops at one SIMD level; the text is dense.pxi."""

include "dense.pxi"
