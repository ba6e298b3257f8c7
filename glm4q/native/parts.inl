// Vectors in plain arithmetic. Lanes are never combined with each other, so every instruction set
// computes the same bits, whatever the width of its vectors. Included by instruction_set.inl.

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

// Rounds to the nearest, ties to even, if the magnitude is below 2^22. The result of a larger
// number is about as large.
inline Parts nearest(Parts number) {
    constexpr float SHIFT = 0x1.8p23f;
    return (number + SHIFT) - SHIFT;
}

// The nearest finite float16 with the sign of `scale`, never 0, as a float.
inline Parts half_scale(Parts scale) {
    const Parts size = within(larger(scale, -scale), fill(0x1p-24f), fill(65504.0f));
    const Words bits = (Words)size;
    const Parts normal = (Parts)((bits + 0xfff + (bits >> 13 & 1)) & ~0x1fffu);
    const Parts subnormal = (size + 0.5f) - 0.5f;  // steps of 2^-24
    const Parts nearest = size < 0x1p-14f ? subnormal : normal;
    return scale < 0 ? -nearest : nearest;
}

// Rounds once if the instruction set has vectors, else twice.
template <class Vector>
inline Vector multiply_add(Vector a, Vector b, Vector c) {
    if constexpr (PARTS == V::LANES)
        return (Vector)V::multiply_add(a, b, c);
    else
        return a * b + c;
}

template <class Vector>
inline float largest_of(Vector numbers) {
    if constexpr (PARTS == V::LANES) return V::largest((typename V::Floats)numbers);
    float most = numbers[0];
    for (int part = 1; part < PARTS; part++) most = std::max(most, numbers[part]);
    return most;
}

inline float sum_of(Parts numbers) {
    float sum = 0;
    for (int part = 0; part < PARTS; part++) sum += numbers[part];
    return sum;
}

// e^x to a few units in the last place. x is limited to -87 from below and to 88 from above.
inline Parts exponential(Parts x) {
    constexpr float SHIFT = 0x1.8p23f;
    x = x < -87.0f ? fill(-87.0f) : x;  // not `within`: NaN stays
    x = x > 88.0f ? fill(88.0f) : x;
    const Parts shifted = multiply_add(x, fill(1.44269504f), fill(SHIFT)), whole = shifted - SHIFT;
    Parts rest = multiply_add(whole, fill(-0.693359375f), x);
    rest = multiply_add(whole, fill(2.12194440e-4f), rest);
    Parts power = fill(1.9875691500e-4f);  // Cephes' polynomial of e^rest
    for (const float factor : {1.3981999507e-3f, 8.3334519073e-3f, 4.1665795894e-2f,
                               1.6666665459e-1f, 5.0000001201e-1f})
        power = multiply_add(power, rest, fill(factor));
    power = multiply_add(power, rest * rest, rest) + 1.0f;
    return power * (Parts)(((Words)shifted - bits_of_float(SHIFT) + 127) << 23);
}

inline float exponential(float x) { return exponential(fill(x))[0]; }
