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
    using PairSums = int32_t;
    using Book = const uint8_t*;
    static constexpr int BLOCK_ROWS = 2;
    static constexpr int DIRECT_BLOCKS = 2;  // of rows that each unpack for themselves, at most
    static constexpr int requests(int) { return 0; }
    static constexpr int STREAMS = 32;  // chunks are met whole
    static constexpr int CUT_SPAN = 0;
    static constexpr int SINGLY_ROWS = 0;
    static constexpr bool WHOLE_MULTIPLES = false;
    static constexpr bool CROSSED = false;
    static constexpr int CROSSED_COLUMNS = 0;
    static constexpr int columns(int) { return 2; }
    static constexpr int DENSE_ROWS = 1;
    static constexpr int HEAD_ROWS = 1;
    static constexpr int MOST_WIDENING_ROWS = 8;
    static constexpr int GRAM_ROWS = 3;

    static int32_t broadcast(int32_t number) { return number; }
    static int32_t load(const uint32_t* place) { return static_cast<int32_t>(*place); }
    static int32_t load_once(const uint32_t* place, int) { return load(place); }
    static int32_t load_part(const uint32_t* place, int) { return load(place); }
    static void store(uint32_t* place, int32_t word) { *place = static_cast<uint32_t>(word); }
    static int32_t mask(int32_t word, int32_t bits) { return word & bits; }
    static int32_t shift(int32_t word, int by) {
        return static_cast<int32_t>(static_cast<uint32_t>(word) >> by);
    }
    static int32_t odd_bytes(int32_t word) { return shift(word, 8) & 0x00ff00ff; }
    static int32_t plus(int32_t a, int32_t b) { return a + b; }
    static int32_t minus(int32_t a, int32_t b) { return a - b; }
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
    static int32_t first_nibbles(int32_t codes, uint32_t x) {
        return dot_nibbles(broadcast(0), codes, x);
    }
    static int32_t begin_sum() { return 0; }
    static float end_sum(int32_t sum) { return to_floats(sum); }
    static int32_t no_pairs() { return 0; }
    static int32_t dot_pairs(int32_t sum, int32_t codes, uint32_t x) {
        return sum + (codes & 0xffff) * static_cast<int16_t>(x & 0xffff) +
               (codes >> 16) * static_cast<int16_t>(x >> 16);
    }
    static int32_t sum_pairs(int32_t sum) { return sum; }
    static float to_floats(int32_t number) { return static_cast<float>(number); }

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
