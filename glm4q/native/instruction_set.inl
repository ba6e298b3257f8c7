// All kernels of one instruction set. Each of scalar.cpp, avx2.cpp ... includes this file once,
// inside its namespace, after it has defined V, the vectors and what can be done with them.

#include "parts.inl"
#include "registers.inl"
#include "rows.inl"
#include "dense.inl"
#include "linear_codes.inl"
#include "linear_activations.inl"
#include "linear_crossed.inl"
#include "linear_chunk.inl"
#include "linear_blocks.inl"
#include "linear.inl"
#include "vectors.inl"
#include "attention_floats.inl"
#include "attention_lanes.inl"
#include "attention_centers.inl"
#ifdef GLM4Q_DOTS_WORDS
#include "attention_words.inl"
#endif
#ifdef GLM4Q_DOTS_PAIRS
#include "attention_bfloat16.inl"
#include "attention_pairs.inl"
#include "attention_nibbles.inl"
#endif
#include "attention.inl"
#include "attention_ends.inl"
#include "gram.inl"
#include "rounding.inl"
#include "descent.inl"

constexpr InstructionSet instruction_set(const char* name) {
    return {name,   V::BLOCK_ROWS, V::LANES, PARTS, PANEL,      quantize, multiply, multiply_dense,
            attend, merge,         norm,     add,   gate,       add_bias, set_center, append,
            collect, gram,         pack_panel, round_rows, compensate, descend,
            subtract};
}
