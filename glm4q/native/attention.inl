// Attention for any instruction set. Included once by each path, inside its namespace, after V and
// vectors.inl. The online softmax of https://arxiv.org/abs/1805.02867, in float32.

constexpr int TILE = 32;        // cached tokens that are looked at together
constexpr int MOST_ROWS = 32;   // of a piece

// ---- Scores, softmax, sums ----

struct Tile {
    int width;                      // D, rounded up to whole vectors
    float* queries;                 // [MOST_ROWS, width]
    float* vectors;                 // [TILE, width]: keys, then values
    float (*scores)[TILE];          // [MOST_ROWS]
    float* sums;                    // [MOST_ROWS, width]
};

template <int R>
inline void score_rows(const Tile& tile, int row, int token) {
    typename V::Floats acc[R][4];
    GLM4Q_UNROLL
    for (int r = 0; r < R; r++) {
        GLM4Q_UNROLL
        for (int t = 0; t < 4; t++) acc[r][t] = V::zero();
    }
    for (int at = 0; at < tile.width; at += V::LANES) {
        typename V::Floats key[4];
        GLM4Q_UNROLL
        for (int t = 0; t < 4; t++) key[t] = V::load(tile.vectors + (token + t) * tile.width + at);
        GLM4Q_UNROLL
        for (int r = 0; r < R; r++) {
            const typename V::Floats query = V::load(tile.queries + (row + r) * tile.width + at);
            GLM4Q_UNROLL
            for (int t = 0; t < 4; t++) acc[r][t] = V::multiply_add(query, key[t], acc[r][t]);
        }
    }
    GLM4Q_UNROLL
    for (int r = 0; r < R; r++)
        V::store_sums(tile.scores[row + r] + token, acc[r][0], acc[r][1], acc[r][2], acc[r][3]);
}

// sums of R rows += weights times values, C vectors of numbers from `at` on.
template <int R, int C>
inline void mix_rows(const Tile& tile, int row, int at, int tokens) {
    typename V::Floats acc[R][C];
    GLM4Q_UNROLL
    for (int r = 0; r < R; r++) {
        GLM4Q_UNROLL
        for (int c = 0; c < C; c++)
            acc[r][c] = V::load(tile.sums + (row + r) * tile.width + at + c * V::LANES);
    }
    for (int token = 0; token < tokens; token++) {
        typename V::Floats value[C];
        GLM4Q_UNROLL
        for (int c = 0; c < C; c++)
            value[c] = V::load(tile.vectors + token * tile.width + at + c * V::LANES);
        GLM4Q_UNROLL
        for (int r = 0; r < R; r++) {
            const typename V::Floats weight = V::fill(tile.scores[row + r][token]);
            GLM4Q_UNROLL
            for (int c = 0; c < C; c++) acc[r][c] = V::multiply_add(weight, value[c], acc[r][c]);
        }
    }
    GLM4Q_UNROLL
    for (int r = 0; r < R; r++) {
        GLM4Q_UNROLL
        for (int c = 0; c < C; c++)
            V::store(tile.sums + (row + r) * tile.width + at + c * V::LANES, acc[r][c]);
    }
}

template <int R>
inline void mix_width(const Tile& tile, int row, int tokens) {
    int at = 0;
    for (; at + 4 * V::LANES <= tile.width; at += 4 * V::LANES)
        mix_rows<R, 4>(tile, row, at, tokens);
    for (; at < tile.width; at += V::LANES) mix_rows<R, 1>(tile, row, at, tokens);
}

// The largest of `start` and a tile's scores. Lane by lane, as compilers keep the order of floats.
inline float largest(const float* scores, float start) {
    float lanes[16];
    for (int lane = 0; lane < 16; lane++) lanes[lane] = start;
    for (int at = 0; at < TILE; at += 16)
        for (int lane = 0; lane < 16; lane++)
            lanes[lane] = scores[at + lane] > lanes[lane] ? scores[at + lane] : lanes[lane];
    for (int half = 8; half > 0; half /= 2)
        for (int lane = 0; lane < half; lane++) lanes[lane] = std::max(lanes[lane], lanes[lane + half]);
    return lanes[0];
}

inline float sum_of(const float* weights) {
    float lanes[16] = {};
    for (int at = 0; at < TILE; at += 16)
        for (int lane = 0; lane < 16; lane++) lanes[lane] += weights[at + lane];
    for (int half = 8; half > 0; half /= 2)
        for (int lane = 0; lane < half; lane++) lanes[lane] += lanes[lane + half];
    return lanes[0];
}

