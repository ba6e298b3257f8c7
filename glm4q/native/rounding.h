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
    const float* rows;       // [N, K], the weights
    float* left;             // [N, K], the weights plus what compensates for inputs rounded so far;
                             // where inputs are rounded, what rounding took from that
    const float* root;       // [K, K], upper factor of the Hessian, with ones on its diagonal
    const int32_t* group;    // [K], the group of each input
    const uint16_t* scales;  // float16 [N, groups]
    const uint8_t* zeros;    // [N, groups]
    uint8_t* codes;          // [N, K], in the order of rounding
    float* errors;           // [N, last - first], weights less rounded weights: what later inputs
                             // have to compensate for
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

// What a sweep of coordinate descent without new scales does to the slope: few numbers of `change`
// are not zero. Columns `first` to `last` of out [N, K] become less by change [N, M] times matrix
// [M, K].
struct Subtraction {
    const float* change;
    const float* matrix;
    float* out;
    int rows, terms, columns, first, last;
};

// The numbers of `change` that are not zero, row by row.
struct Terms {
    const int* starts;    // [N + 1], where each row's numbers begin
    const int* places;    // the row of the matrix that each is multiplied by
    const float* values;
};

void subtract(const InstructionSet& set, const Subtraction& sums, int threads);

}  // namespace glm4q
