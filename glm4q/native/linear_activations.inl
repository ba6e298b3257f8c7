// Rounds activations to codes of 8 or 16 bits. Included by instruction_set.inl.

// The largest magnitude. Magnitudes are compared by their bits: those of NaN are the largest, so NaN is
// not lost.
inline float greatest_magnitude(const float* x, int count) {
    int32_t most = 0;
    for (int at = 0; at < count; at++)
        most = std::max(most, static_cast<int32_t>(bits_of_float(x[at]) & 0x7fffffff));
    return float_of_bits(static_cast<uint32_t>(most));
}

// Rounds floats times `inverse` to codes. Returns the sum of the codes.
template <class Code>
inline int32_t round_codes(const float* x, int count, float inverse, Code* codes) {
    int32_t total = 0;
    for (int at = 0; at < count; at++) {
        const int32_t code = round_code(x[at] * inverse);
        codes[at] = static_cast<Code>(code);
        total += code;
    }
    return total;
}

// Stores the codes as words, `stride` words from each other, in the order of `Layout`: step s of the
// words that hold 32 / BITS inputs has every STEPS-th of them, from s on.
template <int BITS, class Code>
inline void store_codes(const Code* codes, int count, uint32_t* words, int stride) {
    constexpr int PER_WORD = 32 / BITS, PER_STEP = 4 / sizeof(Code), STEPS = PER_WORD / PER_STEP;
    for (int input = 0; input < count; input += PER_WORD) {
        for (int step = 0; step < STEPS; step++, words += stride) {
            Code word[PER_STEP];
            for (int at = 0; at < PER_STEP; at++) word[at] = codes[input + step + at * STEPS];
            std::memcpy(words, word, sizeof(word));
        }
    }
}

// The sum of the products of neighbouring codes, of which only the last 32 bits count.
template <class Code>
inline uint32_t cross_codes(const Code* codes, int count) {
    uint32_t sum = 0;
    for (int at = 0; at < count; at += 2) sum += static_cast<uint32_t>(codes[at] * codes[at + 1]);
    return sum;
}

// Rounds a chunk to codes of 16 bits, with a scale of its own.
inline void quantize_wide(const float* numbers, const Activations& to, int input, int row,
                          size_t scale, int16_t* codes) {
    const float largest = greatest_magnitude(numbers, to.chunk);
    const float inverse = largest > 0 ? LARGEST_INT16 / largest : 0;
    const size_t sums = to.sums_place(input, row);
    to.scales[scale] = largest / LARGEST_INT16;
    to.code_sums[sums] =
        static_cast<uint32_t>(round_codes(numbers, to.chunk, inverse, codes));
    if (V::CROSSED) to.crossed[sums] = cross_codes(codes, to.chunk);
}

// A row of a chunk has a unit for 8-bit codes, and the scales of its segments are whole multiples of it,
// so that sums of segments can be added as whole numbers. Only a segment whose numbers are thousands of
// times smaller than the chunk's largest is rounded to noticeably coarser steps by that.
struct Unit {
    float largest;
    bool ordinary;

    explicit Unit(float largest)
        : largest(largest), ordinary(largest >= 0x1p-100f && largest <= 0x1.fffffep127f) {}

    // What is next to nothing becomes 0. What has no finite size leaves no number in the results.
    float size() const {
        if (!ordinary) return largest < 1 ? 0 : largest;
        return largest / (LARGEST_INT8 * LARGEST_MULTIPLE);
    }

    int multiple(float largest_of_segment) const {
        const float part = largest_of_segment / largest * LARGEST_MULTIPLE;
        return ordinary ? std::max(static_cast<int>(std::ceil(part)), 1) : 1;
    }
};

// Rounds a chunk to codes of 8 bits.
inline void quantize_narrow(const float* numbers, const Activations& to, int input, int row,
                            size_t scale, int height, int8_t* codes) {
    const Unit unit(greatest_magnitude(numbers, to.chunk));
    const size_t sums = to.sums_place(input, row);
    to.units[sums] = unit.size();
    int32_t sum = 0;
    for (int at = 0; at < to.chunk; at += to.segment, scale += height) {
        const int multiple = unit.multiple(greatest_magnitude(numbers + at, to.segment));
        const float inverse =
            unit.ordinary ? 1 / (static_cast<float>(multiple) * unit.size()) : 0;
        sum += multiple * round_codes(numbers + at, to.segment, inverse, codes + at);
        to.multiples[scale] = multiple_word(multiple, unit.size());
    }
    to.code_sums[sums] = static_cast<uint32_t>(sum);
}

template <class Code>
void quantize_rows(const void* x, Dtype dtype, int bits, const Activations& to, int first,
                   int last) {
    const int height = last - first;
    for (int row = first; row < last; row++) {
        for (int input = 0; input < to.inputs; input += to.chunk) {
            alignas(64) float numbers[CHUNK];
            alignas(64) Code codes[CHUNK];
            const size_t scale = to.scales_place(input, first, height) + (row - first);
            load_floats(x, dtype, static_cast<size_t>(row) * to.inputs + input, to.chunk, numbers);
            if constexpr (sizeof(Code) == 2)
                quantize_wide(numbers, to, input, row, scale, codes);
            else
                quantize_narrow(numbers, to, input, row, scale, height, codes);
            uint32_t* words = to.codes + (row - first) +
                              to.codes_place(input, first, height) / (4 / sizeof(Code));
            (bits == 4 ? store_codes<4, Code> : store_codes<8, Code>)(codes, to.chunk, words,
                                                                      height);
        }
    }
}

void quantize(const void* x, Dtype dtype, int bits, const Activations& to, int first, int last) {
    (to.wide ? quantize_rows<int16_t> : quantize_rows<int8_t>)(x, dtype, bits, to, first, last);
}
