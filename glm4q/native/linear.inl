// The matmul for any instruction set: vectors V of LANES outputs. Included by instruction_set.inl.

// Sums that a thread keeps on its stack. More rows of activations than fit take another pass.
constexpr int SUMS = 1 << 15;
constexpr int LEAST_SPAN = 64;
constexpr int PASS_ROWS = SUMS / LEAST_SPAN;

// A product of few rows waits for memory. The processor's own prefetching follows rows of words that
// are some pages long, if a chunk has at most STREAMS of them; of more rows, pages are too many at
// once. A chunk is not cut for that: each number of rows must make the same bits.
constexpr int WAITING_ROWS = 3;  // so few ask for their words more than once
constexpr int STREAMS = 16;
constexpr int MOST_SPAN = 4096;  // outputs: the next chunk of so many fits the second-level cache
constexpr int CROWDED_SPAN = 1024;
constexpr int NEAR_SUMS = 8192;  // in the first-level cache

// A chunk that many blocks of rows meet is unpacked once, for so few outputs that it stays in the
// first-level cache. Its words lie apart in memory, each of a chunk's rows in another page, so that
// copying also spares the cache lines that would evict each other.
constexpr int UNPACKED_SPAN = 64;
constexpr int UNPACKED_WORDS = CHUNK / 2 * UNPACKED_SPAN;

// Inputs that share the scales of a weight: at most CHUNK. They are some segments of activations.
struct Chunk {
    const uint32_t* words;   // its first row of words, [rows, N]; or unpacked, [rows * STEPS, span]
    int rows, stride;        // rows of one segment
    int segments;
    ptrdiff_t ahead;         // words from here to those that are multiplied next
    typename V::Book book;
    const uint16_t* scales;  // float16 [N]; null if the scales are float32
    const float* wide;       // float32 [N]; null if the scales are float16
    const float* zeros;      // [span], zero points; null if all are the middle code
    const uint32_t* codes;   // of the activations
    const float* x_scales;   // [segments, R]
    const float* x_sums;     // [R]
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

// Adds the products of R rows and C vectors of outputs to sums [R, span], from output `at` on; the
// span begins at output `first`. UNPACKED: the chunk's words are. count: outputs of the last
// vector, if that is not WHOLE.
template <class Codes, class Sum, bool UNPACKED, int R, int C, bool WHOLE>
inline void add_block(const Chunk& chunk, int at, float* sums, int span, int first, int count) {
    constexpr int STEPS = Codes::STEPS;
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
                    for (int c = 0; c < C; c++)
                        acc[r][c] = Sum::add(acc[r][c], bytes[c], codes[r]);
                }
            }
        }
        GLM4Q_UNROLL
        for (int r = 0; r < R; r++) {
            const typename V::Floats x_scale = V::fill(chunk.x_scales[segment * R + r]);
            GLM4Q_UNROLL
            for (int c = 0; c < C; c++)
                products[r][c] = V::multiply_add(V::to_floats(Sum::total(acc[r][c])), x_scale,
                                                 products[r][c]);
        }
    }
    GLM4Q_UNROLL
    for (int c = 0; c < C; c++) {
        const int place = at - first + c * V::LANES;
        const typename V::Floats scale = load_scales<WHOLE>(chunk, at + c * V::LANES, count);
        const typename V::Floats zero =
            chunk.zeros ? V::load(chunk.zeros + place) : V::fill(Codes::MIDDLE);
        GLM4Q_UNROLL
        for (int r = 0; r < R; r++) {
            float* to = sums + r * span + place;
            const typename V::Floats less = V::fill(-chunk.x_sums[r]);
            V::store(to, V::multiply_add(V::multiply_add(zero, less, products[r][c]), scale,
                                         V::load(to)));
        }
    }
}

// Adds one block of rows over the outputs `start` to `stop` of a span.
template <class Codes, class Sum, bool UNPACKED, int R>
inline void add_span(const Chunk& chunk, float* sums, int span, int start, int stop) {
    constexpr int C = V::columns(R);
    int at = start;
    for (; at + C * V::LANES <= stop; at += C * V::LANES)
        add_block<Codes, Sum, UNPACKED, R, C, true>(chunk, at, sums, span, start, 0);
    for (; at < stop; at += V::LANES)
        add_block<Codes, Sum, UNPACKED, R, 1, false>(chunk, at, sums, span, start,
                                                     std::min(stop - at, V::LANES));
}

template <class Codes, class Sum, bool UNPACKED, int R = V::BLOCK_ROWS>
inline void add_rows(int rows, const Chunk& chunk, float* sums, int span, int start, int stop) {
    // More than DIRECT_BLOCKS nearly equal blocks have at least so many rows each.
    constexpr int FEWEST =
        UNPACKED ? (V::DIRECT_BLOCKS * V::BLOCK_ROWS + 1) / (V::DIRECT_BLOCKS + 1) : 1;
    if constexpr (R > FEWEST) {
        if (rows < R)
            return add_rows<Codes, Sum, UNPACKED, R - 1>(rows, chunk, sums, span, start, stop);
    }
    add_span<Codes, Sum, UNPACKED, R>(chunk, sums, span, start, stop);
}

