// AVX-512 with VNNI.
#if defined(__x86_64__)
#include <immintrin.h>

#include <algorithm>
#include <cmath>
#include <complex>
#include <cstring>

#include "numbers.h"
#include "instruction_set.h"
#include "target.h"
GLM4Q_TARGET_BEGIN(GLM4Q_AVX512 GLM4Q_WIDE)

namespace glm4q::avx512 {
namespace {

#include "avx512.inl"
#include "instruction_set.inl"

}  // namespace

extern const InstructionSet INSTRUCTION_SET;
const InstructionSet INSTRUCTION_SET = instruction_set("avx512");

}  // namespace glm4q::avx512

GLM4Q_TARGET_END
#endif
