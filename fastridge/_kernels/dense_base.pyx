"""The dense loops at one SIMD level; the text is dense.pxi."""

include "dense.pxi"

cdef extern from *:
    """
    static int simd_level(void) {
    #if defined(__GNUC__) && (defined(__x86_64__) || defined(__i386__))
        __builtin_cpu_init();
        int v3 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi")
              && __builtin_cpu_supports("bmi2");
        int v4 = v3 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl")
              && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw");
        return v4 ? 4 : v3 ? 3 : 1;
    #else
        return 1;
    #endif
    }
    """
    int _simd_level "simd_level"()


def simd_level():
    """Return the level of x86-64 that this processor has: 4 (AVX-512), 3 (AVX2 and FMA), or 1 (also any other processor)"""
    return _simd_level()
