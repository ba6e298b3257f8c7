// Rounding weights to codes: the inner loops of quantize/methods, which say what they compute.
#pragma once

#include <cstddef>
#include <cstdint>

#include "rows.h"

namespace glm4q {

struct Path;

// Rounding to nearest, with a search among `clips` for the scale of each group.
struct Rounding {
    const void* weight;       // [N, K]
    Dtype dtype;
    const float* importance;  // [K], or null: all alike
    int outputs, inputs, groups, bits;
    bool symmetric;
    const float* clips;
    int clip_count;
    // What is found, laid out as GPTQ does, in rows `stride` numbers apart.
    uint32_t* words;   // [K * bits / 32, N]
    uint16_t* scales;  // float16 [groups, N]
    uint8_t* zeros;    // [groups, N]
    size_t stride;
};

void round_rows(const Path& path, const Rounding& rounding, int threads);

// Inputs at most that are rounded in one block, each making up for those before it.
constexpr int MOST_BLOCK = 128;

// Inputs `first` to `last` of a weight [N, K].
struct Block {
    int outputs, inputs, groups, bits, first, last;
};

// One block of GPTQ, in the order in which its inputs are rounded.
struct Compensation : Block {
    const float* left;       // [N, K], what is to be rounded, made up for
    const float* root;       // [K, K], upper factor of the Hessian's inverse
    const int32_t* group;    // [K], of each input
    const uint16_t* scales;  // float16 [N, groups]
    const uint8_t* zeros;    // [N, groups]
    uint8_t* codes;          // [N, K], in the order of rounding
    float* errors;           // [N, last - first], what the inputs still to come have to make up for
};

void compensate(const Path& path, const Compensation& block, int threads);

// One block of a sweep of coordinate descent.
struct Descent : Block {
    float* centered;       // [N, K], codes less zero points
    float* scales;         // [N, groups], exact in float16
    const uint8_t* zeros;  // [N, groups]
    const float* slope;    // [N, K]: e H
    const float* hessian;  // [K, K]
    bool rescales;         // the block is one group, whose scale is free as well
    float* change;         // [N, last - first], how much more the dequantized weights are now
};

void descend(const Path& path, const Descent& block, int threads);

}  // namespace glm4q
