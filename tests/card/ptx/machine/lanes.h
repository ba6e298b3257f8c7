// An instruction that computes each lane alone, from a function of one lane's numbers.
#pragma once

#include <bit>
#include <cmath>
#include <utility>

#include "machine.h"

template <class F, class D, class... S, size_t... I>
inline void apply(Warp& warp, const Line& line, uint32_t mask, std::index_sequence<I...>) {
    D* to = warp.row<D>(line.operand[0]);
    auto one = [&](int lane) {
        to[lane] = F{}(warp.row<S>(line.operand[I + 1])[lane]...);
    };
    if (mask == ALL) {
        for (int lane = 0; lane < LANES; ++lane) one(lane);
    } else {
        for (int lane = 0; lane < LANES; ++lane)
            if (mask >> lane & 1) one(lane);
    }
}

template <class D, class... S, class F>
Opcode each_lane(const char* name, F) {
    Opcode opcode{name, [](Warp& warp, const Line& line, uint32_t mask) {
        apply<F, D, S...>(warp, line, mask, std::index_sequence_for<S...>{});
    }, {}};
    const int8_t sizes[] = {sizeof(D), sizeof(S)...};
    for (size_t i = 0; i < OPERANDS; ++i) opcode.bytes[i] = i < std::size(sizes) ? sizes[i] : -1;
    return opcode;
}

inline float from_bf16(uint16_t bits) { return std::bit_cast<float>(uint32_t(bits) << 16); }

inline uint16_t to_bf16(float x) {  // to the nearest, ties to even
    uint32_t bits = std::bit_cast<uint32_t>(x);
    if (std::isnan(x)) return 0x7fff;
    return (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
}

inline float from_f16(uint16_t bits) { return float(std::bit_cast<_Float16>(bits)); }

inline uint16_t to_f16(float x) { return std::bit_cast<uint16_t>(_Float16(x)); }
