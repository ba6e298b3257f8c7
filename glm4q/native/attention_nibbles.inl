// Attention to INT4 caches, for vectors of 256 bits. The codes of a group of 64 numbers are multiplied
// as whole numbers from -8 to 7, by queries and weights that are rounded to 16 bits; a group's scale
// and its middle, the number that code 8 stands for, are factors of sums. Included by
// instruction_set.inl.

constexpr int MIDDLE_INT4 = 8;
constexpr int MOST_GROUPS = LARGEST_HEAD / KV_GROUP;

// Scales and middles of a tile of INT4 vectors; 0 behind the last token.
struct NibbleGrids {
    alignas(64) float scales[MOST_GROUPS][TILE], middles[MOST_GROUPS][TILE];

    void read(const CachedVectors& vectors, size_t place, int tokens, int groups) {
        const int numbers = 2 * groups;  // of a token: scale and least value of each group
        const uint16_t* from = vectors.scales + place * numbers;
        alignas(64) uint16_t halves[2 * MOST_GROUPS * TILE] = {};
        alignas(64) float floats[2 * MOST_GROUPS * TILE];
        std::memcpy(halves, from, tokens * numbers * sizeof(uint16_t));
        for (int at = 0; at < TILE * numbers; at += V::LANES)
            V::store(floats + at, V::load_half(halves + at));
        for (int group = 0; group < groups; group++)
            for (int token = 0; token < TILE; token++) {
                const float* grid = floats + token * numbers + 2 * group;
                scales[group][token] = grid[0];
                middles[group][token] = grid[1] + MIDDLE_INT4 * grid[0];
            }
    }
};

struct NibbleKeys {
    PairTile tile;  // [D / 2, TILE]
    NibbleGrids grids;
    PairRows<KV_GROUP> queries[MOST_GROUPS];
    int size, groups;

    NibbleKeys(const Attention& attention, int, const float* from, int rows)
        : size(attention.size), groups(size / KV_GROUP) {
        for (int row = 0; row < whole_blocks(rows); row++)
            for (int group = 0; group < groups; group++) {
                const float* query = from + static_cast<size_t>(row) * size + group * KV_GROUP;
                if (row < rows)
                    queries[group].take(row, query, KV_GROUP, largest_magnitude(query, KV_GROUP));
                else
                    queries[group].clear(row);
            }
    }

    void score(const CachedVectors& vectors, size_t place, int, int tokens, int rows,
               Scores& scores) {
        constexpr int R = PairRows<TILE>::ROWS;
        Ahead ahead = ahead_of(vectors, place, size, products_of(rows, TILE));
        const int bytes = size / 2;
        const uint8_t* codes = tile.whole.of(vectors, place, tokens, bytes);
        grids.read(vectors, place, tokens, groups);
        for (int token = 0; token < TILE; token += V::LANES)
            for (int at = 0; at < bytes; at += V::BYTES) {
                uint32_t* low = tile.words + at / 2 * TILE + token;
                V::transpose_nibbles(codes + token * bytes + at, bytes, low,
                                     low + bytes / 2 * TILE, TILE);
            }
        for (int group = 0; group < groups; group++)
            tile.cross(group * KV_GROUP / 2, KV_GROUP / 2, TILE, tile.crossed + group * TILE);
        for (int token = 0; token < tokens; token += 2 * V::LANES)
            for (int row = 0; row < rows; row += R) {
                ahead.ask_all();
                score_block(row, token, scores);
            }
    }

