// Products of a block of rows by the outputs of a chunk. Included by instruction_set.inl.

// The place of a block's sums [R, span], and that of whole numbers which a part of a chunk leaves to
// the next one.
struct BlockSums {
    float* sums;
    uint32_t* partial;
    int span;
};

template <bool WHOLE>
inline typename V::Floats load_scales(const Chunk& chunk, int at, int count) {
    if (chunk.scales) {
        const uint16_t* place = chunk.scales + at;
        return WHOLE ? V::load_half(place) : V::half_part(place, count);
    }
    if (WHOLE) return V::load(chunk.wide + at);
    alignas(64) float padded[V::LANES] = {};
    std::memcpy(padded, chunk.wide + at, count * sizeof(float));
    return V::load(padded);
}

// Asks for the words that are multiplied after these, in the second-level cache, and more than once
// for each line: on a Zen 4 that reads 38 GB/s in a plain sum, one row read 32 GB/s with one request
// a line, 40 with two, 43 with four. Presumably the processor drops some while many wait.
template <int REQUESTS>
inline void prefetch(const uint32_t* place) {
    GLM4Q_UNROLL
    for (int request = 0; request < REQUESTS; request++) __builtin_prefetch(place, 0, 2);
}

// Multiplies R rows of codes by C vectors of words as they lie in the file: one segment.
template <class Codes, class Sum, bool UNPACKED, int R, int C, bool WHOLE>
inline void multiply_segment(const Chunk& chunk, const uint32_t*& words, const uint32_t*& codes,
                             int count, typename Sum::Sums (&acc)[R][C]) {
    constexpr int STEPS = Codes::STEPS;
    GLM4Q_UNROLL
    for (int r = 0; r < R; r++) {
        GLM4Q_UNROLL
        for (int c = 0; c < C; c++) acc[r][c] = Sum::zero();
    }
    for (int row = 0; row < chunk.rows; row++) {
        typename V::Ints steps[C][STEPS];
        GLM4Q_UNROLL
        for (int c = 0; c < C && !UNPACKED; c++) {
            const uint32_t* place = words + c * V::LANES;
            prefetch<R <= WAITING_ROWS ? V::REQUESTS : 1>(place + chunk.ahead);
            Codes::unpack(WHOLE ? V::load(place) : V::load_part(place, count), chunk.book,
                          steps[c]);
        }
        if (!UNPACKED) words += chunk.stride;
        GLM4Q_UNROLL
        for (int step = 0; step < STEPS; step++, codes += R) {
            typename V::Ints bytes[C];
            GLM4Q_UNROLL
            for (int c = 0; c < C; c++)
                bytes[c] = UNPACKED ? V::load(words + c * V::LANES) : steps[c][step];
            if (UNPACKED) words += chunk.stride;
            GLM4Q_UNROLL
            for (int r = 0; r < R; r++) {
                GLM4Q_UNROLL
                for (int c = 0; c < C; c++) acc[r][c] = Sum::add(acc[r][c], bytes[c], codes[r]);
            }
        }
    }
}

// Adds products to the sums of outputs from `at` on; the span begins at output `first`.
template <class Codes, int R, int C, bool WHOLE>
inline void add_products(const Chunk& chunk, const typename V::Floats (&products)[R][C], int at,
                         const BlockSums& to, int first, int count) {
    GLM4Q_UNROLL
    for (int c = 0; c < C; c++) {
        const int place = at - first + c * V::LANES;
        const typename V::Floats scale = load_scales<WHOLE>(chunk, at + c * V::LANES, count);
        if (Codes::SIXTEEN && !chunk.zeros) {
            GLM4Q_UNROLL
            for (int r = 0; r < R; r++) {
                float* sums = to.sums + r * to.span + place;
                V::store(sums, V::multiply_add(products[r][c], scale, V::load(sums)));
            }
            continue;
        }
        const typename V::Floats zero =
            chunk.zeros ? V::load(chunk.zeros + place) : V::fill(Codes::MIDDLE);
        GLM4Q_UNROLL
        for (int r = 0; r < R; r++) {
            float* sums = to.sums + r * to.span + place;
            const typename V::Floats less = V::fill(-chunk.template x_sum<Codes>(r));
            V::store(sums, V::multiply_add(V::multiply_add(zero, less, products[r][c]), scale,
                                           V::load(sums)));
        }
    }
}

// Adds up the parts of a chunk of 16-bit codes. Returns what its products are in whole numbers, once
// it ends.
inline typename V::Ints whole_total(const Chunk& chunk, typename V::Ints total, int r,
                                    uint32_t* partial) {
    if (!chunk.begins) total = V::plus(total, V::load(partial));
    if (!chunk.ends) V::store(partial, total);
    return V::minus(total, V::broadcast(static_cast<int32_t>(chunk.too_much[r])));
}

