// Whole numbers, bits and predicates.
#include "lanes.h"

namespace {

template <class T>
void add_whole(std::vector<Opcode>& all, const char* const (&names)[6]) {
    using U = std::make_unsigned_t<T>;  // which wraps
    all.push_back(each_lane<T, T, T>(names[0], [](T a, T b) { return T(U(a) + U(b)); }));
    all.push_back(each_lane<T, T, T>(names[1], [](T a, T b) { return T(U(a) - U(b)); }));
    all.push_back(each_lane<T, T, T>(names[2], [](T a, T b) { return T(U(a) * U(b)); }));
    all.push_back(each_lane<T, T, T>(names[3], [](T a, T b) { return a < b ? a : b; }));
    all.push_back(each_lane<T, T, T>(names[4], [](T a, T b) { return a > b ? a : b; }));
    all.push_back(
        each_lane<T, T, T, T>(names[5], [](T a, T b, T c) { return T(U(a) * U(b) + U(c)); }));
}

template <class T>
void add_division(std::vector<Opcode>& all, const char* div, const char* rem) {
    // A division by zero gives what the hardware leaves undefined: all bits here.
    all.push_back(each_lane<T, T, T>(div, [](T a, T b) {
        return b == 0 ? T(-1) : b == T(-1) && std::is_signed_v<T> ? T(0 - uint64_t(a)) : T(a / b);
    }));
    all.push_back(each_lane<T, T, T>(rem, [](T a, T b) {
        return b == 0 ? T(-1) : b == T(-1) && std::is_signed_v<T> ? T(0) : T(a % b);
    }));
}

template <class T>
void add_bits(std::vector<Opcode>& all, const char* const (&names)[4]) {
    all.push_back(each_lane<T, T, T>(names[0], [](T a, T b) { return T(a & b); }));
    all.push_back(each_lane<T, T, T>(names[1], [](T a, T b) { return T(a | b); }));
    all.push_back(each_lane<T, T, T>(names[2], [](T a, T b) { return T(a ^ b); }));
    all.push_back(each_lane<T, T>(names[3], [](T a) { return T(~a); }));
}

template <class T>
void add_shift_left(std::vector<Opcode>& all, const char* name) {
    all.push_back(each_lane<T, T, uint32_t>(
        name, [](T a, uint32_t by) { return by >= 8 * sizeof(T) ? T(0) : T(a << by); }));
}

template <class T>
void add_shift_right(std::vector<Opcode>& all, const char* name) {  // a shift too far counts as the width
    all.push_back(each_lane<T, T, uint32_t>(name, [](T a, uint32_t by) {
        if (by >= 8 * sizeof(T)) return T(a < 0 ? -1 : 0);
        return T(a >> by);
    }));
}

template <class T>
void add_comparisons(std::vector<Opcode>& all, const char* const (&names)[6]) {
    all.push_back(each_lane<bool, T, T>(names[0], [](T a, T b) { return a == b; }));
    all.push_back(each_lane<bool, T, T>(names[1], [](T a, T b) { return a != b; }));
    all.push_back(each_lane<bool, T, T>(names[2], [](T a, T b) { return a < b; }));
    all.push_back(each_lane<bool, T, T>(names[3], [](T a, T b) { return a <= b; }));
    all.push_back(each_lane<bool, T, T>(names[4], [](T a, T b) { return a > b; }));
    all.push_back(each_lane<bool, T, T>(names[5], [](T a, T b) { return a >= b; }));
}

template <class T>
T bit_field(T a, uint32_t from, uint32_t length) {
    from &= 255, length &= 255;
    const int bits = 8 * sizeof(T);
    if (length == 0) return 0;
    auto bit = [&](uint32_t at) { return at < uint32_t(bits) ? uint64_t(a) >> at & 1 : 0; };
    const uint32_t last = std::min<uint32_t>(from + length - 1, bits - 1);
    const uint64_t sign = std::is_signed_v<T> ? bit(last) : 0;
    uint64_t result = 0;
    for (int at = 0; at < bits; ++at) {
        const bool inside = uint32_t(at) < length && from + at < uint32_t(bits);
        result |= (inside ? bit(from + at) : sign) << at;
    }
    return T(result);
}

uint32_t look_up(uint32_t a, uint32_t b, uint32_t c, uint32_t table) {  // a's bit counts four
    uint32_t word = 0;
    for (uint32_t row = 0; row < 8; ++row)
        if (table >> row & 1) word |= (row & 4 ? a : ~a) & (row & 2 ? b : ~b) & (row & 1 ? c : ~c);
    return word;
}

uint32_t permute(uint32_t a, uint32_t b, uint32_t selector) {
    const uint64_t bytes = uint64_t(b) << 32 | a;
    uint32_t result = 0;
    for (int i = 0; i < 4; ++i) {
        const uint32_t nibble = selector >> 4 * i & 15;
        uint32_t byte = bytes >> 8 * (nibble & 7) & 255;
        if (nibble & 8) byte = byte & 128 ? 255 : 0;  // its sign, eight times
        result |= byte << 8 * i;
    }
    return result;
}

// The upper half of a product that is twice as wide.
template <typename S, typename D>
void add_upper_half(std::vector<Opcode>& all, const char* name) {
    all.push_back(each_lane<S, S, S>(name, [](S a, S b) { return S(D(a) * D(b) >> 8 * sizeof(S)); }));
}

template <class S, class D>
void add_wide(std::vector<Opcode>& all, const char* mul, const char* mad) {
    all.push_back(each_lane<D, S, S>(mul, [](S a, S b) { return D(a) * D(b); }));
    all.push_back(each_lane<D, S, S, D>(mad, [](S a, S b, D c) {
        return D(uint64_t(D(a) * D(b)) + uint64_t(c));
    }));
}

template <class T>
void add_choice(std::vector<Opcode>& all, const char* selp, const char* mov) {
    all.push_back(each_lane<T, T, T, bool>(selp, [](T a, T b, bool p) { return p ? a : b; }));
    all.push_back(each_lane<T, T>(mov, [](T a) { return a; }));
}

}  // namespace

