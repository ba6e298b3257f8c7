// AVX2: eight outputs at once.
#if defined(__x86_64__)
#include <immintrin.h>

#include <algorithm>
#include <cmath>
#include <complex>
#include <cstring>

#include "numbers.h"
#include "instruction_set.h"
#include "target.h"
GLM4Q_TARGET_BEGIN("avx2,fma,f16c")

namespace glm4q::avx2 {
namespace {

#include "avx2.inl"
#include "instruction_set.inl"

}  // namespace

extern const InstructionSet INSTRUCTION_SET;
const InstructionSet INSTRUCTION_SET = instruction_set("avx2");

}  // namespace glm4q::avx2

GLM4Q_TARGET_END
#endif
