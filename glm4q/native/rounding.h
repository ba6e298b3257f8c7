// Rounds weights to codes: the inner loops of quantize/methods, where the formulas are.
#pragma once

#include <cstddef>
#include <cstdint>

#include "rows.h"

namespace glm4q {

struct InstructionSet;

// Rounding to nearest, with a search among `clips` for the scale of each group.
struct Rounding {
    const void* weight;       // [N, K]
    Dtype dtype;
    const float* importance;  // [K]; null if all inputs are equally important
    int outputs, inputs, groups, bits;
    bool symmetric;
    const float* clips;
    int clip_count;
    // The results in GPTQ's layout, in rows that are `stride` numbers from each other.
    uint32_t* words;   // [K * bits / 32, N]
    uint16_t* scales;  // float16 [groups, N]
    uint8_t* zeros;    // [groups, N]
    size_t stride;
};

void round_rows(const InstructionSet& set, const Rounding& rounding, int threads);

// Inputs `first` to `last` of a weight [N, K].
struct Block {
    int outputs, inputs, groups, bits, first, last;
};

// One block of GPTQ. Inputs are in the order in which they are rounded.
struct Compensation : Block {
    const float* left;       // [N, K], the weights plus what compensates for inputs rounded so far
    const float* root;       // [K, K], upper factor of the Hessian's inverse
    const int32_t* group;    // [K], the group of each input
    const uint16_t* scales;  // float16 [N, groups]
    const uint8_t* zeros;    // [N, groups]
    uint8_t* codes;          // [N, K], in the order of rounding
    float* errors;           // [N, last - first], which later inputs have to compensate for
};

void compensate(const InstructionSet& set, const Compensation& block, int threads);

// One block of a sweep of coordinate descent.
struct Descent : Block {
    float* centered;       // [N, K], codes minus zero points
    float* scales;         // [N, groups], exact in float16
    const uint8_t* zeros;  // [N, groups]
    const float* slope;    // [N, K]: the error times the Hessian
    const float* hessian;  // [K, K]
    bool rescales;         // whether the block is one group, whose scale may change as well
    float* change;         // [N, last - first], the increase of the dequantized weights
};

void descend(const InstructionSet& set, const Descent& block, int threads);

}  // namespace glm4q
