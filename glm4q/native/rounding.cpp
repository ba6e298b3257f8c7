#include "rounding.h"

#include <algorithm>
#include <vector>

#include "instruction_set.h"
#include "threads.h"

namespace glm4q {
namespace {

// Memory with the alignment of the widest vectors.
struct alignas(64) Line {
    char bytes[64];
};

// Calls task(first, last) for rows side by side.
template <class Task>
void by_strips(const InstructionSet& set, int rows, int threads, const Task& task) {
    parallel(threads, (rows + set.parts - 1) / set.parts, [&](int strip) {
        task(strip * set.parts, std::min((strip + 1) * set.parts, rows));
    });
}

}  // namespace

void round_rows(const InstructionSet& set, const Rounding& rounding, int threads) {
    const size_t group = static_cast<size_t>(rounding.inputs / rounding.groups) * set.parts;
    by_strips(set, rounding.outputs, threads, [&](int first, int last) {
        std::vector<Line> scratch(2 * group * sizeof(float) / sizeof(Line) + 1);
        set.round_rows(rounding, scratch.data(), first, last - first);
    });
}

void compensate(const InstructionSet& set, const Compensation& block, int threads) {
    by_strips(set, block.outputs, threads,
              [&](int first, int last) { set.compensate(block, first, last); });
}

void descend(const InstructionSet& set, const Descent& block, int threads) {
    by_strips(set, block.outputs, threads,
              [&](int first, int last) { set.descend(block, first, last); });
}

}  // namespace glm4q
