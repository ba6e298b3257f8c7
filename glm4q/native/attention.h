// Attention of the newest T tokens of each sequence to all that are in the cache.
#pragma once

#include <cstddef>
#include <cstdint>

#include "rows.h"

namespace glm4q {

// How cached vectors lie: glm4q/kv/, one file each.
enum KVFormat : int { KV_FLOAT32 = 0, KV_BFLOAT16 = 1, KV_INT8 = 2, KV_INT4 = 3 };

// Keys or values of a layer.
struct Side {
    KVFormat format;
    uint8_t* codes;    // [B, Hkv, room] vectors
    uint16_t* scales;  // float16 beside each, where there are codes
    float* centers;    // [B, Hkv, D], what keys are kept less of: glm4q/memory/kv/centers.py; else null
};

constexpr int MOST_HEAD_SIZE = 256;

struct Attention {
    int batch, tokens, kv_heads, shared, size, room;  // B, T, Hkv, G, D
    int length;               // tokens of the longest sequence in the cache, new ones among them
    const int64_t* lengths;   // of each sequence [B]; null where they are alike
    const int64_t* places;    // in the cache of each sequence [B]; null where they lie in order
    Side keys, values;
    const double* frequencies;  // of the rotation [pairs], where keys have centres
    int pairs;
    float* queries;           // [B, Hkv, G * T, D]
    float* mixed;             // the same
    float* partials;          // room for what ranges of the cache come to
    size_t partials_room;     // in floats

    int rows() const { return shared * tokens; }
    int cached(int sequence) const {
        return lengths ? static_cast<int>(lengths[sequence]) : length;
    }
    // Of a head's vectors in the cache, or of its centre.
    size_t place(int head) const {
        const int64_t sequence = places ? places[head / kv_heads] : head / kv_heads;
        return static_cast<size_t>(sequence) * kv_heads + head % kv_heads;
    }
    // Sums of a range, and behind them the largest score and the sum of weights.
    size_t partial_size() const { return static_cast<size_t>(size) + 2; }
};

// Rows of one KV head, and the range of the cache that is looked at.
struct AttentionPiece {
    int head;                // of B * Hkv queries
    int first, last;         // rows
    int split, splits;
};

// New vectors on their way to the cache, in the activations' dtype.
struct Fresh {
    const void *q, *k, *v;   // [B, T, heads, D]
    Dtype dtype;
    const float *cos, *sin;  // [B, T, pairs]
    int pairs;
};

struct Path;

// queries -> mixed, from a cache that holds the new tokens already.
void attend(const Path& path, const Attention& attention, int threads);

}  // namespace glm4q
