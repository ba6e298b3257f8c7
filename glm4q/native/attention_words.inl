// Scores and sums by dot products of words, which have four INT8 codes or two bfloat16 numbers.
// Only for instruction sets with an instruction for such products. Included by instruction_set.inl.

// INT8 codes. Queries and weights that are multiplied by them are rounded to 15 bits, in two bytes.
struct Bytes {
    static constexpr int PER_WORD = 4, BYTES = 1;
    static constexpr bool SCALED = true;
    static constexpr int KEY_ROWS = 4, KEY_VECTORS = 2, VALUE_ROWS = 2, VALUE_VECTORS = 4;
    static constexpr uint32_t FLIPPED = 0x80808080;  // makes signed codes unsigned: code + 128
    static constexpr int LOW_BITS = 7;
    static constexpr float MOST_CODE = 127 << LOW_BITS;
    static constexpr float LEAST = 0x1p-100f;  // the inverse of a smaller step would be infinite

    // A row of numbers as code * scale, with code = high * 128 + low.
    struct Row {
        alignas(64) uint32_t high[LARGEST_HEAD / PER_WORD];
        alignas(64) uint32_t low[LARGEST_HEAD / PER_WORD];
        float scale;
        int32_t sum;  // of the codes

        // count: a multiple of PARTS.
        void take(const float* x, int count) {
            Words most = {};  // compared by their bits: those of NaN are the largest
            for (int at = 0; at < count; at += PARTS) {
                const Words bits = (Words)load_parts(x + at) & 0x7fffffff;
                most = bits > most ? bits : most;
            }
            take(x, count, float_of_bits(V::largest((typename V::Ints)most)));
        }

        // largest: at least the largest magnitude.
        void take(const float* x, int count, float largest) {
            const float inverse = largest > LEAST ? MOST_CODE / largest : 0;
            Codes sums = {};
            for (int at = 0; at < count; at += PARTS) {
                const Codes code =
                    __builtin_convertvector(nearest(load_parts(x + at) * inverse), Codes);
                const Codes above = (code + (1 << (LOW_BITS - 1))) >> LOW_BITS;
                store_bytes(above, high + at / PER_WORD);
                store_bytes(code - (above << LOW_BITS), low + at / PER_WORD);
                sums += code;
            }
            sum = V::sum((typename V::Ints)sums);
            scale = largest / MOST_CODE;
        }

        static void store_bytes(Codes codes, uint32_t* to) {
            using Narrow = int8_t __attribute__((vector_size(PARTS)));
            const Narrow bytes = __builtin_convertvector(codes, Narrow);
            std::memcpy(to, &bytes, sizeof(bytes));
        }
    };

    // Multiplies [count, C] vectors of words by R rows.
    template <int R, int C>
    static void dot(const uint32_t* words, int stride, int count, const Row* rows, Ahead& ahead,
                    typename V::Floats (&sums)[R][C]) {
        typename V::Ints high[R][C], low[R][C];
        GLM4Q_UNROLL
        for (int r = 0; r < R; r++) {
            GLM4Q_UNROLL
            for (int c = 0; c < C; c++) high[r][c] = low[r][c] = V::broadcast(0);
        }
        for (int at = 0; at < count; at++, words += stride) {
            typename V::Ints word[C];
            ahead.ask();
            GLM4Q_UNROLL
            for (int c = 0; c < C; c++) word[c] = V::load(words + c * V::LANES);
            GLM4Q_UNROLL
            for (int r = 0; r < R; r++) {
                GLM4Q_UNROLL
                for (int c = 0; c < C; c++) {
                    high[r][c] = V::dot_bytes(high[r][c], word[c], rows[r].high[at]);
                    low[r][c] = V::dot_bytes(low[r][c], word[c], rows[r].low[at]);
                }
            }
        }
        GLM4Q_UNROLL
        for (int r = 0; r < R; r++) {
            GLM4Q_UNROLL
            for (int c = 0; c < C; c++)
                sums[r][c] = V::join(high[r][c], low[r][c], LOW_BITS, rows[r].sum * 128,
                                     rows[r].scale);
        }
    }
};

