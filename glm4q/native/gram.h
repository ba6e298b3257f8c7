// Gram matrices: sums over tokens of products of two inputs. Calibration collects them.
#pragma once

#include <cstddef>
#include <cstdint>

namespace glm4q {

struct InstructionSet;

// Pairs of tokens, so that one instruction sums the products of a pair: a word of each column has
// the bfloat16 numbers of two tokens. Columns are grouped in panels that fit into a core's first
// cache.
//   words  [panels, token pairs, panel], zeros beyond the last column and token
struct Panels {
    const uint32_t* words;
    int columns, pairs;
};

// Pairs of tokens that are summed in one pass: a panel of them stays in a core's cache.
constexpr int MOST_PAIRS = 256;

// Words of scratch that `gram` needs.
size_t gram_scratch(const InstructionSet& set, int left_columns, int right_columns, int tokens);

// Sums of products, [rows, columns]: float32, in rows that are `stride` numbers from each other.
struct Sums {
    float* numbers;
    size_t stride;
};

// Adds left^T right to out, [M, K]; left: bfloat16 [tokens, M], right: bfloat16 [tokens, K]. If
// left is right, the sums are symmetric, and half of them are copied.
void gram(const InstructionSet& set, const uint16_t* left, int left_columns, const uint16_t* right,
          int right_columns, int tokens, const Sums& out, uint32_t* scratch, int threads);

}  // namespace glm4q
