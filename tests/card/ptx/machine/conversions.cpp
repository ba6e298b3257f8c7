// cvt, and moves that pack registers into a wider one or take one to pieces.
#include <algorithm>
#include <limits>

#include "lanes.h"

namespace {

template <class T>
T towards_zero(double x) {  // clamped to what T holds; 0 of not a number
    if (std::isnan(x)) return 0;
    const double low = double(std::numeric_limits<T>::min());
    const double high = double(std::numeric_limits<T>::max());
    if (x <= low) return std::numeric_limits<T>::min();
    if (x >= high) return std::numeric_limits<T>::max();
    return T(x);
}

template <class D, class S>
Opcode whole(const char* name) {
    return each_lane<D, S>(name, [](S a) { return D(a); });
}

// 8-bit numbers lie in wider registers, their sign or zeros above them.
template <class T>
Opcode to_byte(const char* name) {
    Opcode opcode{name, [](Warp& warp, const Line& line, uint32_t mask) {
        for (int lane = 0; lane < LANES; ++lane) {
            if (!(mask >> lane & 1)) continue;
            const int64_t number = T(warp.row<uint8_t>(line.operand[1])[lane * line.size]);
            std::memcpy(warp.row<uint8_t>(line.operand[0]) + lane * line.width, &number, line.width);
        }
    }, {0, 0}};
    std::fill(opcode.bytes + 2, opcode.bytes + OPERANDS, int8_t(-1));
    return opcode;
}

template <class W, class P, int N>
Opcode packing(const char* name) {
    Opcode opcode{name, [](Warp& warp, const Line& line, uint32_t mask) {
        for (int lane = 0; lane < LANES; ++lane) {
            if (!(mask >> lane & 1)) continue;
            W wide = 0;
            for (int i = 0; i < N; ++i)
                wide |= W(warp.row<P>(line.operand[i + 1])[lane]) << 8 * sizeof(P) * i;
            warp.row<W>(line.operand[0])[lane] = wide;
        }
    }, {}};
    for (int i = 0; i < OPERANDS; ++i)
        opcode.bytes[i] = i == 0 ? sizeof(W) : i <= N ? sizeof(P) : -1;
    return opcode;
}

template <class W, class P, int N>
Opcode unpacking(const char* name) {
    Opcode opcode{name, [](Warp& warp, const Line& line, uint32_t mask) {
        for (int lane = 0; lane < LANES; ++lane) {
            if (!(mask >> lane & 1)) continue;
            const W wide = warp.row<W>(line.operand[N])[lane];
            for (int i = 0; i < N; ++i)
                warp.row<P>(line.operand[i])[lane] = P(wide >> 8 * sizeof(P) * i);
        }
    }, {}};
    for (int i = 0; i < OPERANDS; ++i)
        opcode.bytes[i] = i < N ? sizeof(P) : i == N ? sizeof(W) : -1;
    return opcode;
}

void add_float_conversions(std::vector<Opcode>& all) {
    using H = uint16_t;
    using U = uint32_t;
    all.push_back(each_lane<float, H>("cvt.f32.bf16", [](H a) { return from_bf16(a); }));
    all.push_back(each_lane<float, H>("cvt.f32.f16", [](H a) { return from_f16(a); }));
    all.push_back(each_lane<H, float>("cvt.rn.bf16.f32", [](float a) { return to_bf16(a); }));
    all.push_back(each_lane<H, float>("cvt.rn.f16.f32", [](float a) { return to_f16(a); }));
    all.push_back(each_lane<U, float, float>("cvt.rn.bf16x2.f32", [](float a, float b) {
        return U(to_bf16(a)) << 16 | to_bf16(b);  // the first number lies above
    }));
    all.push_back(each_lane<U, float, float>("cvt.rn.f16x2.f32", [](float a, float b) {
        return U(to_f16(a)) << 16 | to_f16(b);
    }));
    all.push_back(each_lane<double, float>("cvt.f64.f32", [](float a) { return double(a); }));
    all.push_back(each_lane<float, double>("cvt.rn.f32.f64", [](double a) { return float(a); }));
}

void add_whole_to_float(std::vector<Opcode>& all) {
    using H = uint16_t;
    all.push_back(each_lane<H, int16_t>("cvt.rn.f16.s16", [](int16_t a) { return to_f16(float(a)); }));
    all.push_back(each_lane<H, uint16_t>("cvt.rn.f16.u16", [](uint16_t a) { return to_f16(float(a)); }));
    all.push_back(each_lane<H, int32_t>("cvt.rn.f16.s32", [](int32_t a) { return std::bit_cast<H>(_Float16(double(a))); }));
    all.push_back(each_lane<float, int16_t>("cvt.rn.f32.s16", [](int16_t a) { return float(a); }));
    all.push_back(each_lane<float, uint16_t>("cvt.rn.f32.u16", [](uint16_t a) { return float(a); }));
    all.push_back(each_lane<float, int32_t>("cvt.rn.f32.s32", [](int32_t a) { return float(a); }));
    all.push_back(each_lane<float, uint32_t>("cvt.rn.f32.u32", [](uint32_t a) { return float(a); }));
    all.push_back(each_lane<float, int64_t>("cvt.rn.f32.s64", [](int64_t a) { return float(a); }));
    all.push_back(each_lane<double, int32_t>("cvt.rn.f64.s32", [](int32_t a) { return double(a); }));
    all.push_back(each_lane<double, int64_t>("cvt.rn.f64.s64", [](int64_t a) { return double(a); }));
}

void add_float_to_whole(std::vector<Opcode>& all) {
    all.push_back(each_lane<int16_t, float>("cvt.rzi.s16.f32", [](float a) { return towards_zero<int16_t>(a); }));
    all.push_back(each_lane<uint16_t, float>("cvt.rzi.u16.f32", [](float a) { return towards_zero<uint16_t>(a); }));
    all.push_back(each_lane<int32_t, float>("cvt.rzi.s32.f32", [](float a) { return towards_zero<int32_t>(a); }));
    all.push_back(each_lane<uint32_t, float>("cvt.rzi.u32.f32", [](float a) { return towards_zero<uint32_t>(a); }));
    all.push_back(each_lane<int64_t, float>("cvt.rzi.s64.f32", [](float a) { return towards_zero<int64_t>(a); }));
    all.push_back(each_lane<int64_t, double>("cvt.rzi.s64.f64", [](double a) { return towards_zero<int64_t>(a); }));
}

}  // namespace