// bfloat16 numbers. Queries and weights that are multiplied by them are rounded to bfloat16 too.
struct Pairs {
    static constexpr int PER_WORD = 2, BYTES = 2;
    static constexpr bool SCALED = false;
    static constexpr int KEY_ROWS = 4, KEY_VECTORS = 4, VALUE_ROWS = 4, VALUE_VECTORS = 4;
    static constexpr uint32_t FLIPPED = 0;

    struct Row {
        alignas(64) uint32_t pairs[LARGEST_HEAD / PER_WORD];

        // count: a multiple of PARTS.
        void take(const float* x, int count, float = 0) {
            using Halves = uint16_t __attribute__((vector_size(2 * PARTS)));
            for (int at = 0; at < count; at += PARTS) {
                const Words bits = (Words)load_parts(x + at);
                const Words rounded = (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
                const Words nan = Words{} + 0x7fc0;
                const Halves halves = __builtin_convertvector(
                    (bits & 0x7fffffff) > 0x7f800000 ? nan : rounded, Halves);
                std::memcpy(pairs + at / PER_WORD, &halves, sizeof(halves));
            }
        }
    };

    template <int R, int C>
    static void dot(const uint32_t* words, int stride, int count, const Row* rows, Ahead& ahead,
                    typename V::Floats (&sums)[R][C]) {
        GLM4Q_UNROLL
        for (int r = 0; r < R; r++) {
            GLM4Q_UNROLL
            for (int c = 0; c < C; c++) sums[r][c] = V::zero();
        }
        for (int at = 0; at < count; at++, words += stride) {
            typename V::Ints word[C];
            ahead.ask();
            GLM4Q_UNROLL
            for (int c = 0; c < C; c++) word[c] = V::load(words + c * V::LANES);
            GLM4Q_UNROLL
            for (int r = 0; r < R; r++) {
                const auto pair = V::broadcast(static_cast<int32_t>(rows[r].pairs[at]));
                GLM4Q_UNROLL
                for (int c = 0; c < C; c++) sums[r][c] = V::dot_pair(sums[r][c], pair, word[c]);
            }
        }
    }
};

// The cached bytes of a tile, and the scales of its vectors; 0 for tokens behind the last one.
template <class Format>
struct WordTile {
    alignas(64) uint32_t words[TILE * LARGEST_HEAD / Format::PER_WORD];
    alignas(64) uint8_t copy[TILE * LARGEST_HEAD * Format::BYTES];
    alignas(64) float scales[TILE];
    const uint8_t* codes;

    // Prefetches the tile behind this one during so many products by words.
    Ahead ahead(const CachedVectors& vectors, size_t place, int size, int products,
                int words) const {
        return ahead_of(vectors, place, size, static_cast<size_t>(products) * words);
    }

    void read(const CachedVectors& vectors, size_t place, int tokens, int size) {
        const size_t bytes = static_cast<size_t>(size) * Format::BYTES;
        codes = vectors.codes + place * bytes;
        const uint16_t* halves = Format::SCALED ? vectors.scales + place : nullptr;
        uint16_t padded[TILE] = {};
        if (tokens < TILE) {
            std::memcpy(copy, codes, tokens * bytes);
            std::memset(copy + tokens * bytes, 0, (TILE - tokens) * bytes);
            codes = copy;
            if (Format::SCALED) std::memcpy(padded, halves, tokens * sizeof(uint16_t));
            halves = padded;
        }
        for (int token = 0; token < TILE; token += V::LANES)
            V::store(scales + token, Format::SCALED ? V::load_half(halves + token) : V::fill(1));
    }
};

template <class Format>
struct WordKeys {
    WordTile<Format> tile;  // words [D / PER_WORD, TILE]
    typename Format::Row queries[MOST_ROWS];
    int size;

    WordKeys(const Attention& attention, int, const float* from, int rows) : size(attention.size) {
        const float none[LARGEST_HEAD] = {};
        for (int row = 0; row < whole_blocks(rows); row++)
            queries[row].take(row < rows ? from + row * size : none, size);
    }

