// Numbers side by side, as vectors in plain arithmetic. No part ever meets another, so every path
// finds the same, however wide its vectors are. Included once by each path, inside its namespace,
// after V.

constexpr int PARTS = V::LANES < 4 ? 4 : V::LANES;

using Parts = float __attribute__((vector_size(4 * PARTS)));
using Words = uint32_t __attribute__((vector_size(4 * PARTS)));
using Codes = int32_t __attribute__((vector_size(4 * PARTS)));

inline Parts load_parts(const float* from) {
    Parts numbers;
    std::memcpy(&numbers, from, sizeof(numbers));
    return numbers;
}

inline Parts fill(float number) { return Parts{} + number; }
inline Parts smaller(Parts a, Parts b) { return a < b ? a : b; }
inline Parts larger(Parts a, Parts b) { return a > b ? a : b; }

inline Parts within(Parts number, Parts lowest, Parts highest) {
    return smaller(larger(number, lowest), highest);
}

// To the nearest, ties to even, of a magnitude below 2^22; beyond, something as large.
inline Parts nearest(Parts number) {
    constexpr float SHIFT = 0x1.8p23f;
    return (number + SHIFT) - SHIFT;
}

// The nearest positive float16, as a float.
inline Parts half_scale(Parts scale) {
    scale = within(scale, fill(0x1p-24f), fill(65504.0f));
    const Words bits = (Words)scale;
    const Parts whole = (Parts)((bits + 0xfff + (bits >> 13 & 1)) & ~0x1fffu);
    const Parts small = (scale + 0.5f) - 0.5f;  // steps of 2^-24
    return scale < 0x1p-14f ? small : whole;
}