// From scores to weights of the visible tokens of a row; what the sums so far shrink by.
inline float soften(float* scores, int visible, float* best, float* total) {
    for (int at = visible; at < TILE; at++) scores[at] = -INFINITY;
    const float most = largest(scores, *best);
    for (int at = 0; at < TILE; at++) scores[at] = exponential(scores[at] - most);
    for (int at = visible; at < TILE; at++) scores[at] = 0;
    const float shrink = visible > 0 && *total > 0 ? exponential(*best - most) : 1;
    *best = most;
    *total = *total * shrink + sum_of(scores);
    return shrink;
}

inline size_t vector_bytes(KVFormat format, int size) {
    return format == KV_FLOAT32 ? size * 4 : format == KV_BFLOAT16 ? size * 2
         : format == KV_INT8 ? size : size / 2;
}

// Asks for the next tile meanwhile.
inline void read_tile(const Side& side, size_t place, int tokens, int size, const Tile& tile) {
    const size_t bytes = vector_bytes(side.format, size);
    const uint8_t* next = side.codes + (place + TILE) * bytes;
    for (int token = 0; token < tokens; token++) {
        for (size_t at = 0; at < bytes; at += 64) __builtin_prefetch(next + token * bytes + at, 0, 2);
        read_vector(side, place + token, size, tile.vectors + token * tile.width);
    }
}

void attend(const Attention& attention, const AttentionPiece& piece) {
    alignas(64) float queries[MOST_ROWS * MOST_HEAD_SIZE];
    alignas(64) float vectors[TILE * MOST_HEAD_SIZE];
    alignas(64) float sums[MOST_ROWS * MOST_HEAD_SIZE];
    alignas(64) float scores[MOST_ROWS][TILE];
    float best[MOST_ROWS], total[MOST_ROWS];

    const int size = attention.size, rows = piece.last - piece.first;
    const int width = (size + V::LANES - 1) / V::LANES * V::LANES;
    const Tile tile = {width, queries, vectors, scores, sums};
    const size_t row = static_cast<size_t>(piece.head) * attention.rows() + piece.first;
    std::memset(queries, 0, MOST_ROWS * width * sizeof(float));
    std::memset(vectors, 0, TILE * width * sizeof(float));
    std::memset(sums, 0, MOST_ROWS * width * sizeof(float));
    for (int r = 0; r < rows; r++) {
        std::memcpy(queries + r * width, attention.queries + (row + r) * size,
                    size * sizeof(float));
        best[r] = -INFINITY;
        total[r] = 0;
    }
    const int64_t length = attention.cached(piece.head / attention.kv_heads);
    const int past = static_cast<int>(length) - attention.tokens;
    int end = 0;
    for (int r = piece.first; r < piece.last; r++)
        end = std::max(end, past + r % attention.tokens + 1);
    const int start = static_cast<int>(length * piece.split / piece.splits);
    end = std::min(end, static_cast<int>(length * (piece.split + 1) / piece.splits));

    for (int token = start; token < end; token += TILE) {
        const int tokens = std::min(TILE, end - token);
        const size_t place = static_cast<size_t>(piece.head) * attention.room + token;
        read_tile(attention.keys, place, tokens, size, tile);
        for (int r = 0; r < rows; r += V::HEAD_ROWS)
            for (int t = 0; t < tokens; t += 4) score_rows<V::HEAD_ROWS>(tile, r, t);
        for (int r = 0; r < rows; r++) {
            const int seen = past + (piece.first + r) % attention.tokens + 1 - token;
            const int visible = std::min(std::max(seen, 0), tokens);
            const float shrink = soften(scores[r], visible, best + r, total + r);
            if (shrink != 1)
                for (int at = 0; at < width; at++) sums[r * width + at] *= shrink;
        }
        read_tile(attention.values, place, tokens, size, tile);
        for (int r = 0; r < rows; r += V::HEAD_ROWS) mix_width<V::HEAD_ROWS>(tile, r, tokens);
    }

    for (int r = 0; r < rows; r++) {
        float* to = attention.mixed + (row + r) * size;
        if (piece.splits > 1) {
            const size_t partial = (static_cast<size_t>(piece.head) * piece.splits + piece.split) *
                                       attention.rows() + piece.first + r;
            to = attention.partials + partial * attention.partial_size();
            to[size] = best[r];
            to[size + 1] = total[r];
        }
        const float factor = piece.splits > 1 ? 1 : 1 / total[r];
        for (int at = 0; at < size; at++) to[at] = sums[r * width + at] * factor;
    }
}

