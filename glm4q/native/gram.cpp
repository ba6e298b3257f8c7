#include "gram.h"

#include <algorithm>

#include "instruction_set.h"
#include "threads.h"

namespace glm4q {
namespace {

int panel_count(const InstructionSet& set, int columns) {
    return (columns + set.panel - 1) / set.panel;
}

size_t panel_words(const InstructionSet& set, int pairs) {
    return static_cast<size_t>(pairs) * set.panel;
}

void pack(const InstructionSet& set, const uint16_t* x, int columns, int tokens, int pairs,
          uint32_t* words, int threads) {
    parallel(threads, panel_count(set, columns), [&](int panel) {
        set.pack_panel(x, tokens, columns, panel * set.panel,
                        words + panel * panel_words(set, pairs));
    });
}

// Copies the sums above the diagonal to the places below it.
void mirror(const Sums& sums, int size, int threads) {
    constexpr int BLOCK = 32;
    parallel(threads, (size + BLOCK - 1) / BLOCK, [&](int block) {
        const int first = block * BLOCK, last = std::min(first + BLOCK, size);
        for (int start = 0; start <= first; start += BLOCK)
            for (int row = first; row < last; row++)
                for (int column = start; column < std::min(start + BLOCK, row); column++)
                    sums.numbers[row * sums.stride + column] =
                        sums.numbers[column * sums.stride + row];
    });
}

}  // namespace

size_t gram_scratch(const InstructionSet& set, int left_columns, int right_columns, int tokens) {
    return (panel_count(set, left_columns) + panel_count(set, right_columns)) *
           panel_words(set, std::min(MOST_PAIRS, (tokens + 1) / 2));
}

void gram(const InstructionSet& set, const uint16_t* left, int left_columns, const uint16_t* right,
          int right_columns, int tokens, const Sums& out, uint32_t* scratch, int threads) {
    const bool symmetric = left == right;
    const int panels = panel_count(set, right_columns);
    for (int token = 0; token < tokens; token += 2 * MOST_PAIRS) {
        const int count = std::min(2 * MOST_PAIRS, tokens - token), pairs = (count + 1) / 2;
        uint32_t* left_words = symmetric ? scratch : scratch + panels * panel_words(set, pairs);
        pack(set, right + static_cast<size_t>(token) * right_columns, right_columns, count, pairs,
             scratch, threads);
        if (!symmetric)
            pack(set, left + static_cast<size_t>(token) * left_columns, left_columns, count, pairs,
                 left_words, threads);
        const Panels rows{left_words, left_columns, pairs}, columns{scratch, right_columns, pairs};
        // The longest pieces come first, so that all threads finish at about the same time.
        parallel(threads, panels, [&](int piece) {
            const int panel = panels - 1 - piece;
            const int last = symmetric ? std::min((panel + 1) * set.panel, left_columns)
                                       : left_columns;
            set.gram(rows, columns, panel, last, out);
        });
    }
    if (symmetric) mirror(out, right_columns, threads);
}

}  // namespace glm4q
