// Plain C++, one output at a time. It runs on every machine, and shows what the others compute.
#include <algorithm>
#include <cmath>
#include <complex>
#include <cstring>

#include "numbers.h"
#include "instruction_set.h"
#include "target.h"

namespace glm4q::scalar {
namespace {

struct V {
    using Ints = int32_t;
    using Floats = float;
    static constexpr int LANES = 1;
    static constexpr int BLOCK_ROWS = 4;
    static constexpr int HEAD_ROWS = 1;
    static constexpr int GRAM_ROWS = 3;

    static int32_t broadcast(int32_t number) { return number; }
    static int32_t negative_product(const int32_t* numbers, int32_t by) { return -*numbers * by; }
    static int32_t load(const uint32_t* place) { return static_cast<int32_t>(*place); }
    static int32_t load_part(const uint32_t* place, int) { return load(place); }
    static int32_t low(int32_t word) { return word & 0x0f0f0f0f; }
    static int32_t high(int32_t word) { return word >> 4 & 0x0f0f0f0f; }
    static const uint8_t* load_book(const uint8_t* book) { return book; }
    static int32_t look_up(const uint8_t* book, int32_t codes) {
        uint32_t bytes = 0;
        for (int shift = 0; shift < 32; shift += 8)
            bytes |= static_cast<uint32_t>(book[codes >> shift & 15]) << shift;
        return static_cast<int32_t>(bytes);
    }
    static float load_half(const uint16_t* place) { return from_float16(*place); }
    static float half_part(const uint16_t* place, int) { return load_half(place); }

    static int32_t dot_bytes(int32_t sum, int32_t codes, uint32_t x) {
        for (int shift = 0; shift < 32; shift += 8)
            sum += (codes >> shift & 255) * static_cast<int8_t>(x >> shift & 255);
        return sum;
    }
    static int32_t dot_nibbles(int32_t sum, int32_t codes, uint32_t x) {
        return dot_bytes(sum, codes, x);
    }
    static void add_scaled(float* to, int32_t sum, float scale, float x_scale) {
        *to += static_cast<float>(sum) * (scale * x_scale);
    }

    static float load(const float* place) { return *place; }
    static void store(float* place, float number) { *place = number; }
    static float fill(float number) { return number; }
    static float zero() { return 0; }
    static float multiply_add(float a, float b, float c) { return a * b + c; }
    static void store_sums(float* to, float a, float b, float c, float d) {
        to[0] = a, to[1] = b, to[2] = c, to[3] = d;
    }
    static float dot_pair(float sum, int32_t a, int32_t b) {
        sum += from_bfloat16(static_cast<uint16_t>(a)) * from_bfloat16(static_cast<uint16_t>(b));
        return sum + float_of_bits(a & 0xffff0000) * float_of_bits(b & 0xffff0000);
    }
    static float larger(float a, float b) { return a > b ? a : b; }
    static float largest(float number) { return number; }
    static float even_bfloat16(const uint16_t* place) { return from_bfloat16(place[0]); }
    static float odd_bfloat16(const uint16_t* place) { return from_bfloat16(place[1]); }
};

#include "instruction_set.inl"

}  // namespace

extern const InstructionSet INSTRUCTION_SET;
const InstructionSet INSTRUCTION_SET = instruction_set("scalar");

}  // namespace glm4q::scalar
