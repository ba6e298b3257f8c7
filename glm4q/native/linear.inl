// The matmul for any instruction set: vectors V of LANES outputs. Included by instruction_set.inl.

// Sums that a thread keeps on its stack. More rows of activations than fit take another pass.
constexpr int SUMS = 1 << 15;
constexpr int LEAST_SPAN = 64;
constexpr int MOST_SPAN = 4096;
constexpr int PASS_ROWS = SUMS / LEAST_SPAN;

// A segment of a narrow span is multiplied by many blocks. It is copied first: its rows of words
// are a large power of two of bytes from each other, so they would evict each other from the cache.
constexpr int COPIED_SPAN = 256;
constexpr int SEGMENT_WORD_ROWS = SEGMENT / 4;

// The layout of codes in words, and the code that stands for 0 if there are no zero points.
struct FourBits {
    static constexpr int BITS = 4, MIDDLE = 8;
    static constexpr bool NUMBERED = false, SMALL = true;  // small: below 16
};
struct EightBits {
    static constexpr int BITS = 8, MIDDLE = 128;
    static constexpr bool NUMBERED = false, SMALL = false;
};
// Nibbles that are indexes into the bytes of a book: a shuffle instruction looks them up.
struct Numbered {
    static constexpr int BITS = 4, MIDDLE = 128;
    static constexpr bool NUMBERED = true, SMALL = false;
};

// One segment of inputs: its words of the weight, and the scales of its sums.
struct Segment {
    const uint32_t* words;   // its first row of words, [rows, N]
    int rows, stride;
    size_t ahead;            // words from here to the same place of the next segment
    const uint8_t* book;     // [16], for Numbered codes
    const uint16_t* scales;  // float16 [N]; null if the scales are float32
    const float* wide;       // float32 [N]; null if the scales are float16
    const uint32_t* codes;   // of the activations
    const float* x_scales;   // [R]
    const int32_t* x_sums;   // [R]
};

template <bool WHOLE>
inline typename V::Floats load_scales(const Segment& segment, int at, int count) {
    if (segment.scales) {
        const uint16_t* place = segment.scales + at;
        return WHOLE ? V::load_half(place) : V::half_part(place, count);
    }
    if (WHOLE) return V::load(segment.wide + at);
    alignas(64) float padded[V::LANES] = {};
    std::memcpy(padded, segment.wide + at, count * sizeof(float));
    return V::load(padded);
}

// Adds the products of R rows and C vectors of outputs to sums [R, span], from output `at` on.
// zeros: zero points [span]; null if all are the middle code. count: outputs of the last vector, if
// that is not WHOLE.
template <class Codes, int R, int C, bool WHOLE>
inline void add_block(const Segment& segment, int at, const int32_t* zeros, float* sums, int span,
                      int first, int count) {
    typename V::Ints acc[R][C];
    GLM4Q_UNROLL
    for (int r = 0; r < R; r++) {
        GLM4Q_UNROLL
        for (int c = 0; c < C; c++)
            acc[r][c] = zeros ? V::negative_product(zeros + at - first + c * V::LANES,
                                                    segment.x_sums[r])
                              : V::broadcast(-segment.x_sums[r] * Codes::MIDDLE);
    }
    const auto book = V::load_book(segment.book);
    const uint32_t* words = segment.words + at;
    const uint32_t* codes = segment.codes;
    for (int row = 0; row < segment.rows; row++, words += segment.stride) {
        typename V::Ints word[C];
        GLM4Q_UNROLL
        for (int c = 0; c < C; c++) {
            const uint32_t* place = words + c * V::LANES;
            // Prefetch into the second-level cache, one segment ahead. This is twice as fast as the
            // processor's own prefetching, which follows none of so many streams.
            __builtin_prefetch(place + segment.ahead, 0, 2);
            word[c] = WHOLE ? V::load(place) : V::load_part(place, count);
        }
        GLM4Q_UNROLL
        for (int half = 0; half < (Codes::BITS == 4 ? 2 : 1); half++, codes += R) {
            typename V::Ints bytes[C];
            GLM4Q_UNROLL
            for (int c = 0; c < C; c++) {
                bytes[c] = Codes::BITS == 8 ? word[c]
                           : half == 0      ? V::low(word[c])
                                            : V::high(word[c]);
                if (Codes::NUMBERED) bytes[c] = V::look_up(book, bytes[c]);
            }
            GLM4Q_UNROLL
            for (int r = 0; r < R; r++) {
                GLM4Q_UNROLL
                for (int c = 0; c < C; c++)
                    acc[r][c] = Codes::SMALL ? V::dot_nibbles(acc[r][c], bytes[c], codes[r])
                                             : V::dot_bytes(acc[r][c], bytes[c], codes[r]);
            }
        }
    }
    GLM4Q_UNROLL
    for (int c = 0; c < C; c++) {
        const typename V::Floats scale = load_scales<WHOLE>(segment, at + c * V::LANES, count);
        GLM4Q_UNROLL
        for (int r = 0; r < R; r++)
            V::add_scaled(sums + r * span + at - first + c * V::LANES, acc[r][c], scale,
                          segment.x_scales[r]);
    }
}

