// Linear layers with quantized weights: the operands, and the functions that multiply them.
#pragma once

#include <cstddef>
#include <cstdint>

#include "records.h"
#include "rows.h"

namespace glm4q {

// A weight of N outputs and K inputs in GPTQ's layout. A word of `qweight` has 32 / bits
// consecutive inputs of one output, and neighbouring words are neighbouring outputs. So a vector of
// words gives a vector of sums, and the lanes of a vector are never added to each other.
struct Weight {
    const uint32_t* qweight;  // [K * bits / 32, N]
    const void* scales;       // [groups, N], float16, or float32 if `wide`
    const uint32_t* qzeros;   // [groups, N * bits / 32], true zero points; null: the middle code
    // float32 [16]: the whole numbers from -127 to 127 that 4-bit codes stand for. Null: a code
    // stands for itself minus its zero point.
    const float* book;
    int outputs, inputs, bits;
    int group;  // inputs that share a scale
    bool wide;
    int activation_bits;  // 8 or 16: of the codes that activations are rounded to
};

// Inputs that are multiplied before their sums are scaled: the largest number that fits into CHUNK
// and into the group, a multiple of SEGMENT in large groups.
inline int chunk_inputs(int group) {
    int size = group;
    if (group > CHUNK)
        for (size = CHUNK; group % size;) size -= SEGMENT;
    return size;
}

// Inputs that share a scale of the activations. Codes of 16 bits are fine enough for a whole chunk.
inline int segment_inputs(int group, int activation_bits) {
    const int chunk = chunk_inputs(group);
    return activation_bits == 8 && chunk > SEGMENT ? SEGMENT : chunk;
}

// M rows of activations as int8 or int16, x = code * scale, in blocks of rows that are multiplied
// at once. A block of R rows has, for each chunk:
//   codes   [chunk / 4, R] words of four inputs, or [chunk / 2, R] words of two if they are `wide`, in
//           the order in which `Layout` unpacks words of the weight. The blocks of a chunk follow one
//           another, as they are read.
//   scales     [1, R] if codes are `wide`, in the same order: a chunk is one segment
//   multiples  [segments of the chunk, R] in their place if not: scales as multiples of the chunk's unit,
//              in the format of `multiple_word`
// for each row of a chunk, [chunks, M]:
//   code_sums  the sums of the codes, or of the codes times their multiples
//   crossed    of codes that are `wide`: see linear_crossed.inl
//   units      in their place if not
struct Activations {
    int rows, inputs, segment, segments, chunk, chunks;
    bool wide;
    uint32_t* codes;
    float* scales;
    uint32_t* multiples;
    uint32_t* code_sums;
    uint32_t* crossed;
    float* units;

    // The place of the codes of `input` of the block that begins at row `top` and has `height` rows.
    size_t codes_place(int input, int top, int height) const {
        const size_t before = static_cast<size_t>(input / chunk) * chunk * rows;
        return before + static_cast<size_t>(top) * chunk + input % chunk * height;
    }

    // The place of the block's scales of the segment that begins at `input`.
    size_t scales_place(int input, int top, int height) const {
        return codes_place(input, top, height) / segment;
    }

    // The place of the block's sums of the chunk that begins at `input`.
    size_t sums_place(int input, int top) const {
        return static_cast<size_t>(input / chunk) * rows + top;
    }
};

inline size_t activations_bytes(int rows, int inputs, int group, int activation_bits) {
    const bool wide = activation_bits == 16;
    const int scales = inputs / segment_inputs(group, activation_bits);
    const int sums = inputs / chunk_inputs(group) * 2;  // and `crossed` or units
    return static_cast<size_t>(rows) * (inputs * (1 + wide) + 4 * (scales + sums));
}

// Blocks of nearly equal numbers of rows, at most `most` each.
struct Blocks {
    int rows, count;

    Blocks(int rows, int most) : rows(rows), count((rows + most - 1) / most) {}
    int start(int block) const { return static_cast<int>(static_cast<long>(rows) * block / count); }
};

// One of several weights that multiply the same activations, and the place of its results.
struct Product {
    Weight weight;
    const void* bias;  // [N] in the activations' dtype, or null
    void* out;         // [M, N]
    Dtype out_dtype;   // that of the activations, or float32 to keep the sums unrounded
};

inline Product product_of(const LinearRecord& record, void* out, Dtype out_dtype) {
    const Weight weight = {record.qweight,
                           record.scales,
                           record.qzeros,
                           record.book,
                           static_cast<int>(record.outputs),
                           static_cast<int>(record.inputs),
                           static_cast<int>(record.bits),
                           static_cast<int>(record.group),
                           record.wide_scales != 0,
                           static_cast<int>(record.activation_bits)};
    return {weight, record.bias, out, out_dtype};
}

struct InstructionSet;

// Multiplies x [M, K] by each weight. scratch: the largest `activations_bytes` of all weights.
void matmul(const InstructionSet& set, const Product* products, int count, const void* x,
            int rows, Dtype dtype, void* scratch, int threads);

constexpr int LARGEST_DENSE_ROWS = 256;  // rows that are multiplied at once

// Rows of activations for a bfloat16 weight: [M, K] floats. Each 2 * lanes inputs are
// reordered: first the even ones, then the odd ones, as the multiplication reads them.
struct DenseRows {
    const float* numbers;
    int rows, inputs, outputs;
};

// Multiplies x [M, K] by a bfloat16 weight [N, K] into out [M, N].
void matmul_dense(const InstructionSet& set, const uint16_t* weight, int outputs, int inputs,
                  const void* x, int rows, Dtype dtype, void* out, Dtype out_dtype, int threads);

}  // namespace glm4q