// Unpacks the outputs `start` to `stop` of a chunk, and lets it begin there.
template <class Codes>
inline void unpack_chunk(Chunk& chunk, int start, int stop, uint32_t* to) {
    const int span = (stop - start + V::LANES - 1) / V::LANES * V::LANES;
    const uint32_t* words = chunk.words;
    for (int row = 0; row < chunk.rows * chunk.segments; row++, words += chunk.stride) {
        for (int at = 0; at < span; at += V::LANES) {
            const uint32_t* place = words + start + at;
            if (at % 16 == 0) __builtin_prefetch(place + chunk.ahead, 0, 2);
            const int left = stop - start - at;
            typename Codes::Steps steps;
            Codes::unpack(left >= V::LANES ? V::load(place) : V::load_part(place, left),
                          chunk.book, steps);
            GLM4Q_UNROLL
            for (int step = 0; step < Codes::STEPS; step++)
                V::store(to + (row * Codes::STEPS + step) * span + at, steps[step]);
        }
    }
    chunk.words = to;
    chunk.stride = span;
}

// Multiplies the blocks `first` to `last` of rows by the outputs `start` to `stop`. SUMS has room
// for all of these.
template <int BITS, bool BOOK, bool WIDE, bool UNPACKED>
void multiply_span(const Weight& weight, const Activations& x, void* out, Dtype dtype,
                   const Blocks& blocks, int first, int last, int start, int stop) {
    using Codes = Layout<BITS, BOOK, WIDE>;
    using Sum = Dots<WIDE, Codes::SMALL>;
    alignas(64) float sums[SUMS];
    alignas(64) uint32_t unpacked[UNPACKED ? UNPACKED_WORDS : 1];
    alignas(64) float zeros[MOST_SPAN + V::LANES];
    uint8_t book[BOOK_SIZE] = {};
    if (BOOK)
        for (int code = 0; code < BOOK_SIZE; code++)
            book[code] = static_cast<uint8_t>(static_cast<int>(weight.book[code]) + Codes::MIDDLE);
    const int above = blocks.start(first), rows = blocks.start(last) - above;
    const int span = (stop - start + V::LANES - 1) / V::LANES * V::LANES;
    const int size = x.chunk, word_rows = size * BITS / 32;
    const size_t chunk_words = static_cast<size_t>(word_rows) * weight.outputs;
    std::memset(sums, 0, static_cast<size_t>(rows) * span * sizeof(float));
    for (int input = 0, group = -1; input < weight.inputs; input += size) {
        Chunk chunk = {};
        if (weight.qzeros && group != input / weight.group)
            unpack_zeros<BITS>(weight, input / weight.group, start, stop, zeros);
        group = input / weight.group;
        const bool ends = input + size >= weight.inputs;
        const size_t before = input / size * chunk_words;
        chunk.words = weight.qweight + before;
        chunk.segments = size / x.segment;
        chunk.rows = word_rows / chunk.segments;
        chunk.stride = weight.outputs;
        chunk.ahead = ends ? span - static_cast<ptrdiff_t>(before)
                           : static_cast<ptrdiff_t>(chunk_words);
        chunk.book = V::load_book(book);
        chunk.zeros = weight.qzeros ? zeros : nullptr;
        const size_t scales = static_cast<size_t>(group) * weight.outputs;
        if (weight.wide)
            chunk.wide = static_cast<const float*>(weight.scales) + scales;
        else
            chunk.scales = static_cast<const uint16_t*>(weight.scales) + scales;
        if (UNPACKED) unpack_chunk<Codes>(chunk, start, stop, unpacked);
        for (int block = first; block < last; block++) {
            const int top = blocks.start(block), height = blocks.start(block + 1) - top;
            chunk.codes = x.codes + (static_cast<size_t>(top) * x.inputs + input * height) /
                                        Codes::PER_STEP;
            chunk.x_scales = x.scales + static_cast<size_t>(top) * x.segments +
                             input / x.segment * height;
            chunk.x_sums = x.sums + static_cast<size_t>(top) * x.chunks + input / size * height;
            add_rows<Codes, Sum, UNPACKED>(height, chunk, sums + (top - above) * span, span, start,
                                           stop);
        }
    }
    for (int row = 0; row < rows; row++)
        store_floats(sums + row * span, out, dtype,
                     static_cast<size_t>(above + row) * weight.outputs + start, stop - start);
}

template <bool WIDE, bool UNPACKED>
auto span_function(const Weight& weight) {
    return weight.book        ? multiply_span<4, true, WIDE, UNPACKED>
           : weight.bits == 4 ? multiply_span<4, false, WIDE, UNPACKED>
                              : multiply_span<8, false, WIDE, UNPACKED>;
}

void multiply(const Weight& weight, const Activations& x, void* out, Dtype dtype, int start,
              int stop) {
    const Blocks blocks(x.rows, V::BLOCK_ROWS);
    const int at_once = PASS_ROWS / V::BLOCK_ROWS;
    for (int first = 0; first < blocks.count; first += at_once) {
        const int last = std::min(first + at_once, blocks.count);
        const int rows = blocks.start(last) - blocks.start(first);
        const bool unpack = last - first > V::DIRECT_BLOCKS;
        const int most = x.chunk * weight.bits / 32 > STREAMS ? CROWDED_SPAN : MOST_SPAN;
        const int span =
            unpack ? UNPACKED_SPAN : std::min(NEAR_SUMS / rows / LEAST_SPAN * LEAST_SPAN, most);
        const auto multiply_codes =
            unpack ? (x.wide ? span_function<true, true> : span_function<false, true>)(weight)
                   : (x.wide ? span_function<true, false> : span_function<false, false>)(weight);
        for (int at = start; at < stop; at += span)
            multiply_codes(weight, x, out, dtype, blocks, first, last, at,
                           std::min(at + span, stop));
    }
}