    void score_block(int row, int token, Scores& scores) const {
        constexpr int R = PairRows<TILE>::ROWS, C = 2;
        typename V::Floats totals[R][C] = {};
        for (int group = 0; group < groups; group++) {
            typename V::Ints acc[R][C];
            const PairRows<KV_GROUP>& query = queries[group];
            multiply_pairs(tile.words + group * KV_GROUP / 2 * TILE + token,
                           tile.crossed + group * TILE + token, KV_GROUP / 2, TILE, query, row,
                           MIDDLE_INT4, acc);
            for (int r = 0; r < R; r++) {
                const float scale = query.scales[row + r];
                const auto total = V::fill(static_cast<float>(query.totals[row + r]));
                for (int c = 0; c < C; c++) {
                    const int at = token + c * V::LANES;
                    const auto middle =
                        V::multiply_add(total, V::load(grids.middles[group] + at), V::zero());
                    const auto sum = V::multiply_add(
                        V::to_floats(acc[r][c]), V::load(grids.scales[group] + at), middle);
                    totals[r][c] = V::multiply_add(sum, V::fill(scale), totals[r][c]);
                }
            }
        }
        store_vectors(totals, scores[row] + token, TILE);
    }
};

struct NibbleValues {
    PairTile tile;  // [TILE / 2, D], the numbers in the order of interleaving
    NibbleGrids grids;
    PairRows<TILE> weighed[MOST_GROUPS];
    float middles[MOST_GROUPS][MOST_ROWS] = {};  // weighted sums of the middles of a tile
    alignas(64) float sums[MOST_ROWS * LARGEST_HEAD] = {};
    int size, groups;

    NibbleValues(int size, int rows) : size(size), groups(size / KV_GROUP) {
        for (int row = rows; row < whole_blocks(rows); row++)
            for (int group = 0; group < groups; group++) weighed[group].clear(row);
    }

    void shrink(int row, float factor) {
        for (int at = 0; at < size; at++) sums[row * size + at] *= factor;
    }

    void mix(const CachedVectors& vectors, size_t place, int tokens, int rows,
             const Scores& weights, const float* largest_weights, const int* visible) {
        constexpr int R = PairRows<TILE>::ROWS;
        Ahead ahead = ahead_of(vectors, place, size, products_of(rows, size));
        const int bytes = size / 2;
        const uint8_t* codes = tile.whole.of(vectors, place, tokens, bytes);
        grids.read(vectors, place, tokens, groups);
        for (int token = 0; token < TILE; token += 4)
            for (int at = 0; at < bytes; at += V::BYTES) {
                uint32_t* low = tile.words + token / 2 * size + at;
                V::interleave_nibbles(codes + token * bytes + at, bytes, low, low + bytes, size);
            }
        tile.cross(0, TILE / 2, size, tile.crossed);
        for (int row = 0; row < rows; row++)
            if (any(largest_weights, row / R * R, R, rows))
                weigh_groups(weights[row], largest_weights[row], visible[row], row);
        for (int at = 0; at < size; at += 2 * V::LANES)
            for (int row = 0; row < rows; row += R) {
                ahead.ask_all();
                if (any(largest_weights, row, R, rows)) mix_block(row, at);
            }
    }

    void weigh_groups(const float* weights, float largest_weight, int visible, int row) {
        for (int group = 0; group < groups; group++) {
            weigh(weights, grids.scales[group], largest_weight, visible, row, weighed[group]);
            Parts sums = {};
            for (int token = 0; token < TILE; token += PARTS)
                sums += load_parts(weights + token) * load_parts(grids.middles[group] + token);
            middles[group][row] = sum_of(sums);
        }
    }

    void mix_block(int row, int at) {
        constexpr int R = PairRows<TILE>::ROWS, C = 2;
        const int group = at / KV_GROUP;
        typename V::Ints acc[R][C];
        multiply_pairs(tile.words + at, tile.crossed + at, TILE / 2, size, weighed[group], row,
                       MIDDLE_INT4, acc);
        for (int r = 0; r < R; r++) {
            const auto scale = V::fill(weighed[group].scales[row + r]);
            const auto middle = V::fill(middles[group][row + r]);
            float* place = sums + (row + r) * size + at;
            for (int c = 0; c < C; c++, place += V::LANES)
                V::store(place, V::multiply_add(V::to_floats(acc[r][c]), scale,
                                                V::add(V::load(place), middle)));
        }
    }

    void store(int row, float factor, float* to) const {
        for (int at = 0; at < size; at++)
            to[at] = sums[row * size + V::interleaved(at)] * factor;
    }
};
