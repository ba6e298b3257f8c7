// Decoder layers in one call: glm4q/layers/ in C++, step by step and rounding by rounding.
#pragma once

#include "attention.h"
#include "linear.h"
#include "rows.h"

namespace glm4q {

// As a table of 64-bit integers, made by glm4q/model/fused_layers.py.
struct LinearEntry {
    int64_t qweight, scales, qzeros, book, bias, outputs, inputs, bits, group, wide;
};

struct LayerEntry {
    LinearEntry q, k, v, o, gate_up, down;
    int64_t input_norm, feed_forward_norm;
    int64_t attended_norm, fed_norm;  // of glm4; else 0
    int64_t key_codes, key_scales, key_centers, value_codes, value_scales, value_centers;
};

// The buffers of a step, by the names of calculator/memory/workspace.py.
struct StepEntry {
    void *hidden_states, *normed, *q, *k, *v;
    float *queries, *mixed, *keys;
    int64_t keys_bytes;
    void *attended, *delta, *gate_and_up, *gated, *scratch;
    float* rotation;
    double* frequencies;
};

struct Shape {
    int batch, tokens, hidden, inner, heads, kv_heads, head_size, pairs, room;
    KVFormat key_format, value_format;
    Dtype dtype;
    float eps;
    double theta;  // of the rotation
};

// x / rms(x) * weight, rows of `size`.
void norm(const Path& path, const void* x, const void* weight, float eps, int rows, int size,
          Dtype dtype, void* out, int threads);

// The hidden states through all layers; the new tokens into the cache, where each sequence lies in
// its place and has its length with them.
void run_layers(const Path& path, const LayerEntry* layers, int count, const Shape& shape,
                const StepEntry& step, const int64_t* lengths, const int64_t* places, int threads);

}  // namespace glm4q
