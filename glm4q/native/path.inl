// Everything that a path offers. Included once by each, inside its namespace, after V.

#include "parts.inl"
#include "rows.inl"
#include "linear.inl"
#include "vectors.inl"
#include "attention_floats.inl"
#include "attention_centers.inl"
#ifdef GLM4Q_DOTS_WORDS
#include "attention_words.inl"
#endif
#include "attention.inl"
#include "attention_ends.inl"
#include "gram.inl"
#include "rounding.inl"
#include "descent.inl"

constexpr Path path(const char* name) {
    return {name,   V::BLOCK_ROWS, V::LANES, PARTS, PANEL,      quantize, multiply, multiply_dense,
            attend, merge,         norm,     add,   gate,       add_bias, set_center, append,
            collect, gram,         pack_panel, round_rows, compensate, descend};
}