// Adds one block of rows over the outputs `start` to `stop` of a span.
template <class Codes, int R>
inline void add_segment(const Segment& segment, const int32_t* zeros, float* sums, int span,
                        int start, int stop) {
    int at = start;
    if constexpr (R == 1) {
        for (; at + 8 * V::LANES <= stop; at += 8 * V::LANES)
            add_block<Codes, R, 8, true>(segment, at, zeros, sums, span, start, 0);
    }
    for (; at + 4 * V::LANES <= stop; at += 4 * V::LANES)
        add_block<Codes, R, 4, true>(segment, at, zeros, sums, span, start, 0);
    for (; at + V::LANES <= stop; at += V::LANES)
        add_block<Codes, R, 1, true>(segment, at, zeros, sums, span, start, 0);
    if (at < stop) add_block<Codes, R, 1, false>(segment, at, zeros, sums, span, start, stop - at);
}

template <class Codes, int R = V::BLOCK_ROWS>
inline void add_rows(int rows, const Segment& segment, const int32_t* zeros, float* sums, int span,
                     int start, int stop) {
    if constexpr (R > 1) {
        if (rows < R) return add_rows<Codes, R - 1>(rows, segment, zeros, sums, span, start, stop);
    }
    add_segment<Codes, R>(segment, zeros, sums, span, start, stop);
}

template <int BITS>
void unpack_zeros(const Weight& weight, int group, int start, int stop, int32_t* zeros) {
    constexpr int PER_WORD = 32 / BITS;
    const uint32_t* words =
        weight.qzeros + static_cast<size_t>(group) * (weight.outputs / PER_WORD);
    for (int at = start; at < stop; at++)
        zeros[at - start] = static_cast<int32_t>(words[at / PER_WORD] >> at % PER_WORD * BITS &
                                                 ((1u << BITS) - 1));
}

// Multiplies the blocks `first` to `last` of rows by the outputs `start` to `stop`. SUMS has room
// for all of these.
template <class Codes>
void multiply_span(const Weight& weight, const Activations& x, void* out, Dtype dtype,
                   const Blocks& blocks, int first, int last, int start, int stop) {
    alignas(64) float sums[SUMS];
    alignas(64) uint32_t copy[SEGMENT_WORD_ROWS * COPIED_SPAN];
    alignas(64) int32_t zeros[MOST_SPAN + V::LANES];
    uint8_t book[16] = {};
    if (Codes::NUMBERED)
        for (int code = 0; code < 16; code++)
            book[code] = static_cast<uint8_t>(static_cast<int>(weight.book[code]) + Codes::MIDDLE);
    constexpr int BITS = Codes::BITS;
    const int above = blocks.start(first), rows = blocks.start(last) - above;
    const int span = (stop - start + V::LANES - 1) / V::LANES * V::LANES;
    std::memset(sums, 0, static_cast<size_t>(rows) * span * sizeof(float));
    for (int number = 0, group = -1; number < x.segments; number++) {
        const int input = number * x.segment;
        if (weight.qzeros && group != input / weight.group) {
            group = input / weight.group;
            unpack_zeros<BITS>(weight, group, start, stop, zeros);
        }
        const int inputs = std::min(x.segment, weight.inputs - input);
        Segment segment;
        segment.words = weight.qweight + static_cast<size_t>(input * BITS / 32) * weight.outputs;
        segment.rows = inputs * BITS / 32;
        segment.stride = weight.outputs;
        segment.ahead = static_cast<size_t>(segment.rows) * weight.outputs;
        segment.book = book;
        const size_t scales = static_cast<size_t>(input / weight.group) * weight.outputs;
        segment.scales = nullptr, segment.wide = nullptr;
        if (weight.wide)
            segment.wide = static_cast<const float*>(weight.scales) + scales;
        else
            segment.scales = static_cast<const uint16_t*>(weight.scales) + scales;
        if (span <= COPIED_SPAN && last - first > 2) {
            for (int row = 0; row < segment.rows; row++)
                std::memcpy(copy + row * span,
                            segment.words + static_cast<size_t>(row) * segment.stride + start,
                            (stop - start) * sizeof(uint32_t));
            segment.words = copy - start;
            segment.stride = span;
            segment.ahead = 0;
        }
        for (int block = first; block < last; block++) {
            const int top = blocks.start(block), height = blocks.start(block + 1) - top;
            const size_t scale = static_cast<size_t>(top) * x.segments + number * height;
            segment.codes = x.codes + (static_cast<size_t>(top) * x.inputs + input * height) / 4;
            segment.x_scales = x.scales + scale;
            segment.x_sums = x.sums + scale;
            add_rows<Codes>(height, segment, weight.qzeros ? zeros : nullptr,
                           sums + (top - above) * span, span, start, stop);
        }
    }
    for (int row = 0; row < rows; row++)
        store_floats(sums + row * span, out, dtype,
                     static_cast<size_t>(above + row) * weight.outputs + start, stop - start);
}