// What the ranges of a head came to, as one.
void merge(const Attention& attention, int splits, int head) {
    const int size = attention.size, rows = attention.rows();
    const size_t step = attention.partial_size() * rows;
    for (int row = 0; row < rows; row++) {
        const float* part = attention.partials + attention.partial_size() *
                                (static_cast<size_t>(head) * splits * rows + row);
        float* to = attention.mixed + (static_cast<size_t>(head) * rows + row) * size;
        float best = -INFINITY, total = 0;
        for (int split = 0; split < splits; split++) best = std::max(best, part[split * step + size]);
        std::memset(to, 0, size * sizeof(float));
        for (int split = 0; split < splits; split++) {
            const float* from = part + split * step;
            if (from[size + 1] == 0) continue;  // all of the range is in the row's future
            const float factor = exponential(from[size] - best);
            total += from[size + 1] * factor;
            for (int at = 0; at < size; at++) to[at] += from[at] * factor;
        }
        for (int at = 0; at < size; at++) to[at] *= 1 / total;
    }
}

// ---- Before and after ----

// Pairs (0, 1), (2, 3), ... are turned by the token's angles, the rest of the head passes through.
inline void rotate(float* x, const float* cos, const float* sin, int pairs) {
    for (int pair = 0; pair < pairs; pair++) {
        const float even = x[2 * pair], odd = x[2 * pair + 1];
        x[2 * pair] = even * cos[pair] - odd * sin[pair];
        x[2 * pair + 1] = odd * cos[pair] + even * sin[pair];
    }
}

// One new token of one sequence, `token` of B * T: its keys and values into the cache, its queries
// into `queries`, scaled, and turned where keys are.
void append(const Attention& attention, const Fresh& fresh, int token) {
    alignas(64) float x[MOST_HEAD_SIZE];
    const int size = attention.size, kv_heads = attention.kv_heads, shared = attention.shared;
    const int sequence = token / attention.tokens, at = token % attention.tokens;
    const float* cos = fresh.cos + static_cast<size_t>(at) * fresh.pairs;
    const float* sin = fresh.sin + static_cast<size_t>(at) * fresh.pairs;
    const float scale = static_cast<float>(1 / std::sqrt(static_cast<double>(size)));
    const int place = attention.cached(sequence) - attention.tokens + at;
    for (int head = 0; head < kv_heads; head++) {
        const size_t from = (static_cast<size_t>(token) * kv_heads + head) * size;
        const size_t to =
            (static_cast<size_t>(sequence) * kv_heads + head) * attention.room + place;
        load_floats(fresh.k, fresh.dtype, from, size, x);
        rotate(x, cos, sin, fresh.pairs);
        write_vector(attention.keys, to, size, x);
        load_floats(fresh.v, fresh.dtype, from, size, x);
        write_vector(attention.values, to, size, x);
    }
    for (int head = 0; head < kv_heads * shared; head++) {
        load_floats(fresh.q, fresh.dtype,
                    (static_cast<size_t>(token) * kv_heads * shared + head) * size, size, x);
        rotate(x, cos, sin, fresh.pairs);
        for (int number = 0; number < size; number++) x[number] *= scale;
        if (attention.keys.format == KV_INT4) turn(x, size);
        const size_t row =
            (static_cast<size_t>(sequence) * kv_heads * shared + head) * attention.tokens + at;
        std::memcpy(attention.queries + row * size, x, size * sizeof(float));
    }
}

// One token's row of `mixed` as o_proj takes it: out [B, T, H * D].
void collect(const Attention& attention, int token, void* out, Dtype dtype) {
    alignas(64) float x[MOST_HEAD_SIZE];
    const int size = attention.size, heads = attention.kv_heads * attention.shared;
    const int sequence = token / attention.tokens, at = token % attention.tokens;
    for (int head = 0; head < heads; head++) {
        const size_t row = (static_cast<size_t>(sequence) * heads + head) * attention.tokens + at;
        std::memcpy(x, attention.mixed + row * size, size * sizeof(float));
        if (attention.values.format == KV_INT4) turn(x, size);
        store_floats(x, out, dtype, (static_cast<size_t>(token) * heads + head) * size, size);
    }
}
