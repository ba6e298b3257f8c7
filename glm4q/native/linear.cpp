#include "linear.h"

#include <algorithm>

#include "numbers.h"
#include "instruction_set.h"
#include "threads.h"

namespace glm4q {
namespace {

// The most outputs of one piece of work: small, so that all threads finish at about the same time.
constexpr int PIECE_OUTPUTS = 4096;

int piece_outputs(int outputs, int threads, int lanes) {
    int pieces = (outputs + PIECE_OUTPUTS - 1) / PIECE_OUTPUTS;
    pieces = (pieces + threads - 1) / threads * threads;
    const int size = (outputs + pieces - 1) / pieces;
    return (size + lanes - 1) / lanes * lanes;
}

bool take_same_codes(const Weight& one, const Weight& other) {
    return one.bits == other.bits && one.activation_bits == other.activation_bits &&
           chunk_inputs(one.group) == chunk_inputs(other.group);
}

Activations activations_in(const Weight& weight, int rows, void* scratch) {
    Activations activations;
    activations.rows = rows;
    activations.inputs = weight.inputs;
    activations.segment = segment_inputs(weight.group, weight.activation_bits);
    activations.segments = weight.inputs / activations.segment;
    activations.chunk = chunk_inputs(weight.group);
    activations.chunks = weight.inputs / activations.chunk;
    activations.wide = weight.activation_bits == 16;
    activations.codes = static_cast<uint32_t*>(scratch);
    const size_t words =
        static_cast<size_t>(rows) * weight.inputs * (weight.activation_bits / 8) / 4;
    activations.multiples = activations.codes + words;
    activations.scales = reinterpret_cast<float*>(activations.multiples);
    activations.code_sums =
        activations.multiples + static_cast<size_t>(rows) * activations.segments;
    activations.crossed =
        activations.code_sums + static_cast<size_t>(rows) * activations.chunks;
    activations.units = reinterpret_cast<float*>(activations.crossed);
    return activations;
}

// Computes products that use the same codes of the activations as one job.
void matmul_alike(const InstructionSet& set, const Product* products, int count, const void* x,
                  int rows, Dtype dtype, void* scratch, int threads) {
    const Activations codes = activations_in(products[0].weight, rows, scratch);
    const Blocks blocks(rows, set.block_rows);
    parallel(threads, blocks.count, [&](int block) {
        set.quantize(x, dtype, products[0].weight.bits, codes, blocks.start(block),
                      blocks.start(block + 1));
    });
    int outputs = 0;
    for (int each = 0; each < count; each++) outputs += products[each].weight.outputs;
    const int size = piece_outputs(outputs, threads, set.lanes);
    const auto pieces = [&](int each) { return (products[each].weight.outputs + size - 1) / size; };
    int total = 0;
    for (int each = 0; each < count; each++) total += pieces(each);
    parallel(threads, total, [&](int piece) {
        int each = 0;
        for (; piece >= pieces(each); each++) piece -= pieces(each);
        const Product& product = products[each];
        const int start = piece * size, all = product.weight.outputs;
        const int stop = std::min(start + size, all);
        set.multiply(product.weight, codes, product.out, product.out_dtype, start, stop);
        if (product.bias)
            set.add_bias({0, rows, all, product.out_dtype, start, stop}, product.bias, product.out);
    });
}

// Writes a row of activations as floats in the order of `DenseRows`.
void reorder_row(const void* x, Dtype dtype, size_t from, int inputs, int lanes, float* to) {
    const int step = 2 * lanes, whole = inputs / step * step;
    for (int at = 0; at < inputs; at++) {
        const float number = dtype == FLOAT32
                                 ? static_cast<const float*>(x)[from + at]
                                 : from_bfloat16(static_cast<const uint16_t*>(x)[from + at]);
        const int place = at % step / 2 + at % 2 * lanes + at / step * step;
        to[at < whole ? place : at] = number;
    }
}

}  // namespace

void matmul(const InstructionSet& set, const Product* products, int count, const void* x,
            int rows, Dtype dtype, void* scratch, int threads) {
    for (int first = 0, last; first < count; first = last) {
        for (last = first + 1; last < count; last++)
            if (!take_same_codes(products[first].weight, products[last].weight)) break;
        matmul_alike(set, products + first, last - first, x, rows, dtype, scratch, threads);
    }
}

void matmul_dense(const InstructionSet& set, const uint16_t* weight, int outputs, int inputs,
                  const void* x, int rows, Dtype dtype, void* out, Dtype out_dtype, int threads) {
    alignas(64) float numbers[LARGEST_DENSE_NUMBERS];
    const Blocks blocks(rows, std::min(LARGEST_DENSE_ROWS, LARGEST_DENSE_NUMBERS / inputs));
    const int size = piece_outputs(outputs, threads, 4);
    for (int block = 0; block < blocks.count; block++) {
        const int first = blocks.start(block), last = blocks.start(block + 1);
        parallel(threads, last - first, [&](int row) {
            reorder_row(x, dtype, static_cast<size_t>(first + row) * inputs, inputs, set.lanes,
                        numbers + static_cast<size_t>(row) * inputs);
        });
        const DenseRows dense = {numbers, last - first, inputs, outputs};
        const size_t place = static_cast<size_t>(first) * outputs * bytes_of(out_dtype);
        parallel(threads, (outputs + size - 1) / size, [&](int piece) {
            set.multiply_dense(weight, dense, static_cast<uint8_t*>(out) + place, out_dtype,
                               piece * size, std::min((piece + 1) * size, outputs));
        });
    }
}

}  // namespace glm4q
