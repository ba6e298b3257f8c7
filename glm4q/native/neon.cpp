// NEON with the dot product of ARMv8.2: four outputs at once.
#if defined(__aarch64__)
#include <arm_neon.h>

#include <algorithm>
#include <cmath>
#include <complex>
#include <cstring>

#include "numbers.h"
#include "instruction_set.h"
#include "target.h"
GLM4Q_TARGET_BEGIN("arch=armv8.2-a+dotprod")

namespace glm4q::neon {
namespace {

struct V {
    using Ints = int32x4_t;
    using Floats = float32x4_t;
    static constexpr int LANES = 4;
    struct PairSums {
        int32x4_t low, high;  // lanes 0 to 3 and 4 to 7, which are added in pairs at last
    };
    using Book = int32x4_t;
    static constexpr int BLOCK_ROWS = 4;  // 4 rows of 4 vectors: half of the 32 registers
    static constexpr int DIRECT_BLOCKS = 2;  // of rows that each unpack for themselves, at most
    static constexpr int requests(int) { return 1; }
    static constexpr int STREAMS = 32;  // chunks are met whole
    static constexpr int CUT_SPAN = 0;
    static constexpr int SINGLY_ROWS = 0;
    static constexpr bool WHOLE_MULTIPLES = false;
    static constexpr bool CROSSED = false;
    static constexpr int CROSSED_COLUMNS = 0;
    static constexpr int columns(int rows) { return rows > 2 ? 2 : 4; }
    static constexpr int DENSE_ROWS = 6;  // by 4 outputs: 24 of the 32 registers
    static constexpr int HEAD_ROWS = 4;
    static constexpr int MOST_WIDENING_ROWS = 8;
    static constexpr int GRAM_ROWS = 6;  // of 3 vectors: 18 of the 32 registers

    static int32x4_t broadcast(int32_t number) { return vdupq_n_s32(number); }
    static int32x4_t load(const uint32_t* place) {
        return vreinterpretq_s32_u32(vld1q_u32(place));
    }
    static int32x4_t load_once(const uint32_t* place, int) { return load(place); }
    static int32x4_t load_part(const uint32_t* place, int count) {
        uint32_t padded[LANES] = {};
        std::memcpy(padded, place, count * sizeof(uint32_t));
        return load(padded);
    }
    static void store(uint32_t* place, int32x4_t words) {
        vst1q_u32(place, vreinterpretq_u32_s32(words));
    }
    static int32x4_t mask(int32x4_t word, int32_t bits) {
        return vandq_s32(word, vdupq_n_s32(bits));
    }
    static int32x4_t shift(int32x4_t word, int by) {
        return vreinterpretq_s32_u32(vshlq_u32(vreinterpretq_u32_s32(word), vdupq_n_s32(-by)));
    }
    static int32x4_t odd_bytes(int32x4_t words) {
        return vreinterpretq_s32_u16(vshrq_n_u16(vreinterpretq_u16_s32(words), 8));
    }
    static int32x4_t plus(int32x4_t a, int32x4_t b) { return vaddq_s32(a, b); }
    static int32x4_t minus(int32x4_t a, int32x4_t b) { return vsubq_s32(a, b); }
    static int32x4_t load_book(const uint8_t* book) { return vreinterpretq_s32_u8(vld1q_u8(book)); }
    static int32x4_t look_up(int32x4_t book, int32x4_t codes) {
        return vreinterpretq_s32_u8(
            vqtbl1q_u8(vreinterpretq_u8_s32(book), vreinterpretq_u8_s32(codes)));
    }
    static float32x4_t load_half(const uint16_t* place) {
        return vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(place)));
    }
    static float32x4_t half_part(const uint16_t* place, int count) {
        uint16_t padded[LANES] = {};
        std::memcpy(padded, place, count * sizeof(uint16_t));
        return load_half(padded);
    }

