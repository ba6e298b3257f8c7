// AVX-512 with VNNI and bfloat16.
#if defined(__x86_64__)
#include <immintrin.h>

#include <algorithm>
#include <cmath>
#include <complex>
#include <cstring>

#include "numbers.h"
#include "instruction_set.h"
#include "target.h"
GLM4Q_TARGET_BEGIN(GLM4Q_AVX512 ",avx512bf16" GLM4Q_WIDE)

namespace glm4q::avx512_bf16 {
namespace {

#define GLM4Q_BFLOAT16
#include "avx512.inl"
#include "instruction_set.inl"

}  // namespace

extern const InstructionSet INSTRUCTION_SET;
const InstructionSet INSTRUCTION_SET = instruction_set("avx512_bf16");

}  // namespace glm4q::avx512_bf16

GLM4Q_TARGET_END
#endif
