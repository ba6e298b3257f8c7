// Attention of the newest T tokens of each sequence to all that are in the cache.
#pragma once

#include <cstddef>
#include <cstdint>

#include "records.h"
#include "rows.h"

namespace glm4q {

// The cached keys or values of a layer.
struct CachedVectors {
    KVFormat format;
    uint8_t* codes;    // [B, Hkv, room] vectors
    uint16_t* scales;  // float16 scales of each vector, for INT8 and INT4
    // [B, Hkv, D]: keys are stored minus these (glm4q/memory/kv/centers.py). Null if there are none.
    float* centers;
};

inline CachedVectors cached_vectors(const CacheRecord& record) {
    return {static_cast<KVFormat>(record.format), record.codes, record.scales, record.centers};
}

struct Attention {
    int batch, tokens, kv_heads, shared, size, room;  // B, T, Hkv, G, D
    int length;               // tokens of the longest sequence in the cache, new ones included
    const int64_t* lengths;   // length of each sequence [B]; null if all have the same length
    const int64_t* places;    // place of each sequence in the cache [B]; null if they are in order
    CachedVectors keys, values;
    const double* frequencies;  // of the rotation [pairs]; read only if keys have centres
    int pairs;
    double attention_factor;  // YaRN's factor of the cos and sin of all positions; 1 without YaRN
    float* queries;           // [B, Hkv, G * T, D]
    float* mixed;             // [B, Hkv, G * T, D]
    float* partials;          // room for the partial results of ranges of the cache
    size_t partials_room;     // numbers of that room

    int rows() const { return shared * tokens; }
    int cached(int sequence) const {
        return lengths ? static_cast<int>(lengths[sequence]) : length;
    }
    // Index of a head's vectors in the cache, and of its centre.
    size_t place(int head) const {
        const int64_t sequence = places ? places[head / kv_heads] : head / kv_heads;
        return static_cast<size_t>(sequence) * kv_heads + head % kv_heads;
    }
    // Numbers of a partial result: the sums of a range, its largest score, and its sum of weights.
    size_t partial_size() const { return static_cast<size_t>(size) + 2; }
};

// A piece of the work: some rows of one KV head, and one range of the cache.
struct AttentionPiece {
    int head;           // from 0 to B * Hkv - 1
    int first, last;    // rows
    int split, splits;  // which range, and how many there are in this step
    int most;           // ranges that the cache of any row is divided into, at most
};

constexpr int LEAST_RANGE = 512;

// Cached tokens of a range, for a row that sees `seen` of them. It depends on nothing else, so that
// a row's sums have the same bits whatever runs beside it: one more token changes the size of the
// ranges only where it passes `most` times a power of two.
inline int range_tokens(int seen, int most) {
    int tokens = LEAST_RANGE;
    while (static_cast<int64_t>(tokens) * most < seen) tokens *= 2;
    return tokens;
}

// New vectors that are to be appended to the cache, in the activations' dtype.
struct Fresh {
    const void *q, *k, *v;   // [B, T, heads, D]
    Dtype dtype;
    const float *cos, *sin;  // [B, T, pairs]
    int pairs;
};

struct InstructionSet;

// Attends from `queries` to `mixed`. The new tokens must be in the cache already.
void attend(const InstructionSet& set, const Attention& attention, int threads);

}  // namespace glm4q