    static int32x4_t dot_signed(int32x4_t sum, int32x4_t codes, uint32_t x) {
        return vdotq_s32(sum, vreinterpretq_s8_s32(codes), vreinterpretq_s8_u32(vdupq_n_u32(x)));
    }
    // Multiplies nibble by nibble: the dot product is signed, and bytes above 127 do not fit.
    static int32x4_t dot_bytes(int32x4_t sum, int32x4_t codes, uint32_t x) {
        const int32x4_t above =
            dot_signed(vdupq_n_s32(0), mask(shift(codes, 4), 0x0f0f0f0f), x);
        return dot_signed(vaddq_s32(sum, vshlq_n_s32(above, 4)), mask(codes, 0x0f0f0f0f), x);
    }
    static int32x4_t dot_nibbles(int32x4_t sum, int32x4_t codes, uint32_t x) {
        return dot_signed(sum, codes, x);
    }
    static int32x4_t first_nibbles(int32x4_t codes, uint32_t x) {
        return dot_nibbles(broadcast(0), codes, x);
    }
    static int32x4_t begin_sum() { return vdupq_n_s32(0); }
    static float32x4_t end_sum(int32x4_t sum) { return to_floats(sum); }
    static PairSums no_pairs() { return {vdupq_n_s32(0), vdupq_n_s32(0)}; }
    static PairSums dot_pairs(PairSums sums, int32x4_t codes, uint32_t x) {
        const int16x8_t numbers = vreinterpretq_s16_s32(codes);
        const int16x8_t by = vreinterpretq_s16_u32(vdupq_n_u32(x));
        return {vmlal_s16(sums.low, vget_low_s16(numbers), vget_low_s16(by)),
                vmlal_high_s16(sums.high, numbers, by)};
    }
    static int32x4_t sum_pairs(PairSums sums) { return vpaddq_s32(sums.low, sums.high); }
    static float32x4_t to_floats(int32x4_t numbers) { return vcvtq_f32_s32(numbers); }

    static float32x4_t load(const float* place) { return vld1q_f32(place); }
    static void store(float* place, float32x4_t numbers) { vst1q_f32(place, numbers); }
    static float32x4_t fill(float number) { return vdupq_n_f32(number); }
    static float32x4_t zero() { return vdupq_n_f32(0); }
    static float32x4_t multiply_add(float32x4_t a, float32x4_t b, float32x4_t c) {
        return vfmaq_f32(c, a, b);
    }
    static void store_sums(float* to, float32x4_t a, float32x4_t b, float32x4_t c, float32x4_t d) {
        vst1q_f32(to, vpaddq_f32(vpaddq_f32(a, b), vpaddq_f32(c, d)));
    }
    static float32x4_t even(uint32x4_t words) {
        return vreinterpretq_f32_u32(vshlq_n_u32(words, 16));
    }
    static float32x4_t odd(uint32x4_t words) {
        return vreinterpretq_f32_u32(vandq_u32(words, vdupq_n_u32(0xffff0000)));
    }
    static float32x4_t dot_pair(float32x4_t sum, int32x4_t a, int32x4_t b) {
        const uint32x4_t one = vreinterpretq_u32_s32(a), other = vreinterpretq_u32_s32(b);
        return vfmaq_f32(vfmaq_f32(sum, even(one), even(other)), odd(one), odd(other));
    }
    static float32x4_t larger(float32x4_t a, float32x4_t b) { return vmaxnmq_f32(a, b); }
    static float largest(float32x4_t numbers) { return vmaxnmvq_f32(numbers); }
    static float32x4_t even_bfloat16(const uint16_t* place) { return even(words(place)); }
    static float32x4_t odd_bfloat16(const uint16_t* place) { return odd(words(place)); }
    static uint32x4_t words(const uint16_t* place) {
        return vreinterpretq_u32_u16(vld1q_u16(place));
    }
};

#include "instruction_set.inl"

}  // namespace

extern const InstructionSet INSTRUCTION_SET;
const InstructionSet INSTRUCTION_SET = instruction_set("neon");

}  // namespace glm4q::neon

GLM4Q_TARGET_END
#endif