void add_arithmetic(std::vector<Opcode>& all) {
    add_whole<int16_t>(all, {"add.s16", "sub.s16", "mul.lo.s16", "min.s16", "max.s16", "mad.lo.s16"});
    add_whole<uint16_t>(all, {"add.u16", "sub.u16", "mul.lo.u16", "min.u16", "max.u16", "mad.lo.u16"});
    add_whole<int32_t>(all, {"add.s32", "sub.s32", "mul.lo.s32", "min.s32", "max.s32", "mad.lo.s32"});
    add_whole<uint32_t>(all, {"add.u32", "sub.u32", "mul.lo.u32", "min.u32", "max.u32", "mad.lo.u32"});
    add_whole<int64_t>(all, {"add.s64", "sub.s64", "mul.lo.s64", "min.s64", "max.s64", "mad.lo.s64"});
    add_whole<uint64_t>(all, {"add.u64", "sub.u64", "mul.lo.u64", "min.u64", "max.u64", "mad.lo.u64"});
    add_division<int32_t>(all, "div.s32", "rem.s32");
    add_division<uint32_t>(all, "div.u32", "rem.u32");
    add_division<int64_t>(all, "div.s64", "rem.s64");
    add_bits<uint16_t>(all, {"and.b16", "or.b16", "xor.b16", "not.b16"});
    add_bits<uint32_t>(all, {"and.b32", "or.b32", "xor.b32", "not.b32"});
    add_bits<uint64_t>(all, {"and.b64", "or.b64", "xor.b64", "not.b64"});
    add_shift_left<uint16_t>(all, "shl.b16");
    add_shift_left<uint32_t>(all, "shl.b32");
    add_shift_left<uint64_t>(all, "shl.b64");
    add_shift_right<int16_t>(all, "shr.s16");
    add_shift_right<uint16_t>(all, "shr.u16");
    add_shift_right<int32_t>(all, "shr.s32");
    add_shift_right<uint32_t>(all, "shr.u32");
    add_shift_right<int64_t>(all, "shr.s64");
    add_shift_right<uint64_t>(all, "shr.u64");
    add_comparisons<uint16_t>(all, {"setp.eq.b16", "setp.ne.b16", "setp.lt.u16", "setp.le.u16", "setp.gt.u16", "setp.ge.u16"});
    add_comparisons<int16_t>(all, {"setp.eq.s16", "setp.ne.s16", "setp.lt.s16", "setp.le.s16", "setp.gt.s16", "setp.ge.s16"});
    add_comparisons<uint32_t>(all, {"setp.eq.b32", "setp.ne.b32", "setp.lt.u32", "setp.le.u32", "setp.gt.u32", "setp.ge.u32"});
    add_comparisons<int32_t>(all, {"setp.eq.s32", "setp.ne.s32", "setp.lt.s32", "setp.le.s32", "setp.gt.s32", "setp.ge.s32"});
    add_comparisons<uint64_t>(all, {"setp.eq.b64", "setp.ne.b64", "setp.lt.u64", "setp.le.u64", "setp.gt.u64", "setp.ge.u64"});
    add_comparisons<int64_t>(all, {"setp.eq.s64", "setp.ne.s64", "setp.lt.s64", "setp.le.s64", "setp.gt.s64", "setp.ge.s64"});
    add_wide<int16_t, int32_t>(all, "mul.wide.s16", "mad.wide.s16");
    add_wide<uint16_t, uint32_t>(all, "mul.wide.u16", "mad.wide.u16");
    add_wide<int32_t, int64_t>(all, "mul.wide.s32", "mad.wide.s32");
    add_wide<uint32_t, uint64_t>(all, "mul.wide.u32", "mad.wide.u32");
    add_upper_half<int16_t, int32_t>(all, "mul.hi.s16");
    add_upper_half<uint16_t, uint32_t>(all, "mul.hi.u16");
    add_upper_half<int32_t, int64_t>(all, "mul.hi.s32");
    add_upper_half<uint32_t, uint64_t>(all, "mul.hi.u32");
    add_choice<uint16_t>(all, "selp.b16", "mov.b16");
    add_choice<uint32_t>(all, "selp.b32", "mov.b32");
    add_choice<uint64_t>(all, "selp.b64", "mov.b64");
    all.push_back(each_lane<bool, bool>("mov.pred", [](bool a) { return a; }));
    all.push_back(each_lane<bool, bool>("not.pred", [](bool a) { return !a; }));
    all.push_back(each_lane<bool, bool, bool>("and.pred", [](bool a, bool b) { return a && b; }));
    all.push_back(each_lane<bool, bool, bool>("or.pred", [](bool a, bool b) { return a || b; }));
    all.push_back(each_lane<bool, bool, bool>("xor.pred", [](bool a, bool b) { return a != b; }));
    all.push_back(each_lane<int32_t, int32_t>("neg.s32", [](int32_t a) { return int32_t(0u - uint32_t(a)); }));
    all.push_back(each_lane<int64_t, int64_t>("neg.s64", [](int64_t a) { return int64_t(0ul - uint64_t(a)); }));
    all.push_back(each_lane<int32_t, int32_t>("abs.s32", [](int32_t a) { return a < 0 ? int32_t(0u - uint32_t(a)) : a; }));
    all.push_back(each_lane<uint32_t, uint32_t, uint32_t, uint32_t>("bfe.u32", [](uint32_t a, uint32_t b, uint32_t c) { return bit_field(a, b, c); }));
    all.push_back(each_lane<int32_t, int32_t, uint32_t, uint32_t>("bfe.s32", [](int32_t a, uint32_t b, uint32_t c) { return bit_field(a, b, c); }));
    all.push_back(each_lane<uint32_t, uint32_t, uint32_t, uint32_t>("prmt.b32", [](uint32_t a, uint32_t b, uint32_t c) { return permute(a, b, c); }));
    all.push_back(each_lane<uint32_t, uint32_t, uint32_t, uint32_t, uint32_t>("lop3.b32", [](uint32_t a, uint32_t b, uint32_t c, uint32_t table) { return look_up(a, b, c, table); }));
}
