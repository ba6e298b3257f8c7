// Products of a block of rows by the outputs of a chunk. Included by instruction_set.inl.

// The place of a block's sums [R, span], and those of what a part of a chunk leaves to the next one:
// whole sums of 16-bit codes, or products of 8-bit codes.
struct BlockSums {
    float* sums;
    uint32_t* partial;
    float* products;
    int span;

    template <class Sum>
    auto totals() const {
        if constexpr (Sum::WHOLE)
            return partial;
        else
            return products;
    }
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

// Multiplies R rows of codes by C vectors of a row of words as they lie in the file.
template <class Codes, class Sum, int R, int C, bool WHOLE, bool FIRST>
inline void multiply_words(const Chunk& chunk, const uint32_t* words, const uint32_t* codes,
                           int count, typename Sum::Sums (&acc)[R][C]) {
    constexpr int AT_ONCE = R > V::SINGLY_ROWS ? C : 1;
    GLM4Q_UNROLL
    for (int from = 0; from < C; from += AT_ONCE) {
        typename V::Ints steps[AT_ONCE][Codes::STEPS];
        GLM4Q_UNROLL
        for (int c = 0; c < AT_ONCE; c++) {
            const uint32_t* place = words + (from + c) * V::LANES;
            constexpr int BITS = 32 / Codes::PER_WORD;
            prefetch<R <= WAITING_ROWS ? V::requests(BITS) : 1>(place + chunk.ahead);
            Codes::unpack(WHOLE ? V::load_once(place, R) : V::load_part(place, count), chunk.book,
                          steps[c]);
        }
        GLM4Q_UNROLL
        for (int step = 0; step < Codes::STEPS; step++) {
            GLM4Q_UNROLL
            for (int r = 0; r < R; r++) {
                GLM4Q_UNROLL
                for (int c = 0; c < AT_ONCE; c++)
                    Sum::template add<FIRST>(acc[r][from + c], steps[c][step], step,
                                             codes[step * R + r]);
            }
        }
    }
}

// Multiplies R rows of codes by C vectors of unpacked words: what a row of words was unpacked to.
template <class Codes, class Sum, int R, int C, bool FIRST>
inline void multiply_unpacked(const uint32_t* words, int stride, const uint32_t* codes,
                              typename Sum::Sums (&acc)[R][C]) {
    GLM4Q_UNROLL
    for (int step = 0; step < Codes::STEPS; step++, words += stride, codes += R) {
        typename V::Ints bytes[C];
        GLM4Q_UNROLL
        for (int c = 0; c < C; c++) bytes[c] = V::load(words + c * V::LANES);
        GLM4Q_UNROLL
        for (int r = 0; r < R; r++) {
            GLM4Q_UNROLL
            for (int c = 0; c < C; c++)
                Sum::template add<FIRST>(acc[r][c], bytes[c], step, codes[r]);
        }
    }
}

// Adds the products of R rows of codes and C vectors of words to `acc`: the rows of words of one
// segment. The sums begin with its FIRST row of words, or go on.
template <class Codes, class Sum, bool UNPACKED, int R, int C, bool WHOLE, bool FIRST>
inline void multiply_segment(const Chunk& chunk, const uint32_t*& words, const uint32_t*& codes,
                             int count, typename Sum::Sums (&acc)[R][C]) {
    constexpr int STEPS = Codes::STEPS;
    const int stride = chunk.stride * (UNPACKED ? STEPS : 1);
    const auto add_row = [&](auto first) {
        if constexpr (UNPACKED)
            multiply_unpacked<Codes, Sum, R, C, first>(words, chunk.stride, codes, acc);
        else
            multiply_words<Codes, Sum, R, C, WHOLE, first>(chunk, words, codes, count, acc);
        words += stride, codes += STEPS * R;
    };
    if constexpr (FIRST) add_row(std::true_type{});
    for (int row = FIRST; row < chunk.rows; row++) add_row(std::false_type{});
}

// Adds products to the sums of outputs from `at` on; the span begins at output `first`.
template <class Codes, class Sum, int R, int C, bool WHOLE>
inline void add_products(const Chunk& chunk, const typename V::Floats (&products)[R][C], int at,
                         const BlockSums& to, int first, int count) {
    GLM4Q_UNROLL
    for (int c = 0; c < C; c++) {
        const int place = at - first + c * V::LANES;
        const typename V::Floats scale = load_scales<WHOLE>(chunk, at + c * V::LANES, count);
        if (Sum::WHOLE && !chunk.zeros) {
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
            const typename V::Floats less = V::fill(-chunk.x_sums[r]);
            V::store(sums, V::multiply_add(V::multiply_add(zero, less, products[r][c]), scale,
                                           V::load(sums)));
        }
    }
}

// Makes products of the whole sums of 16-bit codes, which a chunk's parts leave to each other.
// Returns whether the chunk ends.
template <class Codes, class Sum, bool UNPACKED, int R, int C, bool WHOLE>
inline bool multiply_wide(const Chunk& chunk, const uint32_t* words, int count, uint32_t* partial,
                          int span, typename V::Floats (&products)[R][C]) {
    constexpr bool CUT = CUTS && !UNPACKED && R <= WAITING_ROWS;
    const uint32_t* codes = chunk.codes;
    typename Sum::Sums acc[R][C];
    GLM4Q_UNROLL
    for (int r = 0; r < R; r++) {
        GLM4Q_UNROLL
        for (int c = 0; c < C; c++) acc[r][c] = Sum::zero();
    }
    if constexpr (CUT) {
        if (!chunk.begins) load_vectors<R, C>(partial, span, acc);
    }
    multiply_segment<Codes, Sum, UNPACKED, R, C, WHOLE, false>(chunk, words, codes, count, acc);
    if constexpr (CUT) {
        if (!chunk.ends) return store_vectors<R, C>(acc, partial, span), false;
    }
    GLM4Q_UNROLL
    for (int r = 0; r < R; r++) {
        const auto too_much = V::broadcast(static_cast<int32_t>(chunk.too_much[r]));
        const typename V::Floats x_scale = V::fill(chunk.x_scales[r]);
        GLM4Q_UNROLL
        for (int c = 0; c < C; c++) {
            const auto total = V::minus(Sum::total(acc[r][c]), too_much);
            products[r][c] = V::multiply_add(V::to_floats(total), x_scale, V::zero());
        }
    }
    return true;
}

// Makes products of 8-bit codes, whose segments have multiples of their own: the parts of a chunk
// leave totals to each other. Returns whether the chunk ends.
template <class Codes, class Sum, bool UNPACKED, int R, int C, bool WHOLE, class Number>
inline bool multiply_narrow(const Chunk& chunk, const uint32_t* words, int count, Number* partial,
                            int span, typename V::Floats (&products)[R][C]) {
    constexpr bool CUT = CUTS && !UNPACKED && R <= WAITING_ROWS;
    const uint32_t* codes = chunk.codes;
    typename Sum::Total totals[R][C];
    GLM4Q_UNROLL
    for (int r = 0; r < R; r++) {
        GLM4Q_UNROLL
        for (int c = 0; c < C; c++) {
            if constexpr (Sum::WHOLE)
                totals[r][c] = V::broadcast(static_cast<int32_t>(0 - chunk.too_much[r]));
            else
                totals[r][c] = V::zero();
        }
    }
    if constexpr (CUT) {
        if (!chunk.begins) load_vectors<R, C>(partial, span, totals);
    }
    for (int segment = 0; segment < chunk.segments; segment++) {
        typename Sum::Sums acc[R][C];
        multiply_segment<Codes, Sum, UNPACKED, R, C, WHOLE, true>(chunk, words, codes, count, acc);
        GLM4Q_UNROLL
        for (int r = 0; r < R; r++) {
            GLM4Q_UNROLL
            for (int c = 0; c < C; c++)
                totals[r][c] = Sum::add_segment(totals[r][c], acc[r][c],
                                                chunk.x_multiples[segment * R + r]);
        }
    }
    if constexpr (CUT) {
        if (!chunk.ends) return store_vectors<R, C>(totals, partial, span), false;
    }
    GLM4Q_UNROLL
    for (int r = 0; r < R; r++) {
        GLM4Q_UNROLL
        for (int c = 0; c < C; c++) {
            products[r][c] = floats_of(totals[r][c]);
            if (V::WHOLE_MULTIPLES)
                products[r][c] =
                    V::multiply_add(products[r][c], V::fill(chunk.x_units[r]), V::zero());
        }
    }
    return true;
}

// Adds the products of R rows and C vectors of outputs from `at` on; the span begins at output
// `first`. UNPACKED: the chunk's words are. count: outputs of the last vector, if that is not WHOLE.
template <class Codes, class Sum, bool UNPACKED, int R, int C, bool WHOLE>
inline void add_block(const Chunk& chunk, int at, const BlockSums& to, int first, int count) {
    const uint32_t* words = chunk.words + (UNPACKED ? at - first : at);
    const int place = at - first;
    typename V::Floats products[R][C];
    bool ends;
    if constexpr (Codes::SIXTEEN)
        ends = multiply_wide<Codes, Sum, UNPACKED, R, C, WHOLE>(
            chunk, words, count, to.partial + place, to.span, products);
    else
        ends = multiply_narrow<Codes, Sum, UNPACKED, R, C, WHOLE>(
            chunk, words, count, to.template totals<Sum>() + place, to.span, products);
    if (ends) add_products<Codes, Sum, R, C, WHOLE>(chunk, products, at, to, first, count);
}

// Adds the products of an unpacked chunk of 16-bit codes, by half as many multiplications.
template <class Codes, class Sum, int R, int C, bool WHOLE>
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
    add_products<Codes, Sum, R, C, WHOLE>(chunk, products, at, to, first, count);
}

// Adds one block of rows over the outputs `start` to `stop` of a span.
template <class Codes, class Sum, bool UNPACKED, int R>
inline void add_span(const Chunk& chunk, const BlockSums& to, int start, int stop) {
    int at = start;
    if constexpr (crosses<Codes, UNPACKED>()) {
        constexpr int C = V::CROSSED_COLUMNS;
        for (; at + C * V::LANES <= stop; at += C * V::LANES)
            add_crossed_block<Codes, Sum, R, C, true>(chunk, at, to, start, 0);
        for (; at < stop; at += V::LANES)
            add_crossed_block<Codes, Sum, R, 1, false>(chunk, at, to, start,
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
