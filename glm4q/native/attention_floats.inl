// Scores and sums in float32, from cached vectors in any format. Included by instruction_set.inl.

constexpr int TILE = 64;       // cached tokens that are read at once
constexpr int MOST_ROWS = 32;  // queries of a piece, at most

// Rows are multiplied in blocks. The last block is padded with rows that nobody reads.
constexpr int MOST_BLOCK_ROWS = 4;
inline int whole_blocks(int rows) {
    return (rows + MOST_BLOCK_ROWS - 1) / MOST_BLOCK_ROWS * MOST_BLOCK_ROWS;
}

// The scores of a tile, which are replaced by its weights.
using Scores = float[MOST_ROWS][TILE];

inline size_t vector_bytes(KVFormat format, int size) {
    return format == KV_FLOAT32 ? size * 4 : format == KV_BFLOAT16 ? size * 2
         : format == KV_INT8 ? size : size / 2;
}

// Whether any of `count` rows from `first` on has a weight that is not negligible.
inline bool any(const float* largest_weights, int first, int count, int rows) {
    const float* last = largest_weights + std::min(first + count, rows);
    return std::any_of(largest_weights + first, last, [](float weight) { return weight > 0; });
}

// Prefetches the vectors of a later tile.
inline void prefetch(const CachedVectors& vectors, size_t place, int tokens, int size) {
    const size_t bytes = vector_bytes(vectors.format, size);
    const uint8_t* codes = vectors.codes + place * bytes;
    for (size_t at = 0; at < tokens * bytes; at += 64) __builtin_prefetch(codes + at, 0, 2);
}

// Prefetches the tile behind the one at `place` by so many requests, between products.
inline Ahead ahead_of(const CachedVectors& vectors, size_t place, int size, size_t requests) {
    const size_t bytes = vector_bytes(vectors.format, size);
    return Ahead(vectors.codes + (place + TILE) * bytes, TILE * bytes, requests);
}

// The vectors of a tile in float32, each padded to whole V.
struct FloatTile {
    alignas(64) float numbers[TILE * LARGEST_HEAD];
    int size, width;

    explicit FloatTile(int size) : size(size), width((size + V::LANES - 1) / V::LANES * V::LANES) {
        std::memset(numbers, 0, TILE * width * sizeof(float));
    }

    float* of(int token) { return numbers + token * width; }

    void read(const CachedVectors& vectors, size_t place, int tokens) {
        prefetch(vectors, place + TILE, tokens, size);
        for (int token = 0; token < tokens; token++)
            read_vector(vectors, place + token, size, of(token));
    }
};

// The keys of a tile, and the queries that are multiplied by them.
struct FloatKeys {
    FloatTile tile;
    alignas(64) float queries[MOST_ROWS * LARGEST_HEAD];

    FloatKeys(int size, int rows) : tile(size) {
        std::memset(queries, 0, whole_blocks(rows) * tile.width * sizeof(float));
    }

    FloatKeys(const Attention& attention, int, const float* from, int rows)
        : FloatKeys(attention.size, rows) {
        for (int row = 0; row < rows; row++)
            std::memcpy(queries + row * tile.width, from + row * tile.size,
                        tile.size * sizeof(float));
    }

    // Scores of the tokens from `first` on, whose vectors begin at `place`.
    void score(const CachedVectors& vectors, size_t place, int, int tokens, int rows,
               Scores& scores) {
        tile.read(vectors, place, tokens);
        score_tile(tokens, rows, scores);
    }

    void score_tile(int tokens, int rows, Scores& scores) const {
        for (int row = 0; row < rows; row += V::HEAD_ROWS)
            for (int token = 0; token < tokens; token += 4)
                score_rows<V::HEAD_ROWS>(row, token, scores);
    }

    template <int R>
    void score_rows(int row, int token, Scores& scores) const {
        typename V::Floats acc[R][4];
        GLM4Q_UNROLL
        for (int r = 0; r < R; r++) {
            GLM4Q_UNROLL
            for (int t = 0; t < 4; t++) acc[r][t] = V::zero();
        }
        for (int at = 0; at < tile.width; at += V::LANES) {
            typename V::Floats key[4];
            GLM4Q_UNROLL
            for (int t = 0; t < 4; t++)
                key[t] = V::load(tile.numbers + (token + t) * tile.width + at);
            GLM4Q_UNROLL
            for (int r = 0; r < R; r++) {
                const typename V::Floats query = V::load(queries + (row + r) * tile.width + at);
                GLM4Q_UNROLL
                for (int t = 0; t < 4; t++) acc[r][t] = V::multiply_add(query, key[t], acc[r][t]);
            }
        }
        GLM4Q_UNROLL
        for (int r = 0; r < R; r++)
            V::store_sums(scores[row + r] + token, acc[r][0], acc[r][1], acc[r][2], acc[r][3]);
    }
};

// The values of a tile, and the weighted sums of all values so far.
struct FloatValues {
    FloatTile tile;
    alignas(64) float sums[MOST_ROWS * LARGEST_HEAD];

    FloatValues(int size, int rows) : tile(size) {
        std::memset(sums, 0, whole_blocks(rows) * tile.width * sizeof(float));
    }

    void shrink(int row, float factor) {
        for (int at = 0; at < tile.width; at++) sums[row * tile.width + at] *= factor;
    }

    void mix(const CachedVectors& vectors, size_t place, int tokens, int rows,
             const Scores& weights, const float* largest_weights, const int*) {
        tile.read(vectors, place, tokens);
        for (int row = 0; row < rows; row += V::HEAD_ROWS) {
            if (!any(largest_weights, row, V::HEAD_ROWS, rows)) continue;
            int at = 0;
            for (; at + 4 * V::LANES <= tile.width; at += 4 * V::LANES)
                mix_rows<V::HEAD_ROWS, 4>(row, at, tokens, weights);
            for (; at < tile.width; at += V::LANES)
                mix_rows<V::HEAD_ROWS, 1>(row, at, tokens, weights);
        }
    }

    void store(int row, float factor, float* to) const {
        for (int at = 0; at < tile.size; at++) to[at] = sums[row * tile.width + at] * factor;
    }

    // Adds to the sums of R rows, C vectors of numbers from `at` on.
    template <int R, int C>
    void mix_rows(int row, int at, int tokens, const Scores& weights) {
        typename V::Floats acc[R][C];
        float* place = sums + row * tile.width + at;
        GLM4Q_UNROLL
        for (int r = 0; r < R; r++) {
            GLM4Q_UNROLL
            for (int c = 0; c < C; c++) acc[r][c] = V::load(place + r * tile.width + c * V::LANES);
        }
        for (int token = 0; token < tokens; token++) {
            typename V::Floats value[C];
            GLM4Q_UNROLL
            for (int c = 0; c < C; c++)
                value[c] = V::load(tile.numbers + token * tile.width + at + c * V::LANES);
            GLM4Q_UNROLL
            for (int r = 0; r < R; r++) {
                const typename V::Floats weight = V::fill(weights[row + r][token]);
                GLM4Q_UNROLL
                for (int c = 0; c < C; c++)
                    acc[r][c] = V::multiply_add(weight, value[c], acc[r][c]);
            }
        }
        GLM4Q_UNROLL
        for (int r = 0; r < R; r++) {
            GLM4Q_UNROLL
            for (int c = 0; c < C; c++) V::store(place + r * tile.width + c * V::LANES, acc[r][c]);
        }
    }
};
