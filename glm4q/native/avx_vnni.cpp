// AVX-VNNI: Intel from the 12th generation on, AMD from Zen 5 on.
#if defined(__x86_64__)
#include <immintrin.h>

#include <algorithm>
#include <cmath>
#include <complex>
#include <cstring>

#include "numbers.h"
#include "instruction_set.h"
#include "target.h"
GLM4Q_TARGET_BEGIN("avx2,fma,f16c,avxvnni")

namespace glm4q::avx_vnni {
namespace {

#define GLM4Q_VNNI "%{vex%} "
#include "avx2.inl"
#include "instruction_set.inl"

}  // namespace

extern const InstructionSet INSTRUCTION_SET;
const InstructionSet INSTRUCTION_SET = instruction_set("avx_vnni");

}  // namespace glm4q::avx_vnni

GLM4Q_TARGET_END
#endif
