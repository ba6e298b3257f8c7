// Checks of records. Python checks every tensor before it takes an address; this is the second
// look, at what the record itself says. So an empty record raises ValueError too, and writes
// nothing.
#include "record_checks.h"

#include <initializer_list>

#include "constants.h"
#include "linear.h"

namespace glm4q {
namespace {

constexpr int64_t LARGEST_SIZE = 1 << 26;  // products with a few bytes still fit into an int

bool all_positive(std::initializer_list<int64_t> sizes) {
    for (const int64_t size : sizes)
        if (size < 1 || size > LARGEST_SIZE) return false;
    return true;
}

bool all_given(std::initializer_list<const void*> addresses) {
    for (const void* address : addresses)
        if (!address) return false;
    return true;
}

bool is_dtype(int64_t number) { return number == BFLOAT16 || number == FLOAT32; }

bool are_bits(int64_t bits) { return bits == 4 || bits == 8; }

const char* fault(const CacheRecord& cache, int64_t head_size) {
    if (!cache.codes) return "the cache has no address";
    if (cache.format < KV_FLOAT32 || cache.format > KV_INT4) return "no such cache format";
    if (cache.format >= KV_INT8 && !cache.scales) return "the cache's scales have no address";
    if (cache.format == KV_INT4 && head_size % KV_GROUP)
        return "heads of an INT4 cache are no multiple of 64 numbers";
    if (cache.centers && cache.format != KV_INT4) return "only an INT4 cache has centres";
    return nullptr;
}

const char* fault_of_heads(int64_t head_size, int64_t pairs) {
    if (!all_positive({head_size, pairs})) return "a size of the heads is not positive";
    if (head_size > LARGEST_HEAD) return "the heads are too large";
    if (2 * pairs > head_size) return "more numbers are rotated than a head has";
    return nullptr;
}

int64_t scratch_of(const LinearRecord& linear, int64_t rows) {
    return static_cast<int64_t>(activations_bytes(static_cast<int>(rows),
                                                  static_cast<int>(linear.inputs),
                                                  static_cast<int>(linear.group),
                                                  static_cast<int>(linear.activation_bits)));
}

}  // namespace

const char* fault(const LinearRecord& linear) {
    if (!all_given({linear.qweight, linear.scales})) return "a weight has no address";
    if (!all_positive({linear.outputs, linear.inputs, linear.group}))
        return "a size of the weight is not positive";
    if (!are_bits(linear.bits)) return "the weight has neither 4 nor 8 bits";
    if (linear.inputs % 8 || linear.inputs % linear.group || linear.group % 8)
        return "the weight's groups are no multiple of 8 inputs";
    if (linear.group > SEGMENT && linear.group % SEGMENT)
        return "the weight's groups are no multiple of 32 inputs";
    if (linear.activation_bits != 8 && linear.activation_bits != 16)
        return "activations have neither 8 nor 16 bits";
    if (linear.book && linear.bits != 4) return "only 4-bit codes have a book";
    return nullptr;
}

const char* fault(const MatmulRecord& call) {
    if (const char* text = fault(call.weight)) return text;
    if (!all_given({call.x, call.out, call.scratch})) return "a tensor has no address";
    if (!all_positive({call.rows})) return "there are no rows";
    if (!is_dtype(call.dtype) || !is_dtype(call.out_dtype)) return "no such dtype";
    if (call.scratch_bytes < scratch_of(call.weight, call.rows)) return "the scratch is too small";
    return nullptr;
}

const char* fault(const DenseMatmulRecord& call) {
    if (!all_given({call.weight, call.x, call.out})) return "a tensor has no address";
    if (!all_positive({call.outputs, call.inputs, call.rows})) return "a size is not positive";
    if (!is_dtype(call.dtype) || !is_dtype(call.out_dtype)) return "no such dtype";
    if (call.inputs > LARGEST_DENSE_NUMBERS) return "a row has too many activations";
    return nullptr;
}

const char* fault(const NormRecord& call) {
    if (!all_given({call.x, call.weight, call.out})) return "a tensor has no address";
    if (!all_positive({call.rows, call.size})) return "a size is not positive";
    return is_dtype(call.dtype) ? nullptr : "no such dtype";
}

const char* fault(const AttentionRecord& call) {
    if (!all_positive({call.batch, call.tokens, call.kv_heads, call.shared, call.room}))
        return "a size is not positive";
    if (const char* text = fault_of_heads(call.head_size, call.pairs)) return text;
    if (const char* text = fault(call.keys, call.head_size)) return text;
    if (const char* text = fault(call.values, call.head_size)) return text;
    if (!all_given({call.frequencies, call.queries, call.mixed, call.partial_sums}))
        return "a buffer has no address";
    if (call.partial_sums_bytes < 0) return "the room for partial sums is negative";
    if (call.length < call.tokens || call.length > call.room)
        return "the cache has no room for so many tokens";
    return nullptr;
}

const char* fault(const LayerRecord& layer, const StepRecord& step) {
    const int64_t rows = step.decoding + step.batch * step.tokens;
    const int64_t queries = step.heads * step.head_size;
    const int64_t keys = step.kv_heads * step.head_size;
    const struct {
        const LinearRecord& linear;
        int64_t outputs, inputs;
    } linears[] = {{layer.q, queries, step.hidden},        {layer.k, keys, step.hidden},
                   {layer.v, keys, step.hidden},           {layer.o, step.hidden, queries},
                   {layer.gate_up, 2 * step.inner, step.hidden},
                   {layer.down, step.hidden, step.inner}};
    for (const auto& [linear, outputs, inputs] : linears) {
        if (const char* text = fault(linear)) return text;
        if (linear.outputs != outputs || linear.inputs != inputs)
            return "a weight does not have the layer's shape";
        if (step.scratch_bytes < scratch_of(linear, rows)) return "the scratch is too small";
    }
    if (!all_given({layer.input_norm, layer.feed_forward_norm})) return "a norm has no address";
    if (const char* text = fault(layer.keys, step.head_size)) return text;
    return fault(layer.values, step.head_size);
}

const char* fault(const StepRecord& step) {
    if (!all_positive({step.batch, step.tokens, step.hidden, step.inner, step.heads, step.kv_heads,
                       step.room, step.cache_rows}))
        return "a size is not positive";
    if (const char* text = fault_of_heads(step.head_size, step.pairs)) return text;
    if (step.decoding < 0 || step.decoding > LARGEST_SIZE)
        return "the number of decoding sequences is negative or too large";
    if (!all_positive({step.batch * step.tokens, step.decoding + step.batch * step.tokens}))
        return "there are too many tokens";
    // Ranges are counted for FEW_TOKENS tokens of a sequence, and one token needs a part of that.
    if (step.decoding_sums_bytes < 0 ||
        (step.decoding && step.decoding_sums_bytes / FEW_TOKENS > step.partial_sums_bytes))
        return "the room for partial sums is too small for the decoding sequences";
    if (step.heads % step.kv_heads) return "the query heads are no multiple of the key heads";
    if (!is_dtype(step.dtype)) return "no such dtype";
    if (!all_given({step.hidden_states, step.normed, step.q, step.k, step.v, step.queries,
                    step.mixed, step.partial_sums, step.attended, step.delta, step.gate_up,
                    step.gated, step.scratch, step.rotation, step.frequencies}))
        return "a buffer has no address";
    return step.partial_sums_bytes < 0 ? "the room for partial sums is negative" : nullptr;
}

const char* fault(const GramRecord& call) {
    if (!all_given({call.left, call.right, call.out, call.scratch}))
        return "a tensor has no address";
    if (!all_positive({call.left_columns, call.right_columns, call.tokens}))
        return "a size is not positive";
    if (call.stride < call.right_columns) return "rows of the result overlap";
    return call.scratch_bytes < 0 ? "the scratch is too small" : nullptr;
}

const char* fault(const RoundingRecord& call) {
    if (!all_given({call.weight, call.clips, call.words, call.scales, call.zero_points}))
        return "a tensor has no address";
    if (!all_positive({call.outputs, call.inputs, call.groups, call.clip_count}))
        return "a size is not positive";
    if (!is_dtype(call.dtype)) return "no such dtype";
    if (!are_bits(call.bits)) return "codes have neither 4 nor 8 bits";
    if (call.inputs % call.groups || call.inputs / call.groups * call.bits % WORD_BITS)
        return "groups do not fill whole words";
    return call.stride < call.outputs ? "rows of the result overlap" : nullptr;
}

const char* fault(const BlockRecord& block) {
    if (!all_positive({block.outputs, block.inputs, block.groups}))
        return "a size is not positive";
    if (!are_bits(block.bits)) return "codes have neither 4 nor 8 bits";
    if (block.inputs % block.groups) return "groups are not of one size";
    if (block.first < 0 || block.first >= block.last || block.last > block.inputs)
        return "the weight has no such inputs";
    return block.last - block.first > LARGEST_BLOCK ? "the block has too many inputs" : nullptr;
}

const char* fault(const CompensationRecord& call) {
    if (const char* text = fault(call.block)) return text;
    return all_given({call.rows, call.left, call.root, call.group, call.scales, call.zero_points,
                      call.codes, call.errors})
               ? nullptr
               : "a tensor has no address";
}

const char* fault(const DescentRecord& call) {
    if (const char* text = fault(call.block)) return text;
    return all_given({call.centered, call.scales, call.zero_points, call.slope, call.hessian,
                      call.change})
               ? nullptr
               : "a tensor has no address";
}

const char* fault(const SubtractionRecord& call) {
    if (!all_given({call.change, call.matrix, call.out})) return "a tensor has no address";
    if (!all_positive({call.rows, call.terms, call.columns})) return "a size is not positive";
    return call.first < 0 || call.first >= call.last || call.last > call.columns
               ? "the result has no such columns"
               : nullptr;
}

}  // namespace glm4q
