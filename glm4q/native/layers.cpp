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

// Cos and sin [2, B, T, pairs] at the positions of the new tokens: glm4q/model/rope.py. If positions
// are scaled, theta is 0, and the caller has filled these tables and the frequencies.
void fill_rotation(const StepRecord& step, const int64_t* lengths, int threads) {
    if (step.theta == 0) return;
    const int pairs = static_cast<int>(step.pairs), tokens = static_cast<int>(step.tokens);
    const int rows = static_cast<int>(step.batch) * tokens;
    for (int pair = 0; pair < pairs; pair++)
        step.frequencies[pair] = std::pow(step.theta, -static_cast<double>(pair) / pairs);
    each_of(threads, rows, pairs, FLOAT32, [&](const Rows& some) {
        for (int row = some.first; row < some.last; row++) {
            const int64_t cached = lengths[row / tokens] - tokens;
            const double position = static_cast<double>(cached + row % tokens);
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

class LayerRunner {
public:
    LayerRunner(const InstructionSet& set, const StepRecord& step, const int64_t* lengths,
                const int64_t* places, int threads)
        : set_(set),
          step_(step),
          dtype_(static_cast<Dtype>(step.dtype)),
          threads_(threads),
          rows_(static_cast<int>(step.batch * step.tokens)) {
        attention_.batch = static_cast<int>(step.batch);
        attention_.tokens = static_cast<int>(step.tokens);
        attention_.kv_heads = static_cast<int>(step.kv_heads);
        attention_.shared = static_cast<int>(step.heads / step.kv_heads);
        attention_.size = static_cast<int>(step.head_size);
        attention_.room = static_cast<int>(step.room);
        const auto [shortest, longest] = std::minmax_element(lengths, lengths + step.batch);
        any_begins_ = *shortest == step.tokens;
        attention_.length = static_cast<int>(*longest);
        attention_.lengths = lengths;
        attention_.places = places;
        attention_.frequencies = step.frequencies;
        attention_.pairs = static_cast<int>(step.pairs);
        attention_.attention_factor = step.attention_factor;
        attention_.queries = step.queries;
        attention_.mixed = step.mixed;
        attention_.partials = step.partial_sums;
        attention_.partials_room = static_cast<size_t>(step.partial_sums_bytes) / sizeof(float);
        const size_t angles = static_cast<size_t>(step.tokens * step.pairs);
        const float* sin = step.rotation + angles * step.batch;
        fresh_ = {step.q, step.k, step.v, dtype_, step.rotation, sin, attention_.pairs};
    }

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
        attention_.keys = cached_vectors(layer.keys);
        attention_.values = cached_vectors(layer.values);
        if (attention_.keys.centers && any_begins_)
            parallel(threads_, attention_.batch * attention_.kv_heads,
                     [&](int head) { set_.set_center(attention_, fresh_, head); });
        parallel(threads_, rows_, [&](int token) { set_.append(attention_, fresh_, token); });
        attend(set_, attention_, threads_);
        parallel(threads_, rows_, [&](int token) {
            set_.collect(attention_, token, step_.attended, dtype_);
        });
        const Product o = product_of(layer.o, step_.delta, dtype_);
        multiply(&o, 1, step_.attended);
        add_delta(layer.attended_norm);
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
    bool any_begins_;  // whether a sequence has no tokens in the cache but the new ones
    Attention attention_;
    Fresh fresh_;
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
