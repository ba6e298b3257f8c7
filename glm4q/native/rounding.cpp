#include "rounding.h"

#include <algorithm>
#include <vector>

#include "path.h"
#include "threads.h"

namespace glm4q {
namespace {

// Aligned as the widest vectors are.
struct alignas(64) Line {
    char bytes[64];
};

// Calls task(first, last) for rows side by side.
template <class Task>
void by_strips(const Path& path, int rows, int threads, const Task& task) {
    parallel(threads, (rows + path.parts - 1) / path.parts, [&](int strip) {
        task(strip * path.parts, std::min((strip + 1) * path.parts, rows));
    });
}

}  // namespace

void round_rows(const Path& path, const Rounding& rounding, int threads) {
    const size_t group = static_cast<size_t>(rounding.inputs / rounding.groups) * path.parts;
    by_strips(path, rounding.outputs, threads, [&](int first, int last) {
        std::vector<Line> scratch(2 * group * sizeof(float) / sizeof(Line) + 1);
        path.round_rows(rounding, scratch.data(), first, last - first);
    });
}

void compensate(const Path& path, const Compensation& block, int threads) {
    by_strips(path, block.outputs, threads,
              [&](int first, int last) { path.compensate(block, first, last); });
}

void descend(const Path& path, const Descent& block, int threads) {
    by_strips(path, block.outputs, threads,
              [&](int first, int last) { path.descend(block, first, last); });
}

}  // namespace glm4q
