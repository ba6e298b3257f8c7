#include "attention.h"

#include <algorithm>

#include "linear.h"
#include "instruction_set.h"
#include "threads.h"

namespace glm4q {
namespace {

// Several threads read ranges of a head's cache. The number of ranges does not depend on the number
// of threads, so that the sums have the same bits for any number of threads.
constexpr int SPLIT_TOKENS = 512;
constexpr int MOST_SPLITS = 16;
constexpr int PIECE_ROWS = 32;

int split_count(const Attention& attention) {
    const size_t each = attention.partial_size() * attention.rows() * attention.batch *
                        attention.kv_heads;
    const int fit = static_cast<int>(std::min<size_t>(attention.partials_room / each, MOST_SPLITS));
    return std::max(1, std::min(attention.length / SPLIT_TOKENS, fit));
}

}  // namespace

void attend(const InstructionSet& set, const Attention& attention, int threads) {
    const int heads = attention.batch * attention.kv_heads;
    const int splits = split_count(attention);
    const Blocks blocks(attention.rows(), PIECE_ROWS);
    parallel(threads, heads * blocks.count * splits, [&](int number) {
        const int block = number / splits % blocks.count;
        const AttentionPiece piece = {number / splits / blocks.count, blocks.start(block),
                                      blocks.start(block + 1), number % splits, splits};
        set.attend(attention, piece);
    });
    if (splits > 1)
        parallel(threads, heads, [&](int head) { set.merge(attention, splits, head); });
}

}  // namespace glm4q
