// Conversions between float32 and the bits of bfloat16 and float16.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

namespace glm4q {

inline float float_of_bits(uint32_t bits) {
    float number;
    std::memcpy(&number, &bits, 4);
    return number;
}

inline uint32_t bits_of_float(float number) {
    uint32_t bits;
    std::memcpy(&bits, &number, 4);
    return bits;
}

inline float from_bfloat16(uint16_t bits) {
    return float_of_bits(static_cast<uint32_t>(bits) << 16);
}

// Rounds to the nearest, ties to even; NaN stays NaN.
inline uint16_t to_bfloat16(float number) {
    const uint32_t bits = bits_of_float(number);
    const uint32_t rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
    return static_cast<uint16_t>((bits & 0x7fffffff) > 0x7f800000 ? 0x7fc0 : rounded);
}

// Rounds to the nearest integer, ties to even, if the magnitude is far below 2^22. Larger numbers
// and NaN become some integer.
inline int32_t round_code(float number) {
    constexpr float SHIFT = 0x1.8p23f;  // adding it pushes the fraction out of a float's 24 bits
    return static_cast<int32_t>(bits_of_float(number + SHIFT)) -
           static_cast<int32_t>(bits_of_float(SHIFT));
}

inline float from_float16(uint16_t bits) {
    const uint32_t sign = static_cast<uint32_t>(bits & 0x8000) << 16;
    const int exponent = bits >> 10 & 31, fraction = bits & 1023;
    if (exponent == 0) {
        const float small = static_cast<float>(fraction) * 0x1p-24f;
        return sign ? -small : small;
    }
    const uint32_t raised = exponent == 31 ? 255 : exponent + 112;
    return float_of_bits(sign | raised << 23 | static_cast<uint32_t>(fraction) << 13);
}

// Rounds to the nearest, ties to even.
inline uint16_t to_float16(float number) {
    const uint32_t bits = bits_of_float(number), sign = bits >> 16 & 0x8000;
    const float magnitude = float_of_bits(bits & 0x7fffffff);
    if (!(magnitude < 65520.0f))  // rounds to infinity, or is no number
        return static_cast<uint16_t>(sign | (magnitude >= 65520.0f ? 0x7c00 : 0x7e00));
    if (magnitude < 0x1p-14f) {  // adding 2^-1 leaves steps of 2^-24
        const uint32_t steps = bits_of_float(magnitude + 0.5f) - bits_of_float(0.5f);
        return static_cast<uint16_t>(sign | steps);
    }
    const uint32_t rounded = (bits & 0x7fffffff) + 0xfff + (bits >> 13 & 1);
    return static_cast<uint16_t>(sign | ((rounded >> 13) - (112 << 10)));
}

}  // namespace glm4q
