// Rows of numbers, and their dtype.
#pragma once

#include <cstddef>
#include <cstdint>

#include "constants.h"

namespace glm4q {

inline size_t bytes_of(Dtype dtype) { return dtype == FLOAT32 ? 4 : 2; }

struct Rows {
    int first, last;  // rows of the matrix
    int size;         // numbers of a row
    Dtype dtype;
    int start, stop;  // columns, for functions that take a part of each row
};

}  // namespace glm4q
