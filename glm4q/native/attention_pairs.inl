// Products of cached codes by queries and weights that are rounded to 16 bits, for vectors of 256
// bits; and attention to INT8 caches. Included by instruction_set.inl.

// Rows of up to MOST 16-bit codes, x = code * scale. Words have the codes 0 and 2, then 1 and 3 of each
// four numbers.
template <int MOST>
struct PairRows {
    static constexpr int ROWS = 4;       // that are multiplied at once
    static constexpr int WORDS = MOST / 2;  // from one row to the next
    static constexpr float LEAST = 0x1p-100f;  // the inverse of a smaller step would be infinite

    alignas(64) uint32_t codes[MOST_ROWS * WORDS];
    float scales[MOST_ROWS];
    int32_t totals[MOST_ROWS];   // sums of the codes
    uint32_t crossed[MOST_ROWS];  // what a product has too much, whatever it is multiplied by

    const uint32_t* of(int row) const { return codes + row * WORDS; }

    // count: a multiple of 2 * PARTS. largest: at least the largest magnitude.
    void take(int row, const float* x, int count, float largest) {
        const float inverse = largest > LEAST ? LARGEST_INT16 / largest : 0;
        Codes sums = {};
        typename V::Ints crosses = V::broadcast(0);
        for (int at = 0; at < count; at += 2 * PARTS) {
            const Codes low = code_of(x + at, inverse), high = code_of(x + at + PARTS, inverse);
            sums += low + high;
            const auto words = V::pair_codes((typename V::Ints)low, (typename V::Ints)high);
            V::store(codes + row * WORDS + at / 2, words);
            if (V::CROSSED) crosses = V::plus(crosses, V::cross_pairs(words));
        }
        totals[row] = 0;
        for (int part = 0; part < PARTS; part++) totals[row] += sums[part];
        const Words products = (Words)crosses;
        crossed[row] = 0;
        for (int part = 0; part < PARTS; part += 2) crossed[row] += products[part];
        scales[row] = largest / LARGEST_INT16;
    }

    // Leaves nothing in a row that nobody reads.
    void clear(int row) {
        std::memset(codes + row * WORDS, 0, WORDS * sizeof(uint32_t));
        scales[row] = 0;
        totals[row] = 0;
        crossed[row] = 0;
    }

    static Codes code_of(const float* x, float inverse) {
        return __builtin_convertvector(nearest(load_parts(x) * inverse), Codes);
    }
};

// Multiplies C vectors of words, `steps` of them, by R rows from `row` on. crossed: what the words add
// too much, with its sign changed; middle: the code that stands for 0.
template <int R, int C, int MOST>
inline void multiply_pairs(const uint32_t* words, const uint32_t* crossed, int steps, int stride,
                           const PairRows<MOST>& rows, int row, int middle,
                           typename V::Ints (&acc)[R][C]) {
    constexpr int STEP = PairRows<MOST>::WORDS;
    const uint32_t* codes = rows.of(row);
    GLM4Q_UNROLL
    for (int r = 0; r < R; r++) {
        const auto total = static_cast<uint32_t>(rows.totals[row + r]);
        const uint32_t too_much = rows.crossed[row + r] + static_cast<uint32_t>(middle) * total;
        const auto less = V::broadcast(static_cast<int32_t>(too_much));
        GLM4Q_UNROLL
        for (int c = 0; c < C; c++)
            acc[r][c] = V::minus(V::load(crossed + c * V::LANES), less);
    }
    if constexpr (V::CROSSED) {
        multiply_crossed<V, R, C, 1, STEP>(words, steps, stride, codes, acc);
    } else {
        for (int step = 0; step < steps; step++, words += stride, codes++) {
            GLM4Q_UNROLL
            for (int c = 0; c < C; c++) {
                const auto word = V::load(words + c * V::LANES);
                GLM4Q_UNROLL
                for (int r = 0; r < R; r++)
                    acc[r][c] = V::dot_pairs(acc[r][c], word, codes[r * STEP]);
            }
        }
    }
}

// Products of blocks of rows by blocks of lanes.
inline int products_of(int rows, int width) {
    return whole_blocks(rows) / PairRows<TILE>::ROWS * (width / (2 * V::LANES));
}

// The codes of a tile in words of two, [steps, width]; and what they add too much to each lane, with
// its sign changed, if products are crossed.
struct PairTile {
    WholeTile whole;
    alignas(64) uint32_t words[TILE * LARGEST_HEAD / 2];
    alignas(64) uint32_t crossed[TILE * LARGEST_HEAD / KV_GROUP] = {};

    // Crosses `steps` steps from `first` on into `to`, a place of `crossed`.
    void cross(int first, int steps, int width, uint32_t* to) {
        if constexpr (V::CROSSED) cross_words<V>(words + first * width, steps, width, to);
    }
};

// The largest magnitude; NaN is the largest.
inline float largest_magnitude(const float* x, int count) {
    float largest = 0;
    for (int at = 0; at < count; at++)
        if (!(std::fabs(x[at]) <= largest)) largest = std::fabs(x[at]);
    return largest;
}

