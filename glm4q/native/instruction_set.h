// The kernels of one instruction set. Each of scalar.cpp, avx2.cpp, avx512.cpp, avx512_bf16.cpp and
// neon.cpp compiles the same sources for another one.
#pragma once

#include "attention.h"
#include "gram.h"
#include "linear.h"
#include "rounding.h"
#include "rows.h"

namespace glm4q {

struct InstructionSet {
    const char* name;
    int block_rows;  // the most rows of activations that are multiplied at once
    int lanes;       // numbers of a vector
    int parts;       // groups or rows that are rounded side by side
    int panel;       // columns of a Gram matrix that are summed at once
    // Writes the codes of rows `first` to `last`, one block of x [M, K], into `to`.
    void (*quantize)(const void* x, Dtype dtype, int bits, const Activations& to, int first,
                     int last);
    // Writes outputs `start` to `stop` into out [M, N]; start is a multiple of lanes.
    void (*multiply)(const Weight& weight, const Activations& x, void* out, Dtype dtype, int start,
                     int stop);
    // Writes outputs `start` to `stop` of a bfloat16 weight [N, K] into out [M, N].
    void (*multiply_dense)(const uint16_t* weight, const DenseRows& x, void* out, Dtype dtype,
                           int start, int stop);
    void (*attend)(const Attention& attention, const AttentionPiece& piece);
    void (*merge)(const Attention& attention, int splits, int head);
    void (*norm)(const Rows& rows, const void* x, const void* weight, float eps, void* out);
    void (*add)(const Rows& rows, const void* x, void* to);
    void (*gate)(const Rows& rows, const void* gate_and_up, void* out);
    void (*add_bias)(const Rows& rows, const void* bias, void* to);
    void (*set_center)(const Attention& attention, const Fresh& fresh, int head);
    void (*append)(const Attention& attention, const Fresh& fresh, int token);
    void (*collect)(const Attention& attention, int token, void* out, Dtype dtype);
    void (*gram)(const Panels& left, const Panels& right, int panel, int last,
                 const Sums& out);
    void (*pack_panel)(const uint16_t* x, int tokens, int columns, int first, uint32_t* words);
    void (*round_rows)(const Rounding& rounding, void* scratch, int first, int count);
    void (*compensate)(const Compensation& block, int first, int last);
    void (*descend)(const Descent& block, int first, int last);
    void (*subtract)(const Subtraction& sums, const Terms& terms, int first, int last);
};

// The machine's instruction sets are numbered from 1 on, best first. Null where there are no more.
const InstructionSet* instruction_set_of(int number);

// The number of the named one, or of the best one for "auto"; 0 if this machine cannot run it.
int find_instruction_set(const char* name);

}  // namespace glm4q
