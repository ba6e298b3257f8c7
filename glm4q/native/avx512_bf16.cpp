// AVX-512 with VNNI and bfloat16.
#if defined(__x86_64__)
#include <immintrin.h>

#include <algorithm>
#include <cmath>
#include <complex>
#include <cstring>

#include "numbers.h"
#include "path.h"
#include "target.h"
GLM4Q_TARGET_BEGIN("avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512vnni,avx512bf16,prefer-vector-width=512")

namespace glm4q::avx512_bf16 {
namespace {

#define GLM4Q_BFLOAT16
#include "avx512.inl"
#include "path.inl"

}  // namespace

extern const Path PATH;
const Path PATH = path("avx512_bf16");

}  // namespace glm4q::avx512_bf16

GLM4Q_TARGET_END
#endif
