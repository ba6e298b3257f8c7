// Scores and sums by products of 16-bit numbers, from cached INT8 codes, for vectors of 256 bits.
// Queries and weights that are multiplied by codes are rounded to 16 bits. Included by
// instruction_set.inl.

// Rows of 16-bit codes, x = code * scale, in blocks of ROWS as `multiply_pairs` reads them. A word of
// four cached codes meets two words: codes 0 and 2 of a row, then 1 and 3.
struct PairRows {
    static constexpr int ROWS = 4;
    static constexpr float LEAST = 0x1p-100f;  // the inverse of a smaller step would be infinite

    alignas(64) uint32_t codes[MOST_ROWS * LARGEST_HEAD / 2];
    float scales[MOST_ROWS];
    uint32_t less[MOST_ROWS];  // what a product has too much, whatever it is multiplied by
    int words;                 // of a row

    explicit PairRows(int count) : words(count / 2) {}

    const uint32_t* block(int row) const { return codes + row * words; }

    // count: a multiple of PARTS. largest: at least the largest magnitude.
    void take(int row, const float* x, int count, float largest) {
        alignas(64) int32_t whole[LARGEST_HEAD];
        const float inverse = largest > LEAST ? LARGEST_INT16 / largest : 0;
        Codes sums = {};
        for (int at = 0; at < count; at += PARTS) {
            const Codes code = __builtin_convertvector(nearest(load_parts(x + at) * inverse), Codes);
            std::memcpy(whole + at, &code, sizeof(code));
            sums += code;
        }
        uint32_t* to = codes + row / ROWS * ROWS * words + row % ROWS;
        uint32_t crossed = 0;
        for (int at = 0; at < count; at += 4, to += 2 * ROWS) {
            const int32_t* four = whole + at;
            to[0] = (four[0] & 0xffff) | static_cast<uint32_t>(four[2]) << 16;
            to[ROWS] = (four[1] & 0xffff) | static_cast<uint32_t>(four[3]) << 16;
            if (V::CROSSED) crossed += cross(four[0], four[1]) + cross(four[2], four[3]);
        }
        uint32_t sum = 0;
        for (int part = 0; part < PARTS; part++) sum += static_cast<uint32_t>(sums[part]);
        less[row] = crossed + 128 * sum;
        scales[row] = largest / LARGEST_INT16;
    }

    static uint32_t cross(int32_t one, int32_t other) {
        return static_cast<uint32_t>(one) * static_cast<uint32_t>(other);
    }
};

// Adds the products of R rows and C vectors of unpacked words: see multiply_crossed.
template <class Vectors, int R, int C>
inline void multiply_pairs(const uint32_t* words, int steps, int stride, const uint32_t* codes,
                           typename Vectors::Ints (&acc)[R][C]) {
    if constexpr (Vectors::CROSSED) {
        multiply_crossed<Vectors>(words, steps, stride, codes, acc);
    } else {
        for (int step = 0; step < steps; step++, words += stride, codes += R) {
            GLM4Q_UNROLL
            for (int c = 0; c < C; c++) {
                const auto word = Vectors::load(words + c * Vectors::LANES);
                GLM4Q_UNROLL
                for (int r = 0; r < R; r++)
                    acc[r][c] = Vectors::dot_pairs(acc[r][c], word, codes[r]);
            }
        }
    }
}

// The codes of a tile plus 128, in words of two, [steps, width]; and what they add too much to each
// lane, with its sign changed, if products are crossed.
struct PairTile {
    alignas(64) uint32_t words[TILE * LARGEST_HEAD / 2];
    alignas(64) uint32_t crossed[TILE > LARGEST_HEAD ? TILE : LARGEST_HEAD] = {};
    alignas(64) uint8_t copy[TILE * LARGEST_HEAD];
    alignas(64) float scales[TILE];

    // Returns the codes of a tile, behind whose last token zeros follow.
    const uint8_t* read(const CachedVectors& vectors, size_t place, int tokens, int size) {
        prefetch(vectors, place + TILE, tokens, size);
        const uint8_t* codes = vectors.codes + place * size;
        const uint16_t* halves = vectors.scales + place;
        uint16_t padded[TILE] = {};
        if (tokens < TILE) {
            std::memcpy(copy, codes, static_cast<size_t>(tokens) * size);
            std::memset(copy + tokens * size, 0, static_cast<size_t>(TILE - tokens) * size);
            std::memcpy(padded, halves, tokens * sizeof(uint16_t));
            codes = copy;
            halves = padded;
        }
        for (int token = 0; token < TILE; token += V::LANES)
            V::store(scales + token, V::load_half(halves + token));
        return codes;
    }

    template <class Vectors>
    void cross(int steps, int width) {
        if constexpr (Vectors::CROSSED) cross_words<Vectors>(words, steps, width, crossed);
    }