// Adds the products of R rows and C vectors of outputs from `at` on; the span begins at output
// `first`. UNPACKED: the chunk's words are. count: outputs of the last vector, if that is not WHOLE.
template <class Codes, class Sum, bool UNPACKED, int R, int C, bool WHOLE>
inline void add_block(const Chunk& chunk, int at, const BlockSums& to, int first, int count) {
    const uint32_t* words = chunk.words + (UNPACKED ? at - first : at);
    const uint32_t* codes = chunk.codes;
    typename V::Floats products[R][C];
    GLM4Q_UNROLL
    for (int r = 0; r < R; r++) {
        GLM4Q_UNROLL
        for (int c = 0; c < C; c++) products[r][c] = V::zero();
    }
    for (int segment = 0; segment < chunk.segments; segment++) {
        typename Sum::Sums acc[R][C];
        multiply_segment<Codes, Sum, UNPACKED, R, C, WHOLE>(chunk, words, codes, count, acc);
        GLM4Q_UNROLL
        for (int r = 0; r < R; r++) {
            const typename V::Floats x_scale = V::fill(chunk.x_scales[segment * R + r]);
            GLM4Q_UNROLL
            for (int c = 0; c < C; c++) {
                typename V::Ints total = Sum::total(acc[r][c]);
                if constexpr (Codes::SIXTEEN)
                    total = whole_total(
                        chunk, total, r, to.partial + r * to.span + at - first + c * V::LANES);
                products[r][c] =
                    V::multiply_add(V::to_floats(total), x_scale, products[r][c]);
            }
        }
    }
    if (chunk.ends) add_products<Codes, R, C, WHOLE>(chunk, products, at, to, first, count);
}

// Does the same with an unpacked chunk of 16-bit codes, by half as many multiplications.
template <class Codes, int R, int C, bool WHOLE>
inline void add_crossed_block(const Chunk& chunk, int at, const BlockSums& to, int first,
                              int count) {
    typename V::Ints acc[R][C];
    GLM4Q_UNROLL
    for (int r = 0; r < R; r++) {
        const auto too_much = V::broadcast(static_cast<int32_t>(chunk.too_much[r]));
        GLM4Q_UNROLL
        for (int c = 0; c < C; c++)
            acc[r][c] = V::minus(V::load(chunk.crossed + at - first + c * V::LANES), too_much);
    }
    multiply_crossed<typename Codes::Vectors>(chunk.words + at - first, chunk.rows * Codes::STEPS,
                                              chunk.stride, chunk.codes, acc);
    typename V::Floats products[R][C];
    GLM4Q_UNROLL
    for (int r = 0; r < R; r++) {
        const typename V::Floats x_scale = V::fill(chunk.x_scales[r]);
        GLM4Q_UNROLL
        for (int c = 0; c < C; c++)
            products[r][c] = V::multiply_add(V::to_floats(acc[r][c]), x_scale, V::zero());
    }
    add_products<Codes, R, C, WHOLE>(chunk, products, at, to, first, count);
}

// Adds one block of rows over the outputs `start` to `stop` of a span.
template <class Codes, class Sum, bool UNPACKED, int R>
inline void add_span(const Chunk& chunk, const BlockSums& to, int start, int stop) {
    int at = start;
    if constexpr (crosses<Codes, UNPACKED>()) {
        constexpr int C = V::CROSSED_COLUMNS;
        for (; at + C * V::LANES <= stop; at += C * V::LANES)
            add_crossed_block<Codes, R, C, true>(chunk, at, to, start, 0);
        for (; at < stop; at += V::LANES)
            add_crossed_block<Codes, R, 1, false>(chunk, at, to, start,
                                                     std::min(stop - at, V::LANES));
    } else {
        constexpr int C = V::columns(R);
        for (; at + C * V::LANES <= stop; at += C * V::LANES)
            add_block<Codes, Sum, UNPACKED, R, C, true>(chunk, at, to, start, 0);
        for (; at < stop; at += V::LANES)
            add_block<Codes, Sum, UNPACKED, R, 1, false>(chunk, at, to, start,
                                                         std::min(stop - at, V::LANES));
    }
}

template <class Codes, class Sum, bool UNPACKED, int R = V::BLOCK_ROWS>
inline void add_rows(int rows, const Chunk& chunk, const BlockSums& to, int start, int stop) {
    // More than DIRECT_BLOCKS nearly equal blocks have at least so many rows each.
    constexpr int FEWEST =
        UNPACKED ? (V::DIRECT_BLOCKS * V::BLOCK_ROWS + 1) / (V::DIRECT_BLOCKS + 1) : 1;
    if constexpr (R > FEWEST) {
        if (rows < R)
            return add_rows<Codes, Sum, UNPACKED, R - 1>(rows, chunk, to, start, stop);
    }
    add_span<Codes, Sum, UNPACKED, R>(chunk, to, start, stop);
}