void multiply(const Weight& weight, const Activations& x, void* out, Dtype dtype, int start,
              int stop) {
    const Blocks blocks(x.rows, V::BLOCK_ROWS);
    const int at_once = PASS_ROWS / V::BLOCK_ROWS;
    const auto multiply_codes = weight.book        ? multiply_span<Numbered>
                                : weight.bits == 4 ? multiply_span<FourBits>
                                                   : multiply_span<EightBits>;
    for (int first = 0; first < blocks.count; first += at_once) {
        const int last = std::min(first + at_once, blocks.count);
        const int rows = blocks.start(last) - blocks.start(first);
        const int span = std::min(SUMS / rows / LEAST_SPAN * LEAST_SPAN, MOST_SPAN);
        for (int at = start; at < stop; at += span)
            multiply_codes(weight, x, out, dtype, blocks, first, last, at,
                           std::min(at + span, stop));
    }
}

// Rounds a segment of `count` floats to int8 codes, in order.
inline void quantize_segment(const float* x, int count, int8_t* codes, float* scale, int32_t* sum) {
    // Magnitudes are compared by their bits: those of NaN are the largest, so NaN is not lost.
    int32_t most = 0;
    for (int at = 0; at < count; at++)
        most = std::max(most, static_cast<int32_t>(bits_of_float(x[at]) & 0x7fffffff));
    const float largest = float_of_bits(static_cast<uint32_t>(most));
    const float inverse = largest > 0 ? 127 / largest : 0;
    int32_t total = 0;
    for (int at = 0; at < count; at++) {
        const int32_t code = round_code(x[at] * inverse);
        codes[at] = static_cast<int8_t>(code);
        total += code;
    }
    *scale = largest / 127;
    *sum = total;
}

// Stores the words of a segment, [count / 4], `stride` words from each other.
template <int BITS>
inline void store_codes(const int8_t* codes, int count, uint32_t* words, int stride) {
    for (int word = 0; word < count / 4; word++) {
        const int8_t* from = codes + (BITS == 4 ? word / 2 * 8 + word % 2 : word * 4);
        constexpr int STEP = BITS == 4 ? 2 : 1;
        uint32_t packed = 0;
        for (int at = 0; at < 4; at++)
            packed |= static_cast<uint32_t>(static_cast<uint8_t>(from[at * STEP])) << 8 * at;
        words[static_cast<size_t>(word) * stride] = packed;
    }
}

void quantize(const void* x, Dtype dtype, int bits, const Activations& to, int first, int last) {
    const int height = last - first;
    for (int row = first; row < last; row++) {
        for (int number = 0; number < to.segments; number++) {
            alignas(64) float numbers[SEGMENT];
            alignas(64) int8_t codes[SEGMENT];
            const int input = number * to.segment, count = std::min(to.segment, to.inputs - input);
            const size_t scale =
                static_cast<size_t>(first) * to.segments + number * height + (row - first);
            load_floats(x, dtype, static_cast<size_t>(row) * to.inputs + input, count, numbers);
            quantize_segment(numbers, count, codes, to.scales + scale, to.sums + scale);
            uint32_t* words = to.codes + (row - first) +
                              (static_cast<size_t>(first) * to.inputs + input * height) / 4;
            (bits == 4 ? store_codes<4> : store_codes<8>)(codes, count, words, height);
        }
    }
}
