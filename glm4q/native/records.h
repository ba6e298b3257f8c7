// The records that Python passes to the extension, one for each call.
//
// glm4q/kernels/cpu/records.py declares the same records; a test compares names, order and types of
// all fields. Every field is an address, an int64_t or a double, so a record has no padding.
#pragma once

#include <cstdint>

namespace glm4q {

// Checksum of the records and of constants.h as records.py declares them. Python does not use an
// extension with another one: it was built from other sources.
constexpr uint32_t RECORDS_CHECKSUM = 0xb4eadd6b;

// A quantized weight of a linear layer: see `Weight` in linear.h.
struct LinearRecord {
    const uint32_t* qweight;
    const void* scales;
    const uint32_t* qzeros;
    const float* book;
    const void* bias;
    int64_t outputs;
    int64_t inputs;
    int64_t bits;
    int64_t group;
    int64_t wide_scales;
    int64_t activation_bits;
};
static_assert(sizeof(LinearRecord) == 11 * 8, "records.py declares 11 fields");

struct MatmulRecord {
    LinearRecord weight;
    const void* x;
    int64_t rows;
    int64_t dtype;
    void* out;
    int64_t out_dtype;
    void* scratch;
    int64_t scratch_bytes;
};
static_assert(sizeof(MatmulRecord) == 18 * 8, "records.py declares 18 fields");

struct DenseMatmulRecord {
    const uint16_t* weight;
    int64_t outputs;
    int64_t inputs;
    const void* x;
    int64_t rows;
    int64_t dtype;
    void* out;
    int64_t out_dtype;
};
static_assert(sizeof(DenseMatmulRecord) == 8 * 8, "records.py declares 8 fields");

struct NormRecord {
    const void* x;
    const void* weight;
    void* out;
    int64_t rows;
    int64_t size;
    int64_t dtype;
    double eps;
};
static_assert(sizeof(NormRecord) == 7 * 8, "records.py declares 7 fields");

// The cached keys or values of one layer: see `CachedVectors` in attention.h.
struct CacheRecord {
    int64_t format;
    uint8_t* codes;
    uint16_t* scales;
    float* centers;
};
static_assert(sizeof(CacheRecord) == 4 * 8, "records.py declares 4 fields");

struct AttentionRecord {
    int64_t batch;
    int64_t tokens;
    int64_t kv_heads;
    int64_t shared;
    int64_t head_size;
    int64_t room;
    int64_t length;
    CacheRecord keys;
    CacheRecord values;
    const double* frequencies;
    int64_t pairs;
    double attention_factor;
    float* queries;
    float* mixed;
    float* partial_sums;
    int64_t partial_sums_bytes;
};
static_assert(sizeof(AttentionRecord) == 22 * 8, "records.py declares 22 fields");

// One decoder layer: its weights and its part of the cache. A norm that the model lacks is null.
struct LayerRecord {
    LinearRecord q;
    LinearRecord k;
    LinearRecord v;
    LinearRecord o;
    LinearRecord gate_up;
    LinearRecord down;
    const void* input_norm;
    const void* feed_forward_norm;
    const void* attended_norm;
    const void* fed_norm;
    CacheRecord keys;
    CacheRecord values;
};
static_assert(sizeof(LayerRecord) == 78 * 8, "records.py declares 78 fields");

// A step through all layers. The buffers have the names of calculator/memory/workspace.py. First come
// the rows of `decoding` sequences that have one new token each, then those of `batch` sequences
// that have `tokens` new tokens each. decoding_sums_bytes is the room for partial sums that a step of
// the decoding sequences alone has.
struct StepRecord {
    int64_t batch;
    int64_t tokens;
    int64_t decoding;
    int64_t decoding_sums_bytes;
    int64_t hidden;
    int64_t inner;
    int64_t heads;
    int64_t kv_heads;
    int64_t head_size;
    int64_t pairs;
    int64_t room;
    int64_t cache_rows;
    int64_t dtype;
    int64_t partial_sums_bytes;
    int64_t scratch_bytes;
    double eps;
    double theta;
    double attention_factor;
    void* hidden_states;
    void* normed;
    void* q;
    void* k;
    void* v;
    float* queries;
    float* mixed;
    float* partial_sums;
    void* attended;
    void* delta;
    void* gate_up;
    void* gated;
    void* scratch;
    float* rotation;
    double* frequencies;
};
static_assert(sizeof(StepRecord) == 33 * 8, "records.py declares 33 fields");

struct GramRecord {
    const uint16_t* left;
    int64_t left_columns;
    const uint16_t* right;
    int64_t right_columns;
    int64_t tokens;
    float* out;
    int64_t stride;
    uint32_t* scratch;
    int64_t scratch_bytes;
};
static_assert(sizeof(GramRecord) == 9 * 8, "records.py declares 9 fields");

struct RoundingRecord {
    const void* weight;
    int64_t dtype;
    const float* importance;
    int64_t outputs;
    int64_t inputs;
    int64_t groups;
    int64_t bits;
    int64_t symmetric;
    const float* clips;
    int64_t clip_count;
    uint32_t* words;
    uint16_t* scales;
    uint8_t* zero_points;
    int64_t stride;
};
static_assert(sizeof(RoundingRecord) == 14 * 8, "records.py declares 14 fields");

// The inputs `first` to `last` of a weight [N, K]: see `Block` in rounding.h.
struct BlockRecord {
    int64_t outputs;
    int64_t inputs;
    int64_t groups;
    int64_t bits;
    int64_t first;
    int64_t last;
};
static_assert(sizeof(BlockRecord) == 6 * 8, "records.py declares 6 fields");

struct CompensationRecord {
    BlockRecord block;
    const float* rows;
    float* left;
    const float* root;
    const int32_t* group;
    const uint16_t* scales;
    const uint8_t* zero_points;
    uint8_t* codes;
    float* errors;
};
static_assert(sizeof(CompensationRecord) == 14 * 8, "records.py declares 14 fields");

struct DescentRecord {
    BlockRecord block;
    float* centered;
    float* scales;
    const uint8_t* zero_points;
    const float* slope;
    const float* hessian;
    int64_t rescales;
    float* change;
};
static_assert(sizeof(DescentRecord) == 13 * 8, "records.py declares 13 fields");

struct SubtractionRecord {
    const float* change;
    const float* matrix;
    float* out;
    int64_t rows;
    int64_t terms;
    int64_t columns;
    int64_t first;
    int64_t last;
};
static_assert(sizeof(SubtractionRecord) == 8 * 8, "records.py declares 8 fields");

}  // namespace glm4q
