// Compiles a part of a file for an instruction set. One build has the code of all instruction sets,
// and the machine chooses. Standard headers are included before that part, so that none of their
// functions is compiled for instructions that the machine may lack.
#pragma once

#define GLM4Q_PRAGMA(text) _Pragma(#text)
#if defined(__clang__)
#define GLM4Q_UNROLL _Pragma("clang loop unroll(full)")
#else
#define GLM4Q_UNROLL _Pragma("GCC unroll 16")
#endif

// Without this word gcc compiles plain loops to vectors of half the width; clang does not know it.
#define GLM4Q_AVX512 "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512vnni"
#if defined(__clang__)
#define GLM4Q_WIDE ""
#else
#define GLM4Q_WIDE ",prefer-vector-width=512"
#endif

#if defined(__clang__)
#define GLM4Q_TARGET_BEGIN(features) \
    GLM4Q_PRAGMA(clang attribute push(__attribute__((target(features))), apply_to = function))
#define GLM4Q_TARGET_END _Pragma("clang attribute pop")
#else
// gcc warns that its own intrinsics use uninitialized variables:
// https://gcc.gnu.org/bugzilla/show_bug.cgi?id=105593
#define GLM4Q_TARGET_BEGIN(features)                              \
    _Pragma("GCC push_options") GLM4Q_PRAGMA(GCC target(features)) \
        _Pragma("GCC diagnostic ignored \"-Wmaybe-uninitialized\"") \
        _Pragma("GCC diagnostic ignored \"-Wuninitialized\"")
#define GLM4Q_TARGET_END _Pragma("GCC pop_options")
#endif
