// The instructions of AVX-VNNI as AVX-512 encodes them, for machines that have only this encoding:
// they have faster code, and show that this code is right.
#if defined(__x86_64__)
#include <immintrin.h>

#include <algorithm>
#include <cmath>
#include <complex>
#include <cstring>

#include "numbers.h"
#include "instruction_set.h"
#include "target.h"
GLM4Q_TARGET_BEGIN("avx2,fma,f16c,avx512f,avx512vl,avx512vnni")

namespace glm4q::avx_vnni_evex {
namespace {

#define GLM4Q_VNNI ""
#include "avx2.inl"
#include "instruction_set.inl"

}  // namespace

extern const InstructionSet INSTRUCTION_SET;
const InstructionSet INSTRUCTION_SET = instruction_set("avx_vnni");

}  // namespace glm4q::avx_vnni_evex

GLM4Q_TARGET_END
#endif
