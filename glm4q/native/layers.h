// Decoder layers in one call: glm4q/model/ in C++, step by step and rounding by rounding.
#pragma once

#include <cstdint>
#include <vector>

#include "attention.h"
#include "linear.h"
#include "records.h"
#include "rows.h"

namespace glm4q {

// out = x / rms(x) * weight, rows of `size` numbers.
void norm(const InstructionSet& set, const void* x, const void* weight, float eps, int rows,
          int size, Dtype dtype, void* out, int threads);

// Takes the step's hidden states through all layers and appends the new tokens to the cache.
// lengths: tokens of each sequence in the cache, new ones included. places: the place of each
// sequence in the cache.
void run_layers(const InstructionSet& set, const std::vector<LayerRecord>& layers,
                const StepRecord& step, const std::vector<int64_t>& lengths,
                const std::vector<int64_t>& places, int threads);

}  // namespace glm4q
