#include "layers.h"

#include <algorithm>
#include <cmath>

#include "instruction_set.h"
#include "threads.h"

namespace glm4q {
namespace {

// Calls `callable` for ranges of rows, on several threads.
template <class Callable>
void each_of(int threads, int rows, int size, Dtype dtype, const Callable& callable) {
    const int pieces = std::min(rows, 4 * threads);
    parallel(threads, pieces, [&](int piece) {
        const Blocks blocks(rows, (rows + pieces - 1) / pieces);
        if (piece < blocks.count)
            callable(Rows{blocks.start(piece), blocks.start(piece + 1), size, dtype, 0, size});
    });
}

// Rows of a step: one for each new token.
int rows_of(const StepRecord& step) {
    return static_cast<int>(step.decoding + step.batch * step.tokens);
}

// The position of each new token, in the order of the rows.
std::vector<int64_t> positions_of(const StepRecord& step, const int64_t* lengths) {
    std::vector<int64_t> positions;
    for (int64_t sequence = 0; sequence < step.decoding + step.batch; sequence++) {
        const int64_t tokens = sequence < step.decoding ? 1 : step.tokens;
        for (int64_t token = 0; token < tokens; token++)
            positions.push_back(lengths[sequence] - tokens + token);
    }
    return positions;
}

// Cos and sin [2, rows, pairs] at the positions of the new tokens: glm4q/model/rope.py. If positions
// are scaled, theta is 0, and the caller has filled these tables and the frequencies.
void fill_rotation(const StepRecord& step, const int64_t* lengths, int threads) {
    if (step.theta == 0) return;
    const int pairs = static_cast<int>(step.pairs), rows = rows_of(step);
    const std::vector<int64_t> positions = positions_of(step, lengths);
    for (int pair = 0; pair < pairs; pair++)
        step.frequencies[pair] = std::pow(step.theta, -static_cast<double>(pair) / pairs);
    each_of(threads, rows, pairs, FLOAT32, [&](const Rows& some) {
        for (int row = some.first; row < some.last; row++) {
            const double position = static_cast<double>(positions[static_cast<size_t>(row)]);
            float* cos = step.rotation + static_cast<size_t>(row) * pairs;
            float* sin = cos + static_cast<size_t>(rows) * pairs;
            for (int pair = 0; pair < pairs; pair++) {
                const double angle = position * step.frequencies[pair];
                cos[pair] = static_cast<float>(std::cos(angle));
                sin[pair] = static_cast<float>(std::sin(angle));
            }
        }
    });
}

// The address of a row in rows of `size` numbers.
void* row_of(void* rows, int row, int64_t size, Dtype dtype) {
    return static_cast<char*>(rows) + static_cast<size_t>(row * size) * bytes_of(dtype);
}

// Sequences that have as many new tokens each, and attend in one go. Their rows are neighbours.
struct Segment {
    Attention attention = {};
    Fresh fresh = {};
    int first = 0, rows = 0;
    bool any_begins = false;  // whether a sequence has no tokens in the cache but the new ones
};

// lengths, places: of all sequences of the step. sequence: the segment's first one.
Segment segment_of(const StepRecord& step, const int64_t* lengths, const int64_t* places,
                   int64_t sequence, int64_t batch, int64_t tokens) {
    Segment segment;
    const auto dtype = static_cast<Dtype>(step.dtype);
    const int row = sequence == 0 ? 0 : static_cast<int>(step.decoding);
    const int64_t queries = step.heads * step.head_size, keys = step.kv_heads * step.head_size;
    segment.first = row;
    segment.rows = static_cast<int>(batch * tokens);
    const auto [shortest, longest] =
        std::minmax_element(lengths + sequence, lengths + sequence + batch);
    segment.any_begins = *shortest == tokens;

    Attention& attention = segment.attention;
    attention.batch = static_cast<int>(batch);
    attention.tokens = static_cast<int>(tokens);
    attention.kv_heads = static_cast<int>(step.kv_heads);
    attention.shared = static_cast<int>(step.heads / step.kv_heads);
    attention.size = static_cast<int>(step.head_size);
    attention.room = static_cast<int>(step.room);
    attention.length = static_cast<int>(*longest);
    attention.lengths = lengths + sequence;
    attention.places = places + sequence;
    attention.frequencies = step.frequencies;
    attention.pairs = static_cast<int>(step.pairs);
    attention.attention_factor = step.attention_factor;
    attention.queries = step.queries + row * queries;
    attention.mixed = step.mixed + row * queries;
    attention.partials = step.partial_sums;
    // The room decides into which ranges a sequence is divided. It is that of a step without the
    // other segment, so that sums have the same bits.
    const int64_t share = step.partial_sums_bytes / (step.decoding + step.batch) * batch;
    const int64_t room = row < step.decoding ? step.decoding_sums_bytes : share;
    attention.partials_room = static_cast<size_t>(room) / sizeof(float);

    const float* cos = step.rotation + static_cast<size_t>(row) * step.pairs;
    const float* sin = cos + static_cast<size_t>(rows_of(step)) * step.pairs;
    segment.fresh = {row_of(step.q, row, queries, dtype), row_of(step.k, row, keys, dtype),
                     row_of(step.v, row, keys, dtype), dtype, cos, sin, attention.pairs};
    return segment;
}

std::vector<Segment> segments_of(const StepRecord& step, const int64_t* lengths,
                                 const int64_t* places) {
    std::vector<Segment> segments;
    if (step.decoding) segments.push_back(segment_of(step, lengths, places, 0, step.decoding, 1));
    segments.push_back(
        segment_of(step, lengths, places, step.decoding, step.batch, step.tokens));
    return segments;
}

class LayerRunner {
public:
    LayerRunner(const InstructionSet& set, const StepRecord& step, const int64_t* lengths,
                const int64_t* places, int threads)
        : set_(set),
          step_(step),
          dtype_(static_cast<Dtype>(step.dtype)),
          threads_(threads),
          rows_(rows_of(step)),
          segments_(segments_of(step, lengths, places)) {}