    void score(const CachedVectors& vectors, size_t place, int, int tokens, int rows,
               Scores& scores) {
        constexpr int R = Format::KEY_ROWS, C = Format::KEY_VECTORS;
        tile.read(vectors, place, tokens, size);
        const int bytes = size * Format::BYTES, words = size / Format::PER_WORD;
        for (int token = 0; token < TILE; token += V::LANES)
            for (int at = 0; at < bytes; at += V::BYTES)
                V::transpose(tile.codes + token * bytes + at, bytes, Format::FLIPPED,
                             tile.words + at / 4 * TILE + token, TILE);
        const int products = (rows + R - 1) / R * (TILE / (C * V::LANES));
        Ahead ahead = tile.ahead(vectors, place, size, products, words);
        for (int row = 0; row < rows; row += R) {
            for (int token = 0; token < tokens; token += C * V::LANES) {
                typename V::Floats sums[R][C];
                Format::template dot<R, C>(tile.words + token, TILE, words, queries + row, ahead,
                                           sums);
                for (int r = 0; r < R; r++)
                    for (int c = 0; c < C; c++)
                        V::store_product(scores[row + r] + token + c * V::LANES, sums[r][c],
                                         tile.scales + token + c * V::LANES);
            }
        }
    }
};

template <class Format>
struct WordValues {
    WordTile<Format> tile;  // words [TILE / PER_WORD, D], the numbers in the order of interleaving
    typename Format::Row weighed[MOST_ROWS];
    alignas(64) float sums[MOST_ROWS * LARGEST_HEAD];
    int size;

    WordValues(int size, int rows) : size(size) {
        std::memset(sums, 0, whole_blocks(rows) * size * sizeof(float));
        for (int row = rows; row < whole_blocks(rows); row++) weighed[row] = {};
    }

    void shrink(int row, float factor) {
        for (int at = 0; at < size; at++) sums[row * size + at] *= factor;
    }

    void mix(const CachedVectors& vectors, size_t place, int tokens, int rows,
             const Scores& weights, const float* largest_weights, const int* visible) {
        constexpr int R = Format::VALUE_ROWS, C = Format::VALUE_VECTORS;
        tile.read(vectors, place, tokens, size);
        const int bytes = size * Format::BYTES;
        for (int token = 0; token < TILE; token += Format::PER_WORD)
            for (int at = 0; at < bytes; at += V::BYTES)
                V::interleave<Format::PER_WORD>(
                    tile.codes + token * bytes + at, bytes, Format::FLIPPED,
                    tile.words + token / Format::PER_WORD * size + at / Format::BYTES);
        float largest[TILE + 1] = {};  // scale of the first tokens: a row knows only those it sees
        for (int token = 0; token < TILE; token++)
            largest[token + 1] = std::max(largest[token], tile.scales[token]);
        for (int row = 0; row < rows; row++) {
            if (!any(largest_weights, row / R * R, R, rows)) continue;
            alignas(64) float scaled[TILE];
            for (int token = 0; token < TILE; token++)
                scaled[token] = weights[row][token] * tile.scales[token];
            weighed[row].take(scaled, TILE, largest_weights[row] * largest[visible[row]]);
        }
        const int words = (tokens + Format::PER_WORD - 1) / Format::PER_WORD;
        const int products = (rows + R - 1) / R * (size / (C * V::LANES));
        Ahead ahead = tile.ahead(vectors, place, size, products, words);
        for (int row = 0; row < rows; row += R) {
            if (!any(largest_weights, row, R, rows)) continue;
            for (int at = 0; at < size; at += C * V::LANES) {
                typename V::Floats products_of_words[R][C];
                Format::template dot<R, C>(tile.words + at, size, words, weighed + row, ahead,
                                           products_of_words);
                for (int r = 0; r < R; r++)
                    for (int c = 0; c < C; c++) {
                        float* place = sums + (row + r) * size + at + c * V::LANES;
                        V::store(place, V::add(V::load(place), products_of_words[r][c]));
                    }
            }
        }
    }

    void store(int row, float factor, float* to) const {
        for (int at = 0; at < size; at++)
            to[at] = sums[row * size + V::interleaved<Format::PER_WORD>(at)] * factor;
    }
};
