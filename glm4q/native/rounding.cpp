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

void subtract(const InstructionSet& set, const Subtraction& sums, int threads) {
    std::vector<int> starts(1, 0), places;
    std::vector<float> values;
    for (int row = 0; row < sums.rows; row++) {
        const float* change = sums.change + static_cast<size_t>(row) * sums.terms;
        for (int place = 0; place < sums.terms; place++) {
            if (change[place] == 0) continue;
            places.push_back(place);
            values.push_back(change[place]);
        }
        starts.push_back(static_cast<int>(places.size()));
    }
    const Terms terms{starts.data(), places.data(), values.data()};
    // So many columns of the matrix stay in a core's second cache, while all rows go by.
    constexpr int COLUMNS = 256;
    parallel(threads, (sums.last - sums.first + COLUMNS - 1) / COLUMNS, [&](int piece) {
        const int first = sums.first + piece * COLUMNS;
        set.subtract(sums, terms, first, std::min(first + COLUMNS, sums.last));
    });
}

}  // namespace glm4q
