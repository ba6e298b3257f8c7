#include "attention.h"

#include <algorithm>

#include "linear.h"
#include "instruction_set.h"
#include "threads.h"

namespace glm4q {
namespace {

// Several threads read ranges of a head's cache. Neither the number of threads nor the number of
// tokens of a step up to FEW_TOKENS changes the ranges: a token that is verified with others of a
// draft has the same bits as one that is decoded alone.
constexpr int MOST_SPLITS = 15;  // those of FEW_TOKENS tokens of GLM-4 fit into one tile of keys
constexpr int PIECE_ROWS = 32;

int most_splits(const Attention& attention) {
    const int tokens = std::max(attention.tokens, FEW_TOKENS);
    const size_t each = attention.partial_size() * attention.shared * tokens * attention.batch *
                        attention.kv_heads;
    const size_t fit = std::min<size_t>(attention.partials_room / each, MOST_SPLITS);
    return std::max(1, static_cast<int>(fit));
}

int split_count(const Attention& attention, int most) {
    int splits = 1;
    for (int sequence = 0; sequence < attention.batch; sequence++) {
        const int cached = attention.cached(sequence);
        for (int seen = cached - attention.tokens + 1; seen <= cached; seen++) {
            const int range = range_tokens(seen, most);
            splits = std::max(splits, (seen + range - 1) / range);
        }
    }
    return splits;
}

}  // namespace

void attend(const InstructionSet& set, const Attention& attention, int threads) {
    const int heads = attention.batch * attention.kv_heads;
    const int most = most_splits(attention), splits = split_count(attention, most);
    const Blocks blocks(attention.rows(), PIECE_ROWS);
    parallel(threads, heads * blocks.count * splits, [&](int number) {
        const int block = number / splits % blocks.count;
        const AttentionPiece piece = {number / splits / blocks.count, blocks.start(block),
                                      blocks.start(block + 1), number % splits, splits, most};
        set.attend(attention, piece);
    });
    if (splits > 1)
        parallel(threads, heads, [&](int head) { set.merge(attention, splits, head); });
}

}  // namespace glm4q
