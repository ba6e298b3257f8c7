// Rows of numbers, and what is done to each number or row.
#pragma once

#include <cstddef>
#include <cstdint>

namespace glm4q {

enum Dtype : int { BFLOAT16 = 0, FLOAT32 = 1 };

inline size_t bytes_of(Dtype dtype) { return dtype == FLOAT32 ? 4 : 2; }

struct Rows {
    int first, last;     // of the matrix
    int size;            // numbers of a row
    Dtype dtype;
    int start, stop;     // columns, where not the whole row is meant
};

}  // namespace glm4q
