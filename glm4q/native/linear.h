// Linear layers by quantized weights: what is multiplied, and who multiplies.
#pragma once

#include <cstddef>
#include <cstdint>

#include "rows.h"

namespace glm4q {

// A weight of N outputs and K inputs as GPTQ lays it out. In a word of `qweight` lie 32 / bits
// consecutive inputs of one output, so that neighbouring words are neighbouring outputs: a vector
// of words is a vector of sums, and nothing is ever added across it.
struct Weight {
    const uint32_t* qweight;  // [K * bits / 32, N]
    const void* scales;       // [groups, N], float16, or float32 where they are wide
    const uint32_t* qzeros;   // [groups, N * bits / 32], true zero points; null: the middle code
    // float32 [16], whole numbers from -127 to 127 that 4-bit codes stand for; null: themselves
    // less their zero points.
    const float* book;
    int outputs, inputs, bits;
    int group;  // inputs that share a scale
    bool wide;
};

// Inputs that share a scale of the activations.
constexpr int SEGMENT = 32;

inline int segment_inputs(int group) { return group < SEGMENT ? group : SEGMENT; }

inline int segment_count(int inputs, int group) {
    const int size = segment_inputs(group);
    return (inputs + size - 1) / size;
}

// M rows of activations as int8, x = code * scale, in blocks of rows that are multiplied at once.
// Of a block of R rows:
//   codes   [K / 4, R] words of four inputs, for 4-bit weights of inputs 0 2 4 6, then 1 3 5 7, ...:
//           the order in which masks take them out of a word of the weight
//   scales  [segments, R]
//   sums    [segments, R], of the segment's codes
struct Activations {
    int rows, inputs, segment, segments;
    uint32_t* codes;
    float* scales;
    int32_t* sums;
};

inline size_t activations_bytes(int rows, int inputs, int group) {
    return static_cast<size_t>(rows) * (inputs + 8 * segment_count(inputs, group));
}

// Blocks of nearly equal height, none above the most that a path multiplies at once.
struct Blocks {
    int rows, count;

    Blocks(int rows, int most) : rows(rows), count((rows + most - 1) / most) {}
    int start(int block) const { return static_cast<int>(static_cast<long>(rows) * block / count); }
};

// One of several weights that multiply the same activations, and where its products go.
struct Product {
    Weight weight;
    const void* bias;  // [N] in the activations' dtype, or null
    void* out;         // [M, N]
    Dtype out_dtype;   // float32 where sums are to leave unrounded, else the activations'
};

struct Path;

// x [M, K] by each weight. scratch: the `activations_bytes` of the largest.
void matmul(const Path& path, const Product* products, int count, const void* x, int rows,
            Dtype dtype, void* scratch, int threads);

// Activations for a dense weight, a few rows: [M, K] floats in the order in which a path multiplies
// them, of each 2 * lanes inputs the even ones, then the odd ones.
struct DenseRows {
    const float* numbers;
    int rows, inputs, outputs;
};

constexpr int MOST_DENSE_NUMBERS = 1 << 16;

// x [M, K] by a bfloat16 weight [N, K] into out [M, N].
void matmul_dense(const Path& path, const uint16_t* weight, int outputs, int inputs, const void* x,
                  int rows, Dtype dtype, void* out, Dtype out_dtype, int threads);

}  // namespace glm4q
