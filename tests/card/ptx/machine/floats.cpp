// Floating point: exact operations round once; approximations err by what the PTX manual allows.
#include <algorithm>

#include "lanes.h"

bool noisy = false;  // set by each launch

namespace {

// An approximation's result, moved by -1, 0 or 1 times the largest relative error, as its bits have it.
float approximate(double exact, double relative) {
    const float nearest = float(exact);
    if (!noisy || !std::isfinite(nearest) || nearest == 0) return nearest;
    const uint32_t bits = std::bit_cast<uint32_t>(nearest) * 2654435761u;
    return float(exact * (1 + relative * (int(bits >> 30) % 3 - 1)));
}

float flushed(float x) { return std::fpclassify(x) == FP_SUBNORMAL ? std::copysign(0.f, x) : x; }

float larger(float a, float b) { return std::isnan(a) ? b : std::isnan(b) ? a : a > b ? a : b; }
float smaller(float a, float b) { return std::isnan(a) ? b : std::isnan(b) ? a : a < b ? a : b; }

template <class F>
uint64_t both(uint64_t a, uint64_t b, uint64_t c, F f) {
    auto half = [](uint64_t x, int i) { return std::bit_cast<float>(uint32_t(x >> 32 * i)); };
    auto bits = [&](int i) {
        return uint64_t(std::bit_cast<uint32_t>(f(half(a, i), half(b, i), half(c, i))));
    };
    return bits(1) << 32 | bits(0);
}

// a * b + c rounded once to bfloat16 or float16: first to odd in double, so that the last rounding sees no false ties.
double odd_sum(double product, double c) {
    const double sum = product + c;
    const double back = sum - product;
    const double error = (product - (sum - back)) + (c - back);
    if (error == 0 || !std::isfinite(sum)) return sum;
    const uint64_t bits = std::bit_cast<uint64_t>(sum);
    if (bits & 1) return sum;
    return std::bit_cast<double>((error > 0) == (sum > 0) ? bits + 1 : bits - 1);
}

uint16_t bf16_of_double(double x) {  // rounded to odd in float32 on the way
    float near = float(x);
    if (double(near) != x && std::isfinite(near)) {
        uint32_t bits = std::bit_cast<uint32_t>(near);
        if (std::fabs(double(near)) > std::fabs(x)) --bits;
        near = std::bit_cast<float>(bits | 1);
    }
    return to_bf16(near);
}

template <class T, class Get>
void add_float_comparisons(std::vector<Opcode>& all, const char* const (&names)[8], Get) {
    all.push_back(each_lane<bool, T, T>(names[0], [](T a, T b) { return Get{}(a) == Get{}(b); }));
    all.push_back(each_lane<bool, T, T>(names[1], [](T a, T b) {
        return Get{}(a) < Get{}(b) || Get{}(a) > Get{}(b);  // ordered: false of not a number
    }));
    all.push_back(each_lane<bool, T, T>(names[2], [](T a, T b) { return Get{}(a) < Get{}(b); }));
    all.push_back(each_lane<bool, T, T>(names[3], [](T a, T b) { return Get{}(a) <= Get{}(b); }));
    all.push_back(each_lane<bool, T, T>(names[4], [](T a, T b) { return Get{}(a) > Get{}(b); }));
    all.push_back(each_lane<bool, T, T>(names[5], [](T a, T b) { return Get{}(a) >= Get{}(b); }));
    all.push_back(each_lane<bool, T, T>(names[6], [](T a, T b) {
        return std::isnan(Get{}(a)) || std::isnan(Get{}(b));
    }));
    all.push_back(each_lane<bool, T, T>(names[7], [](T a, T b) { return !(Get{}(a) == Get{}(b)); }));
}

void add_approximations(std::vector<Opcode>& all) {
    all.push_back(each_lane<float, float, float>("div.full.f32", [](float a, float b) {
        return approximate(double(a) / b, 0x1p-22);  // 2 units in the last place
    }));
    all.push_back(each_lane<float, float>("ex2.approx.f32", [](float a) {
        return flushed(a) == 0 ? 1.f : approximate(std::exp2(double(a)), 0x1p-22);
    }));
    all.push_back(each_lane<float, float>("ex2.approx.ftz.f32", [](float a) {
        return flushed(a) == 0 ? 1.f : flushed(approximate(std::exp2(double(a)), 0x1p-22));
    }));
    all.push_back(each_lane<float, float>("lg2.approx.f32", [](float a) {
        return approximate(std::log2(double(a)), 0x1p-22);
    }));
    all.push_back(each_lane<float, float>("rsqrt.approx.f32", [](float a) {
        return approximate(1 / std::sqrt(double(a)), 0x1.13p-23);  // 2**-22.9
    }));
    all.push_back(each_lane<float, float>("rsqrt.approx.ftz.f32", [](float a) {
        return flushed(approximate(1 / std::sqrt(double(flushed(a))), 0x1.13p-23));
    }));
    all.push_back(each_lane<float, float>("sqrt.approx.f32", [](float a) {
        return approximate(std::sqrt(double(a)), 0x1p-23);
    }));
    all.push_back(each_lane<float, float>("sqrt.approx.ftz.f32", [](float a) {
        return flushed(approximate(std::sqrt(double(flushed(a))), 0x1p-23));
    }));
    all.push_back(each_lane<float, float>("rcp.approx.f32", [](float a) {
        return approximate(1 / double(a), 0x1p-23);
    }));
    all.push_back(each_lane<float, float>("rcp.approx.ftz.f32", [](float a) {
        return flushed(approximate(1 / double(flushed(a)), 0x1p-23));
    }));
}

void add_exact(std::vector<Opcode>& all) {
    all.push_back(each_lane<float, float, float>("add.f32", [](float a, float b) { return a + b; }));
    all.push_back(each_lane<float, float, float>("sub.f32", [](float a, float b) { return a - b; }));
    all.push_back(each_lane<float, float, float>("mul.f32", [](float a, float b) { return a * b; }));
    all.push_back(each_lane<float, float, float>("div.rn.f32", [](float a, float b) { return a / b; }));
    all.push_back(each_lane<float, float>("sqrt.rn.f32", [](float a) { return std::sqrt(a); }));
    all.push_back(each_lane<float, float>("rcp.rn.f32", [](float a) { return 1 / a; }));
    all.push_back(each_lane<float, float, float>("max.f32", [](float a, float b) { return larger(a, b); }));
    all.push_back(each_lane<float, float, float>("min.f32", [](float a, float b) { return smaller(a, b); }));
    all.push_back(each_lane<float, float, float, float>("max.f32.3", [](float a, float b, float c) { return larger(larger(a, b), c); }));
    all.push_back(each_lane<float, float, float, float>("min.f32.3", [](float a, float b, float c) { return smaller(smaller(a, b), c); }));
    all.push_back(each_lane<uint32_t, uint32_t>("neg.f32", [](uint32_t a) { return a ^ 0x80000000u; }));
    all.push_back(each_lane<uint32_t, uint32_t>("abs.f32", [](uint32_t a) { return a & 0x7fffffffu; }));
    all.push_back(each_lane<float, float, float, float>(
        "fma.rn.f32", [](float a, float b, float c) { return std::fma(a, b, c); }));
    all.push_back(each_lane<double, double, double>("add.f64", [](double a, double b) { return a + b; }));
    all.push_back(each_lane<double, double, double>("sub.f64", [](double a, double b) { return a - b; }));
    all.push_back(each_lane<double, double, double>("mul.f64", [](double a, double b) { return a * b; }));
    all.push_back(each_lane<double, double, double, double>(
        "fma.rn.f64", [](double a, double b, double c) { return std::fma(a, b, c); }));
    all.push_back(each_lane<float, float, float, bool>("selp.f32", [](float a, float b, bool p) { return p ? a : b; }));
    all.push_back(each_lane<double, double, double, bool>("selp.f64", [](double a, double b, bool p) { return p ? a : b; }));
}

void add_packed(std::vector<Opcode>& all) {  // two float32 in 64 bits
    using U = uint64_t;
    all.push_back(each_lane<U, U, U>("add.f32x2", [](U a, U b) { return both(a, b, 0, [](float x, float y, float) { return x + y; }); }));
    all.push_back(each_lane<U, U, U>("sub.f32x2", [](U a, U b) { return both(a, b, 0, [](float x, float y, float) { return x - y; }); }));
    all.push_back(each_lane<U, U, U>("mul.f32x2", [](U a, U b) { return both(a, b, 0, [](float x, float y, float) { return x * y; }); }));
    all.push_back(each_lane<U, U, U, U>("fma.rn.f32x2", [](U a, U b, U c) { return both(a, b, c, [](float x, float y, float z) { return std::fma(x, y, z); }); }));
}

uint16_t fused_bf16(uint16_t a, uint16_t b, uint16_t c) {
    return bf16_of_double(odd_sum(double(from_bf16(a)) * from_bf16(b), from_bf16(c)));
}

void add_bf16(std::vector<Opcode>& all) {
    using H = uint16_t;
    all.push_back(each_lane<H, H, H>("mul.bf16", [](H a, H b) { return to_bf16(from_bf16(a) * from_bf16(b)); }));
    all.push_back(each_lane<H, H, H, H>("fma.rn.bf16", [](H a, H b, H c) { return fused_bf16(a, b, c); }));
    all.push_back(each_lane<float, H, H, float>("fma.rn.f32.bf16", [](H a, H b, float c) {
        return std::fma(from_bf16(a), from_bf16(b), c);
    }));
    all.push_back(each_lane<float, H, float>("add.rn.f32.bf16", [](H a, float c) { return from_bf16(a) + c; }));
    all.push_back(each_lane<float, H, float>("sub.rn.f32.bf16", [](H a, float c) { return from_bf16(a) - c; }));
}

uint32_t both_halves(uint32_t a, uint32_t b, uint32_t c, uint16_t (*f)(uint16_t, uint16_t, uint16_t)) {
    return uint32_t(f(a >> 16, b >> 16, c >> 16)) << 16 | f(uint16_t(a), uint16_t(b), uint16_t(c));
}

// float32 has more than twice as many bits as float16, so that rounding twice is rounding once;
// not so for a fused product and sum.
uint16_t sum_f16(uint16_t a, uint16_t b, uint16_t) { return to_f16(from_f16(a) + from_f16(b)); }
uint16_t difference_f16(uint16_t a, uint16_t b, uint16_t) { return to_f16(from_f16(a) - from_f16(b)); }
uint16_t product_f16(uint16_t a, uint16_t b, uint16_t) { return to_f16(from_f16(a) * from_f16(b)); }
uint16_t larger_f16(uint16_t a, uint16_t b, uint16_t) { return to_f16(larger(from_f16(a), from_f16(b))); }
uint16_t smaller_f16(uint16_t a, uint16_t b, uint16_t) { return to_f16(smaller(from_f16(a), from_f16(b))); }
uint16_t fused_f16(uint16_t a, uint16_t b, uint16_t c) {
    return std::bit_cast<uint16_t>(_Float16(odd_sum(double(from_f16(a)) * from_f16(b), from_f16(c))));
}

void add_f16(std::vector<Opcode>& all) {  // one float16, and two of 16 bits in 32
    using H = uint16_t;
    using U = uint32_t;
    all.push_back(each_lane<H, H, H>("add.f16", [](H a, H b) { return sum_f16(a, b, 0); }));
    all.push_back(each_lane<H, H, H>("sub.f16", [](H a, H b) { return difference_f16(a, b, 0); }));
    all.push_back(each_lane<H, H, H>("mul.f16", [](H a, H b) { return product_f16(a, b, 0); }));
    all.push_back(each_lane<H, H, H>("max.f16", [](H a, H b) { return larger_f16(a, b, 0); }));
    all.push_back(each_lane<H, H, H>("min.f16", [](H a, H b) { return smaller_f16(a, b, 0); }));
    all.push_back(each_lane<H, H, H, H>("fma.rn.f16", [](H a, H b, H c) { return fused_f16(a, b, c); }));
    all.push_back(each_lane<U, U, U>("add.f16x2", [](U a, U b) { return both_halves(a, b, 0, sum_f16); }));
    all.push_back(each_lane<U, U, U>("sub.f16x2", [](U a, U b) { return both_halves(a, b, 0, difference_f16); }));
    all.push_back(each_lane<U, U, U>("mul.f16x2", [](U a, U b) { return both_halves(a, b, 0, product_f16); }));
    all.push_back(each_lane<U, U, U>("max.f16x2", [](U a, U b) { return both_halves(a, b, 0, larger_f16); }));
    all.push_back(each_lane<U, U, U>("min.f16x2", [](U a, U b) { return both_halves(a, b, 0, smaller_f16); }));
    all.push_back(each_lane<U, U, U, U>("fma.rn.bf16x2", [](U a, U b, U c) { return both_halves(a, b, c, fused_bf16); }));
    all.push_back(each_lane<U, U, U, U>("fma.rn.f16x2", [](U a, U b, U c) { return both_halves(a, b, c, fused_f16); }));
}

}  // namespace

void add_floats(std::vector<Opcode>& all) {
    add_exact(all);
    add_packed(all);
    add_bf16(all);
    add_f16(all);
    add_approximations(all);
    add_float_comparisons<float>(all, {"setp.eq.f32", "setp.ne.f32", "setp.lt.f32", "setp.le.f32", "setp.gt.f32", "setp.ge.f32", "setp.nan.f32", "setp.neu.f32"}, [](float x) { return x; });
    add_float_comparisons<double>(all, {"setp.eq.f64", "setp.ne.f64", "setp.lt.f64", "setp.le.f64", "setp.gt.f64", "setp.ge.f64", "setp.nan.f64", "setp.neu.f64"}, [](double x) { return x; });
}
