// Rounds activations to codes of 8 or 16 bits. Included by instruction_set.inl.

// Rounds a segment of `count` floats to codes of magnitudes up to `most_code`, in order. Returns the
// sum of the codes.
template <class Code>
inline int32_t quantize_segment(const float* x, int count, float most_code, Code* codes,
                                float* scale) {
    // Magnitudes are compared by their bits: those of NaN are the largest, so NaN is not lost.
    int32_t most = 0;
    for (int at = 0; at < count; at++)
        most = std::max(most, static_cast<int32_t>(bits_of_float(x[at]) & 0x7fffffff));
    const float largest = float_of_bits(static_cast<uint32_t>(most));
    const float inverse = largest > 0 ? most_code / largest : 0;
    int32_t total = 0;
    for (int at = 0; at < count; at++) {
        const int32_t code = round_code(x[at] * inverse);
        codes[at] = static_cast<Code>(code);
        total += code;
    }
    *scale = largest / most_code;
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

template <class Code>
void quantize_rows(const void* x, Dtype dtype, int bits, const Activations& to, int first,
                   int last) {
    constexpr float MOST_CODE = sizeof(Code) == 1 ? 127 : LARGEST_INT16;
    constexpr int PER_WORD = 4 / sizeof(Code);
    const int height = last - first;
    for (int row = first; row < last; row++) {
        for (int number = 0; number < to.segments; number++) {
            alignas(64) float numbers[CHUNK];
            alignas(64) Code codes[CHUNK];
            const int input = number * to.segment;
            float* scale = to.scales + to.scales_place(input, first, height) + (row - first);
            const size_t chunk = to.sums_place(input, first) + (row - first);
            load_floats(x, dtype, static_cast<size_t>(row) * to.inputs + input, to.segment,
                        numbers);
            const int32_t sum = quantize_segment(numbers, to.segment, MOST_CODE, codes, scale);
            if (to.wide) {
                to.code_sums[chunk] = static_cast<uint32_t>(sum);
                if (V::CROSSED) to.crossed[chunk] = cross_codes(codes, to.segment);
            } else {
                if (input % to.chunk == 0) to.sums[chunk] = 0;
                to.sums[chunk] += static_cast<float>(sum) * *scale;
            }
            uint32_t* words =
                to.codes + (row - first) + to.codes_place(input, first, height) / PER_WORD;
            (bits == 4 ? store_codes<4, Code> : store_codes<8, Code>)(codes, to.segment, words,
                                                                      height);
        }
    }
}

void quantize(const void* x, Dtype dtype, int bits, const Activations& to, int first, int last) {
    (to.wide ? quantize_rows<int16_t> : quantize_rows<int8_t>)(x, dtype, bits, to, first, last);
}
