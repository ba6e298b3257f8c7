#include "linear.h"

#include <algorithm>
#include <cstring>

#include "threads.h"

namespace glm4q {

namespace scalar { extern const Path PATH; }
#if defined(__x86_64__)
namespace avx2 { extern const Path PATH; }
namespace avx512 { extern const Path PATH; }
#elif defined(__aarch64__)
namespace neon { extern const Path PATH; }
#endif

namespace {

// Outputs of a piece where there are many: short enough that threads end together.
constexpr int PIECE_OUTPUTS = 1024;

const Path* best_first(int place) {
    const Path* found[3] = {};
    int count = 0;
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512vl"))
        found[count++] = &avx512::PATH;
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
        found[count++] = &avx2::PATH;
#elif defined(__aarch64__)
    found[count++] = &neon::PATH;
#endif
    found[count++] = &scalar::PATH;
    return place < count ? found[place] : nullptr;
}

int piece_outputs(int outputs, int threads, int lanes) {
    int pieces = (outputs + PIECE_OUTPUTS - 1) / PIECE_OUTPUTS;
    pieces = (pieces + threads - 1) / threads * threads;
    const int size = (outputs + pieces - 1) / pieces;
    return (size + lanes - 1) / lanes * lanes;
}

}  // namespace

const Path* find_path(const char* name) {
    for (int place = 0; const Path* path = best_first(place); place++)
        if (std::strcmp(name, "auto") == 0 || std::strcmp(name, path->name) == 0) return path;
    return nullptr;
}

void matmul(const Path& path, const Weight& weight, const void* x, void* out, int rows, Dtype dtype,
            void* scratch, int threads) {
    Activations to;
    to.rows = rows;
    to.inputs = weight.inputs;
    to.segment = segment_inputs(weight.group);
    to.segments = segment_count(weight.inputs, weight.group);
    to.codes = static_cast<uint32_t*>(scratch);
    to.scales = reinterpret_cast<float*>(to.codes + static_cast<size_t>(rows) * weight.inputs / 4);
    to.sums = reinterpret_cast<int32_t*>(to.scales + static_cast<size_t>(rows) * to.segments);

    const Blocks blocks(rows, path.block_rows);
    parallel(threads, blocks.count, [&](int block) {
        path.quantize(x, dtype, weight.bits, to, blocks.start(block), blocks.start(block + 1));
    });
    const int size = piece_outputs(weight.outputs, threads, path.lanes);
    parallel(threads, (weight.outputs + size - 1) / size, [&](int piece) {
        path.multiply(weight, to, out, dtype, piece * size,
                      std::min((piece + 1) * size, weight.outputs));
    });
}

}  // namespace glm4q
