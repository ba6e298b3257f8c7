// A chunk of a weight's inputs, and the activations that it meets. Included by instruction_set.inl.

// Sums that a thread keeps on its stack. More rows of activations than fit take another pass.
constexpr int SUMS = 1 << 15;
constexpr int LEAST_SPAN = 64;
constexpr int PASS_ROWS = SUMS / LEAST_SPAN;

// A product of few rows waits for memory. The processor's own prefetching follows rows of words that
// are some pages long, if few of them are read at once; of more rows, pages are too many. So a chunk
// of more than V::STREAMS rows of words is cut into parts where few rows wait. What a part has summed
// waits in the cache for the next one, to the bit.
constexpr int WAITING_ROWS = 3;  // so few ask for their words more than once
constexpr bool CUTS = V::STREAMS < CHUNK / 4;  // of the 32 rows of words of 8-bit codes
constexpr int MOST_SPAN = 4096;  // outputs: the next chunk of so many fits the second-level cache
constexpr int CROWDED_ROWS = 16;  // more rows of words than these are read over shorter spans
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
    const uint32_t* crossed;  // [span], of an unpacked chunk: see linear_crossed.inl
    bool begins, ends;       // which parts of a chunk that is cut these rows are
    const uint32_t* codes;   // of the activations
    const float* x_scales;         // [R], of 16-bit codes
    const uint32_t* x_multiples;   // [segments, R], of 8-bit codes
    const float* x_units;          // [R]
    float x_sums[V::BLOCK_ROWS];   // of the numbers that a row's codes stand for
    uint32_t too_much[V::BLOCK_ROWS];  // what whole sums of products have too much
};

template <class Codes, bool UNPACKED>
constexpr bool crosses() {
    return UNPACKED && Codes::SIXTEEN && V::CROSSED;
}

// The number of parts of a chunk of so many segments and rows of words, for `rows` rows of codes.
// A part has whole segments.
static_assert(SEGMENT / 4 <= V::STREAMS, "a segment of 8-bit codes is cut");
inline int parts_of(int segments, int word_rows, int rows) {
    if (rows > WAITING_ROWS || word_rows <= V::STREAMS) return 1;
    const int units = segments > 1 ? segments : word_rows;
    int parts = std::min((word_rows + V::STREAMS - 1) / V::STREAMS, units);
    while (units % parts) parts++;
    return parts;
}

// The weight's side of a part of the chunk that begins at `input`.
template <int BITS>
inline Chunk chunk_at(const Weight& weight, const Activations& x, int input, int part, int parts,
                      int span) {
    Chunk chunk = {};
    const int word_rows = x.chunk * BITS / 32;
    const int segments = x.chunk / x.segment;
    chunk.segments = std::max(segments / parts, 1);
    chunk.rows = word_rows / parts / chunk.segments;
    chunk.stride = weight.outputs;
    chunk.begins = part == 0;
    chunk.ends = part == parts - 1;
    const size_t row = static_cast<size_t>(input / x.chunk) * word_rows + part * (word_rows / parts);
    const auto before = static_cast<ptrdiff_t>(row * weight.outputs);
    const bool last = chunk.ends && input + x.chunk >= weight.inputs;
    chunk.words = weight.qweight + before;
    chunk.ahead = last ? span - before
                       : static_cast<ptrdiff_t>(word_rows / parts) * weight.outputs;
    const size_t scales = static_cast<size_t>(input / weight.group) * weight.outputs;
    if (weight.wide)
        chunk.wide = static_cast<const float*>(weight.scales) + scales;
    else
        chunk.scales = static_cast<const uint16_t*>(weight.scales) + scales;
    return chunk;
}

// Lets a chunk multiply the `height` rows of activations from `top` on, which are one block.
template <class Codes, class Sum, bool UNPACKED>
inline void meet_block(Chunk& chunk, const Activations& x, int input, int part, int top,
                       int height) {
    const int before = part * chunk.segments * chunk.rows;  // rows of words
    chunk.codes = x.codes + x.codes_place(input, top, height) / Codes::PER_STEP +
                  before * Codes::STEPS * height;
    const size_t scales = x.scales_place(input, top, height);
    chunk.x_scales = x.scales + scales;
    chunk.x_multiples = x.multiples + scales + part * chunk.segments * height;
    const size_t place = x.sums_place(input, top);
    chunk.x_units = x.units + place;
    for (int row = 0; row < height; row++) {
        const uint32_t sum = x.code_sums[place + row];
        chunk.x_sums[row] = static_cast<float>(static_cast<int32_t>(sum)) *
                            (Codes::SIXTEEN ? chunk.x_scales[row] : chunk.x_units[row]);
        chunk.too_much[row] = chunk.zeros ? 0 : static_cast<uint32_t>(Codes::MIDDLE) * sum;
        if (crosses<Codes, UNPACKED>()) chunk.too_much[row] += x.crossed[place + row];
    }
}

// Asks for the codes of the next block of `height` rows, in the first-level cache. Codes of 16 bits
// would be waited for; for codes of 8 bits the processor's own prefetching measured as fast.
template <class Codes>
inline void ask_for_next_block(const Chunk& chunk, int inputs, int height) {
    const int words = inputs / Codes::PER_STEP * height;
    for (int word = 0; word < words; word += 16)
        __builtin_prefetch(chunk.codes + words + word, 0, 3);
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
