#include "layers.h"

#include <algorithm>
#include <cmath>

#include "path.h"
#include "threads.h"

namespace glm4q {
namespace {

template <class T>
T* at(int64_t address) {
    return reinterpret_cast<T*>(static_cast<intptr_t>(address));
}

Product product(const LinearEntry& entry, void* out, Dtype dtype) {
    const Weight weight = {at<const uint32_t>(entry.qweight), at<const void>(entry.scales),
                           at<const uint32_t>(entry.qzeros),  at<const float>(entry.book),
                           static_cast<int>(entry.outputs),   static_cast<int>(entry.inputs),
                           static_cast<int>(entry.bits),      static_cast<int>(entry.group),
                           entry.wide != 0};
    return {weight, at<const void>(entry.bias), out, dtype};
}

// Work on rows of that size, some of them at once.
template <class Callable>
void each_of(int threads, int rows, int size, Dtype dtype, const Callable& callable) {
    const int pieces = std::min(rows, 4 * threads);
    parallel(threads, pieces, [&](int piece) {
        const Blocks blocks(rows, (rows + pieces - 1) / pieces);
        if (piece < blocks.count)
            callable(Rows{blocks.start(piece), blocks.start(piece + 1), size, dtype, 0, size});
    });
}

// Cos and sin [2, B, T, pairs] at the positions of the new tokens: glm4q/model/rope.py. Where
// positions are scaled, theta is 0, and the caller has filled these tables and the frequencies.
void fill_rotation(const Shape& shape, const StepEntry& step, const int64_t* lengths, int threads) {
    if (shape.theta == 0) return;
    const int pairs = shape.pairs, rows = shape.batch * shape.tokens;
    for (int pair = 0; pair < pairs; pair++)
        step.frequencies[pair] = std::pow(shape.theta, -static_cast<double>(pair) / pairs);
    each_of(threads, rows, pairs, FLOAT32, [&](const Rows& some) {
        for (int row = some.first; row < some.last; row++) {
            const int64_t cached = lengths[row / shape.tokens] - shape.tokens;
            const double position = static_cast<double>(cached + row % shape.tokens);
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

class Run {
public:
    Run(const Path& path, const Shape& shape, const StepEntry& step, const int64_t* lengths,
        const int64_t* places, int threads)
        : path_(path), shape_(shape), step_(step), threads_(threads) {
        rows_ = shape.batch * shape.tokens;
        attention_.batch = shape.batch;
        attention_.tokens = shape.tokens;
        attention_.kv_heads = shape.kv_heads;
        attention_.shared = shape.heads / shape.kv_heads;
        attention_.size = shape.head_size;
        attention_.room = shape.room;
        const auto [shortest, longest] = std::minmax_element(lengths, lengths + shape.batch);
        any_begins_ = *shortest == shape.tokens;
        attention_.length = static_cast<int>(*longest);
        attention_.lengths = lengths;
        attention_.places = places;
        attention_.frequencies = step.frequencies;
        attention_.pairs = shape.pairs;
        attention_.queries = step.queries;
        attention_.mixed = step.mixed;
        attention_.partials = step.keys;  // keys are read piece by piece, so their place is free
        attention_.partials_room = static_cast<size_t>(step.keys_bytes) / sizeof(float);
        const size_t angles = static_cast<size_t>(shape.tokens) * shape.pairs;
        const float* sin = step.rotation + angles * shape.batch;
        fresh_ = {step.q, step.k, step.v, shape.dtype, step.rotation, sin, shape.pairs};
    }

    void layer(const LayerEntry& entry) {
        attend_to(entry);
        norm(step_.hidden_states, entry.feed_forward_norm, step_.normed);
        const Product gate_up = product(entry.gate_up, step_.gate_and_up, shape_.dtype);
        multiply(&gate_up, 1, step_.normed);
        each(shape_.inner, [&](const Rows& rows) {
            path_.gate(rows, step_.gate_and_up, step_.gated);
        });
        const Product down = product(entry.down, step_.delta, shape_.dtype);
        multiply(&down, 1, step_.gated);
        add_delta(entry.fed_norm);
    }

private:
    void attend_to(const LayerEntry& entry) {
        norm(step_.hidden_states, entry.input_norm, step_.normed);
        const Product projections[] = {product(entry.q, step_.q, shape_.dtype),
                                       product(entry.k, step_.k, shape_.dtype),
                                       product(entry.v, step_.v, shape_.dtype)};
        multiply(projections, 3, step_.normed);
        attention_.keys = {shape_.key_format, at<uint8_t>(entry.key_codes),
                           at<uint16_t>(entry.key_scales), at<float>(entry.key_centers)};
        attention_.values = {shape_.value_format, at<uint8_t>(entry.value_codes),
                             at<uint16_t>(entry.value_scales), at<float>(entry.value_centers)};
        if (attention_.keys.centers && any_begins_)
            parallel(threads_, shape_.batch * shape_.kv_heads,
                     [&](int head) { path_.set_center(attention_, fresh_, head); });
        parallel(threads_, rows_, [&](int token) { path_.append(attention_, fresh_, token); });
        attend(path_, attention_, threads_);
        parallel(threads_, rows_, [&](int token) {
            path_.collect(attention_, token, step_.attended, shape_.dtype);
        });
        const Product o = product(entry.o, step_.delta, shape_.dtype);
        multiply(&o, 1, step_.attended);
        add_delta(entry.attended_norm);
    }

    void multiply(const Product* products, int count, const void* x) {
        matmul(path_, products, count, x, rows_, shape_.dtype, step_.scratch, threads_);
    }

    void norm(const void* x, int64_t weight, void* out) {
        glm4q::norm(path_, x, at<const void>(weight), shape_.eps, rows_, shape_.hidden,
                    shape_.dtype, out, threads_);
    }

    void add_delta(int64_t norm_weight) {
        if (norm_weight) norm(step_.delta, norm_weight, step_.delta);
        each(shape_.hidden,
             [&](const Rows& rows) { path_.add(rows, step_.delta, step_.hidden_states); });
    }

    template <class Callable>
    void each(int size, const Callable& callable) {
        each_of(threads_, rows_, size, shape_.dtype, callable);
    }

    const Path& path_;
    const Shape& shape_;
    const StepEntry& step_;
    int threads_, rows_;
    bool any_begins_;  // whether a sequence has no tokens but the new ones
    Attention attention_;
    Fresh fresh_;
};

}  // namespace

void norm(const Path& path, const void* x, const void* weight, float eps, int rows, int size,
          Dtype dtype, void* out, int threads) {
    each_of(threads, rows, size, dtype,
            [&](const Rows& some) { path.norm(some, x, weight, eps, out); });
}

void run_layers(const Path& path, const LayerEntry* layers, int count, const Shape& shape,
                const StepEntry& step, const int64_t* lengths, const int64_t* places, int threads) {
    fill_rotation(shape, step, lengths, threads);
    Run run(path, shape, step, lengths, places, threads);
    for (int layer = 0; layer < count; layer++) run.layer(layers[layer]);
}

}  // namespace glm4q
