// Sums over tokens of products of two inputs: the Gram matrices that calibration is about.
#pragma once

#include <cstddef>
#include <cstdint>

namespace glm4q {

struct Path;

// Tokens two by two, so that an instruction can sum a pair's products: of each column a word of two
// bfloat16. Columns lie in panels that a core's nearest cache holds:
//   words  [panels, token pairs, panel], zeros beyond the last column and token
struct Panels {
    const uint32_t* words;
    int columns, pairs;
};

// Tokens of a pass: a panel of them stays in a core's cache.
constexpr int MOST_PAIRS = 256;

// Words of scratch for `gram`.
size_t gram_scratch(const Path& path, int left_columns, int right_columns, int tokens);

// out [M, K], float32, += left^T right, from bfloat16 left [tokens, M] and right [tokens, K]. Where
// left is right, the sums are symmetric, and half of them are copied.
void gram(const Path& path, const uint16_t* left, int left_columns, const uint16_t* right,
          int right_columns, int tokens, float* out, uint32_t* scratch, int threads);

}  // namespace glm4q