void add_conversions(std::vector<Opcode>& all) {
    add_float_conversions(all);
    add_whole_to_float(all);
    add_float_to_whole(all);
    all.push_back(whole<int64_t, int32_t>("cvt.s64.s32"));
    all.push_back(whole<int64_t, int16_t>("cvt.s64.s16"));
    all.push_back(whole<int32_t, int16_t>("cvt.s32.s16"));
    all.push_back(whole<int32_t, int64_t>("cvt.s32.s64"));
    all.push_back(whole<uint16_t, uint32_t>("cvt.u16.u32"));
    all.push_back(whole<uint16_t, uint64_t>("cvt.u16.u64"));
    all.push_back(whole<uint32_t, uint16_t>("cvt.u32.u16"));
    all.push_back(whole<uint32_t, uint64_t>("cvt.u32.u64"));
    all.push_back(whole<uint64_t, uint32_t>("cvt.u64.u32"));
    all.push_back(whole<uint64_t, uint16_t>("cvt.u64.u16"));
    // From the low half of a register that is wider than the type.
    all.push_back(each_lane<int64_t, int64_t>("cvt.s64.s32.low", [](int64_t a) { return int64_t(int32_t(a)); }));
    all.push_back(each_lane<uint64_t, uint64_t>("cvt.u64.u32.low", [](uint64_t a) { return uint64_t(uint32_t(a)); }));
    all.push_back(each_lane<int32_t, int32_t>("cvt.s32.s16.low", [](int32_t a) { return int32_t(int16_t(a)); }));
    all.push_back(each_lane<uint32_t, uint32_t>("cvt.u32.u16.low", [](uint32_t a) { return uint32_t(uint16_t(a)); }));
    for (const char* name : {"cvt.s8.s32", "cvt.s8.s16", "cvt.s16.s8", "cvt.s32.s8"})
        all.push_back(to_byte<int8_t>(name));
    for (const char* name : {"cvt.u8.u32", "cvt.u8.u16", "cvt.u16.u8", "cvt.u32.u8"})
        all.push_back(to_byte<uint8_t>(name));
    all.push_back(packing<uint32_t, uint16_t, 2>("mov.b32.pack2"));
    all.push_back(packing<uint64_t, uint32_t, 2>("mov.b64.pack2"));
    all.push_back(packing<uint64_t, uint16_t, 4>("mov.b64.pack4"));
    all.push_back(unpacking<uint32_t, uint16_t, 2>("mov.b32.unpack2"));
    all.push_back(unpacking<uint64_t, uint32_t, 2>("mov.b64.unpack2"));
    all.push_back(unpacking<uint64_t, uint16_t, 4>("mov.b64.unpack4"));
}