    void run(const LayerRecord& layer) {
        attend_to(layer);
        norm(step_.hidden_states, layer.feed_forward_norm, step_.normed);
        const Product gate_up = product_of(layer.gate_up, step_.gate_up, dtype_);
        multiply(&gate_up, 1, step_.normed);
        each(step_.inner,
             [&](const Rows& rows) { set_.gate(rows, step_.gate_up, step_.gated); });
        const Product down = product_of(layer.down, step_.delta, dtype_);
        multiply(&down, 1, step_.gated);
        add_delta(layer.fed_norm);
    }

private:
    void attend_to(const LayerRecord& layer) {
        norm(step_.hidden_states, layer.input_norm, step_.normed);
        const Product projections[] = {product_of(layer.q, step_.q, dtype_),
                                       product_of(layer.k, step_.k, dtype_),
                                       product_of(layer.v, step_.v, dtype_)};
        multiply(projections, 3, step_.normed);
        for (Segment& segment : segments_) attend_in(segment, layer);
        const Product o = product_of(layer.o, step_.delta, dtype_);
        multiply(&o, 1, step_.attended);
        add_delta(layer.attended_norm);
    }

    void attend_in(Segment& segment, const LayerRecord& layer) {
        Attention& attention = segment.attention;
        attention.keys = cached_vectors(layer.keys);
        attention.values = cached_vectors(layer.values);
        if (attention.keys.centers && segment.any_begins)
            parallel(threads_, attention.batch * attention.kv_heads,
                     [&](int head) { set_.set_center(attention, segment.fresh, head); });
        parallel(threads_, segment.rows,
                 [&](int token) { set_.append(attention, segment.fresh, token); });
        attend(set_, attention, threads_);
        const int64_t queries = step_.heads * step_.head_size;
        void* attended = row_of(step_.attended, segment.first, queries, dtype_);
        parallel(threads_, segment.rows,
                 [&](int token) { set_.collect(attention, token, attended, dtype_); });
    }

    void multiply(const Product* products, int count, const void* x) {
        matmul(set_, products, count, x, rows_, dtype_, step_.scratch, threads_);
    }

    void norm(const void* x, const void* weight, void* out) {
        glm4q::norm(set_, x, weight, static_cast<float>(step_.eps), rows_,
                    static_cast<int>(step_.hidden), dtype_, out, threads_);
    }

    void add_delta(const void* norm_weight) {
        if (norm_weight) norm(step_.delta, norm_weight, step_.delta);
        each(step_.hidden,
             [&](const Rows& rows) { set_.add(rows, step_.delta, step_.hidden_states); });
    }

    template <class Callable>
    void each(int64_t size, const Callable& callable) {
        each_of(threads_, rows_, static_cast<int>(size), dtype_, callable);
    }

    const InstructionSet& set_;
    const StepRecord& step_;
    const Dtype dtype_;
    const int threads_, rows_;
    std::vector<Segment> segments_;
};

}  // namespace

void norm(const InstructionSet& set, const void* x, const void* weight, float eps, int rows,
          int size, Dtype dtype, void* out, int threads) {
    each_of(threads, rows, size, dtype,
            [&](const Rows& some) { set.norm(some, x, weight, eps, out); });
}

void run_layers(const InstructionSet& set, const std::vector<LayerRecord>& layers,
                const StepRecord& step, const std::vector<int64_t>& lengths,
                const std::vector<int64_t>& places, int threads) {
    fill_rotation(step, lengths.data(), threads);
    LayerRunner runner(set, step, lengths.data(), places.data(), threads);
    for (const LayerRecord& layer : layers) runner.run(layer);
}

}  // namespace glm4q