    // Multiplies the lanes from `at` on, all `steps` of them, by a block of R rows.
    template <int R, int C>
    void multiply(int at, int steps, int width, const PairRows& rows, int row,
                  typename V::Ints (&acc)[R][C]) const {
        GLM4Q_UNROLL
        for (int r = 0; r < R; r++) {
            const auto less = V::broadcast(static_cast<int32_t>(rows.less[row + r]));
            GLM4Q_UNROLL
            for (int c = 0; c < C; c++)
                acc[r][c] = V::minus(V::load(crossed + at + c * V::LANES), less);
        }
        multiply_pairs<V>(words + at, steps, width, rows.block(row), acc);
    }
};

struct PairKeys {
    PairTile tile;  // [D / 2, TILE]
    PairRows queries;
    int size;

    PairKeys(const Attention& attention, int, const float* from, int rows)
        : queries(attention.size), size(attention.size) {
        const float none[LARGEST_HEAD] = {};
        for (int row = 0; row < whole_blocks(rows); row++) {
            const float* query = row < rows ? from + static_cast<size_t>(row) * size : none;
            float largest = 0;  // NaN is the largest
            for (int at = 0; at < size; at++)
                if (!(std::fabs(query[at]) <= largest)) largest = std::fabs(query[at]);
            queries.take(row, query, size, largest);
        }
    }

    void score(const CachedVectors& vectors, size_t place, int, int tokens, int rows,
               Scores& scores) {
        constexpr int R = PairRows::ROWS, C = 2;
        const uint8_t* codes = tile.read(vectors, place, tokens, size);
        for (int token = 0; token < TILE; token += V::LANES)
            for (int at = 0; at < size; at += V::BYTES)
                V::transpose_pairs(codes + token * size + at, size, tile.words + at / 2 * TILE + token,
                                   TILE);
        tile.cross<V>(size / 2, TILE);
        for (int token = 0; token < tokens; token += C * V::LANES)
            for (int row = 0; row < rows; row += R) {
                typename V::Ints acc[R][C];
                tile.multiply(token, size / 2, TILE, queries, row, acc);
                for (int r = 0; r < R; r++)
                    for (int c = 0; c < C; c++)
                        store_scores(acc[r][c], row + r, token + c * V::LANES, scores);
            }
    }

    void store_scores(typename V::Ints sums, int row, int token, Scores& scores) const {
        const typename V::Floats scale = V::multiply_add(
            V::fill(queries.scales[row]), V::load(tile.scales + token), V::zero());
        V::store(scores[row] + token,
                 V::multiply_add(V::to_floats(sums), scale, V::zero()));
    }
};

struct PairValues {
    PairTile tile;  // [TILE / 2, D], the numbers in the order of interleaving
    PairRows weighed;
    alignas(64) float sums[MOST_ROWS * LARGEST_HEAD];
    int size;

    PairValues(int size, int rows) : weighed(TILE), size(size) {
        std::memset(sums, 0, whole_blocks(rows) * size * sizeof(float));
        const float none[TILE] = {};
        for (int row = rows; row < whole_blocks(rows); row++) weighed.take(row, none, TILE, 0);
    }

    void shrink(int row, float factor) {
        for (int at = 0; at < size; at++) sums[row * size + at] *= factor;
    }

    void mix(const CachedVectors& vectors, size_t place, int tokens, int rows,
             const Scores& weights, const float* largest_weights, const int* visible) {
        constexpr int R = PairRows::ROWS, C = 2;
        const uint8_t* codes = tile.read(vectors, place, tokens, size);
        for (int token = 0; token < TILE; token += 4)
            for (int at = 0; at < size; at += V::BYTES)
                V::interleave_pairs(codes + token * size + at, size,
                                    tile.words + token / 2 * size + at, size);
        tile.cross<V>(TILE / 2, size);
        weigh(weights, largest_weights, visible, rows);
        for (int at = 0; at < size; at += C * V::LANES)
            for (int row = 0; row < rows; row += R) {
                if (!any(largest_weights, row, R, rows)) continue;
                typename V::Ints acc[R][C];
                tile.multiply(at, TILE / 2, size, weighed, row, acc);
                for (int r = 0; r < R; r++)
                    for (int c = 0; c < C; c++) add_sums(acc[r][c], row + r, at + c * V::LANES);
            }
    }

    // Rounds the rows' weights times the scales of the tokens.
    void weigh(const Scores& weights, const float* largest_weights, const int* visible, int rows) {
        float largest[TILE + 1] = {};  // scale of the first tokens: a row knows only those it sees
        for (int token = 0; token < TILE; token++)
            largest[token + 1] = std::max(largest[token], tile.scales[token]);
        for (int row = 0; row < rows; row++) {
            if (!any(largest_weights, row / PairRows::ROWS * PairRows::ROWS, PairRows::ROWS, rows))
                continue;
            alignas(64) float scaled[TILE];
            for (int token = 0; token < TILE; token++)
                scaled[token] = weights[row][token] * tile.scales[token];
            weighed.take(row, scaled, TILE, largest_weights[row] * largest[visible[row]]);
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
