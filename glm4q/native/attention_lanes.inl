// Scores of tokens that lie in the lanes of vectors, so that no lanes are added to each other; and
// attention to bfloat16 caches, whose numbers are widened as they are multiplied. Included by
// instruction_set.inl.

constexpr int LANE_ROWS = 6;     // by LANE_VECTORS: 12 sums hide the latency of multiplications,
constexpr int LANE_VECTORS = 2;  // and leave 4 of the 16 registers for what is multiplied

inline int row_blocks(int rows) { return (rows + LANE_ROWS - 1) / LANE_ROWS; }

// Calls function(height, row) for each block of nearly equal numbers of rows, `height` a constant.
template <class Function>
inline void for_row_blocks(int rows, const Function& function) {
    const Blocks blocks(rows, LANE_ROWS);
    for (int block = 0; block < blocks.count; block++) {
        const int row = blocks.start(block);
        call_with_rows<LANE_ROWS>(blocks.start(block + 1) - row,
                                  [&](auto height) { function(height, row); });
    }
}

// Adds the products of R rows, whose numbers begin `step` from each other, by vectors.
template <int R, int C>
inline void add_lanes(const float* from, size_t step, const typename V::Floats (&vectors)[C],
                      typename V::Floats (&acc)[R][C]) {
    GLM4Q_UNROLL
    for (int r = 0; r < R; r++) {
        const typename V::Floats number = V::fill(from[r * step]);
        GLM4Q_UNROLL
        for (int c = 0; c < C; c++) acc[r][c] = V::multiply_add(number, vectors[c], acc[r][c]);
    }
}

// Adds the products of float32 keys [width, TILE] and rows of queries to scores.
struct LaneProducts {
    alignas(64) float keys[LARGEST_HEAD * TILE];
    alignas(64) float queries[MOST_ROWS * LARGEST_HEAD];  // [rows, width]
    int width;

    void add(int tokens, int rows, Scores& scores) const {
        for (int token = 0; token < tokens; token += LANE_VECTORS * V::LANES)
            for_row_blocks(rows, [&](auto height, int row) {
                add_block<decltype(height)::value>(row, token, scores);
            });
    }

    template <int R>
    void add_block(int row, int token, Scores& scores) const {
        typename V::Floats acc[R][LANE_VECTORS];
        load_vectors<R, LANE_VECTORS>(scores[row] + token, TILE, acc);
        const float* query = queries + row * width;
        for (int at = 0; at < width; at++) {
            typename V::Floats key[LANE_VECTORS];
            GLM4Q_UNROLL
            for (int c = 0; c < LANE_VECTORS; c++)
                key[c] = V::load(keys + at * TILE + token + c * V::LANES);
            add_lanes(query + at, width, key, acc);
        }
        store_vectors(acc, scores[row] + token, TILE);
    }
};

// The cached bytes of a tile, of which there are enough behind the last token.
struct WholeTile {
    alignas(64) uint8_t copy[TILE * LARGEST_HEAD * 2];

    // bytes: of a vector. Zeros follow the last token.
    const uint8_t* of(const CachedVectors& vectors, size_t place, int tokens, size_t bytes) {
        const uint8_t* codes = vectors.codes + place * bytes;
        if (tokens == TILE) return codes;
        std::memcpy(copy, codes, tokens * bytes);
        std::memset(copy + tokens * bytes, 0, (TILE - tokens) * bytes);
        return copy;
    }
};
