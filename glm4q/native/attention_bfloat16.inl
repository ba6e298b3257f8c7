// Attention to bfloat16 caches in float32, for vectors of 256 bits. A word has two numbers, which a
// shift and a mask widen as they are multiplied: multiplications take other ports of the processor.
// Included by instruction_set.inl.

struct BfloatKeys {
    WholeTile whole;
    alignas(64) uint32_t words[TILE * LARGEST_HEAD / 2];  // [D / 2, TILE]
    const float* queries;                                 // [rows, D]
    int size;

    BfloatKeys(const Attention& attention, int, const float* from, int)
        : queries(from), size(attention.size) {}

    void score(const CachedVectors& vectors, size_t place, int, int tokens, int rows,
               Scores& scores) {
        const int bytes = 2 * size, vectors_of_tokens = TILE / (LANE_VECTORS * V::LANES);
        Ahead ahead = ahead_of(vectors, place, size, row_blocks(rows) * vectors_of_tokens * size / 2);
        const uint8_t* numbers = whole.of(vectors, place, tokens, bytes);
        for (int token = 0; token < TILE; token += V::LANES)
            for (int at = 0; at < bytes; at += V::BYTES)
                V::transpose_words(numbers + token * bytes + at, bytes,
                                   words + at / 4 * TILE + token, TILE);
        for (int token = 0; token < tokens; token += LANE_VECTORS * V::LANES)
            for_row_blocks(rows, [&](auto height, int row) {
                score_block<decltype(height)::value>(row, token, scores, ahead);
            });
    }

    template <int R>
    void score_block(int row, int token, Scores& scores, Ahead& ahead) const {
        typename V::Floats acc[R][LANE_VECTORS];
        GLM4Q_UNROLL
        for (int r = 0; r < R; r++) {
            GLM4Q_UNROLL
            for (int c = 0; c < LANE_VECTORS; c++) acc[r][c] = V::zero();
        }
        const float* query = queries + static_cast<size_t>(row) * size;
        for (int at = 0; at < size; at += 2) {
            const uint32_t* pairs = words + at / 2 * TILE + token;
            ahead.ask();
            typename V::Floats even[LANE_VECTORS], odd[LANE_VECTORS];
            GLM4Q_UNROLL
            for (int c = 0; c < LANE_VECTORS; c++) even[c] = V::even(V::load(pairs + c * V::LANES));
            add_lanes(query + at, size, even, acc);
            GLM4Q_UNROLL
            for (int c = 0; c < LANE_VECTORS; c++) odd[c] = V::odd_of(pairs + c * V::LANES);
            add_lanes(query + at + 1, size, odd, acc);
        }
        store_vectors(acc, scores[row] + token, TILE);
    }
};

struct BfloatValues {
    // The even numbers of each 2 * LANES, then the odd ones: [rows, D].
    alignas(64) float sums[MOST_ROWS * LARGEST_HEAD] = {};
    int size;

    BfloatValues(int size, int) : size(size) {}

    void shrink(int row, float factor) {
        for (int at = 0; at < size; at++) sums[row * size + at] *= factor;
    }

    void mix(const CachedVectors& vectors, size_t place, int tokens, int rows,
             const Scores& weights, const float* largest_weights, const int*) {
        Ahead ahead = ahead_of(vectors, place, size, row_blocks(rows) * TILE * size / (2 * V::LANES));
        const uint16_t* values = reinterpret_cast<const uint16_t*>(vectors.codes) + place * size;
        for (int at = 0; at < size; at += 2 * V::LANES)
            for_row_blocks(rows, [&](auto height, int row) {
                if (any(largest_weights, row, height, rows))
                    mix_block<decltype(height)::value>(row, at, tokens, values, weights, ahead);
            });
    }

    template <int R>
    void mix_block(int row, int at, int tokens, const uint16_t* values, const Scores& weights,
                   Ahead& ahead) {
        typename V::Floats acc[R][2];
        float* place = sums + row * size + at;
        load_vectors<R, 2>(place, size, acc);
        for (int token = 0; token < tokens; token++) {
            ahead.ask();
            const auto words = V::words(values + static_cast<size_t>(token) * size + at);
            const typename V::Floats value[2] = {V::even(words), V::odd(words)};
            add_lanes(weights[row] + token, TILE, value, acc);
        }
        store_vectors(acc, place, size);
    }

    void store(int row, float factor, float* to) const {
        for (int at = 0; at < size; at++) {
            const int inside = at % (2 * V::LANES), parity = inside % 2;
            to[at] = sums[row * size + at - inside + parity * V::LANES + inside / 2] * factor;
        }
    }
};