// Writes weights times the scales of the tokens, as the codes that values are multiplied by.
// largest_weight: of the row. visible: tokens that it sees, whose largest scale counts.
inline void weigh(const float* weights, const float* scales, float largest_weight, int visible,
                  int row, PairRows<TILE>& to) {
    alignas(64) float scaled[TILE], seen[TILE] = {};
    std::memcpy(seen, scales, visible * sizeof(float));
    Parts largest = {};
    for (int token = 0; token < TILE; token += PARTS) {
        largest = larger(load_parts(seen + token), largest);
        const Parts products = load_parts(weights + token) * load_parts(scales + token);
        std::memcpy(scaled + token, &products, sizeof(products));
    }
    to.take(row, scaled, TILE, largest_weight * largest_of(largest));
}

// The scales of a tile of INT8 vectors; 0 behind the last token.
inline void read_scales(const CachedVectors& vectors, size_t place, int tokens, float* scales) {
    const uint16_t* halves = vectors.scales + place;
    uint16_t padded[TILE] = {};
    if (tokens < TILE) {
        std::memcpy(padded, halves, tokens * sizeof(uint16_t));
        halves = padded;
    }
    for (int token = 0; token < TILE; token += V::LANES)
        V::store(scales + token, V::load_half(halves + token));
}

constexpr int MIDDLE_INT8 = 128;  // of codes whose sign is flipped

struct PairKeys {
    PairTile tile;  // [D / 2, TILE]
    alignas(64) float scales[TILE];
    PairRows<LARGEST_HEAD> queries;
    int size;

    PairKeys(const Attention& attention, int, const float* from, int rows) : size(attention.size) {
        for (int row = 0; row < whole_blocks(rows); row++) {
            const float* query = from + static_cast<size_t>(row) * size;
            if (row < rows)
                queries.take(row, query, size, largest_magnitude(query, size));
            else
                queries.clear(row);
        }
    }

    void score(const CachedVectors& vectors, size_t place, int, int tokens, int rows,
               Scores& scores) {
        constexpr int R = PairRows<TILE>::ROWS, C = 2;
        Ahead ahead = ahead_of(vectors, place, size, products_of(rows, TILE));
        const uint8_t* codes = tile.whole.of(vectors, place, tokens, size);
        read_scales(vectors, place, tokens, scales);
        for (int token = 0; token < TILE; token += V::LANES)
            for (int at = 0; at < size; at += V::BYTES)
                V::transpose_pairs(codes + token * size + at, size,
                                   tile.words + at / 2 * TILE + token, TILE);
        tile.cross(0, size / 2, TILE, tile.crossed);
        for (int token = 0; token < tokens; token += C * V::LANES)
            for (int row = 0; row < rows; row += R) {
                typename V::Ints acc[R][C];
                ahead.ask_all();
                multiply_pairs(tile.words + token, tile.crossed + token, size / 2, TILE, queries,
                               row, MIDDLE_INT8, acc);
                for (int r = 0; r < R; r++)
                    for (int c = 0; c < C; c++)
                        store_scores(acc[r][c], row + r, token + c * V::LANES, scores);
            }
    }

    void store_scores(typename V::Ints sums, int row, int token, Scores& to) const {
        const typename V::Floats scale = V::multiply_add(
            V::fill(queries.scales[row]), V::load(scales + token), V::zero());
        V::store(to[row] + token, V::multiply_add(V::to_floats(sums), scale, V::zero()));
    }
};

struct PairValues {
    PairTile tile;  // [TILE / 2, D], the numbers in the order of interleaving
    alignas(64) float scales[TILE];
    PairRows<TILE> weighed;
    alignas(64) float sums[MOST_ROWS * LARGEST_HEAD] = {};
    int size;

    PairValues(int size, int rows) : size(size) {
        for (int row = rows; row < whole_blocks(rows); row++) weighed.clear(row);
    }

    void shrink(int row, float factor) {
        for (int at = 0; at < size; at++) sums[row * size + at] *= factor;
    }

    void mix(const CachedVectors& vectors, size_t place, int tokens, int rows,
             const Scores& weights, const float* largest_weights, const int* visible) {
        constexpr int R = PairRows<TILE>::ROWS, C = 2;
        Ahead ahead = ahead_of(vectors, place, size, products_of(rows, size));
        const uint8_t* codes = tile.whole.of(vectors, place, tokens, size);
        read_scales(vectors, place, tokens, scales);
        for (int token = 0; token < TILE; token += 4)
            for (int at = 0; at < size; at += V::BYTES)
                V::interleave_pairs(codes + token * size + at, size,
                                    tile.words + token / 2 * size + at, size);
        tile.cross(0, TILE / 2, size, tile.crossed);
        for (int row = 0; row < rows; row++)
            if (any(largest_weights, row / R * R, R, rows))
                weigh(weights[row], scales, largest_weights[row], visible[row], row, weighed);
        for (int at = 0; at < size; at += C * V::LANES)
            for (int row = 0; row < rows; row += R) {
                if (!any(largest_weights, row, R, rows)) continue;
                typename V::Ints acc[R][C];
                ahead.ask_all();
                multiply_pairs(tile.words + at, tile.crossed + at, TILE / 2, size, weighed, row,
                               MIDDLE_INT8, acc);
                for (int r = 0; r < R; r++)
                    for (int c = 0; c < C; c++) add_sums(acc[r][c], row + r, at + c * V::LANES);
            }
    }

    void add_sums(typename V::Ints products, int row, int at) {
        float* place = sums + row * size + at;
        V::store(place, V::multiply_add(V::to_floats(products), V::fill(weighed.scales[row]),
                                        V::load(place)));
    }

    void store(int row, float factor, float* to) const {
        for (int at = 0; at < size; at++)
            to[at] = sums[row * size + V::interleaved(at)] * factor;
    }
};
