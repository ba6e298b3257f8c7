// Vectors of AVX-512 with VNNI: sixteen outputs at once, four inputs of each in one instruction.
// Included by avx512.cpp, and by avx512_bf16.cpp, which has products of bfloat16 pairs as well.

#define GLM4Q_DOTS_WORDS

struct V {
    using Ints = __m512i;
    using Floats = __m512;
    static constexpr int LANES = 16;
    static constexpr int BYTES = 64;
    using PairSums = __m512i;
    using Book = __m512i;
    static constexpr int BLOCK_ROWS = 6;
    static constexpr int DIRECT_BLOCKS = 2;  // of rows that each unpack for themselves, at most
    static constexpr int requests(int) { return 4; }
    static constexpr int STREAMS = 16;  // rows of words that few rows of activations meet at once
    static constexpr int CUT_SPAN = 2048;
    static constexpr int SINGLY_ROWS = 0;
    static constexpr bool WHOLE_MULTIPLES = false;
    static constexpr bool CROSSED = true;
    static constexpr int CROSSED_COLUMNS = 2;
    // Each product broadcasts its activation from memory, so few vectors at once read no more. Sums of
    // 6 rows by 4 vectors, and their floats, would leave the registers after each segment.
    static constexpr int columns(int rows) { return rows > 3 ? 1 : 2; }
    static constexpr int DENSE_ROWS = 6;  // by 4 outputs: 24 of the 32 registers
    static constexpr int HEAD_ROWS = 4;
    static constexpr int MOST_WIDENING_ROWS = 8;
    static constexpr int GRAM_ROWS = 8;  // of 3 vectors: 24 again

    static __m512i broadcast(int32_t number) { return _mm512_set1_epi32(number); }
    static __m512i load(const uint32_t* place) { return _mm512_loadu_si512(place); }
    // Loads words into a register: gcc would load them for each use.
    static __m512i load_once(const uint32_t* place, int) {
        __m512i words = load(place);
        asm("" : "+v"(words));
        return words;
    }
    static __m512i load_part(const uint32_t* place, int count) {
        return _mm512_maskz_loadu_epi32(static_cast<__mmask16>((1u << count) - 1), place);
    }
    static void store(uint32_t* place, __m512i words) { _mm512_storeu_si512(place, words); }
    static __m512i mask(__m512i word, int32_t bits) {
        return _mm512_and_si512(word, broadcast(bits));
    }
    static __m512i shift(__m512i word, int by) {
        return _mm512_srli_epi32(word, static_cast<unsigned>(by));
    }
    static __m512i odd_bytes(__m512i words) { return _mm512_srli_epi16(words, 8); }
    static __m512i plus(__m512i a, __m512i b) { return _mm512_add_epi32(a, b); }
    static __m512i minus(__m512i a, __m512i b) { return _mm512_sub_epi32(a, b); }
    static __m512i load_book(const uint8_t* book) {
        return _mm512_broadcast_i32x4(_mm_loadu_si128(reinterpret_cast<const __m128i*>(book)));
    }
    static __m512i look_up(__m512i book, __m512i codes) { return _mm512_shuffle_epi8(book, codes); }
    static __m512 load_half(const uint16_t* place) {
        return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(place)));
    }
    static __m512 half_part(const uint16_t* place, int count) {
        const auto there = static_cast<__mmask16>((1u << count) - 1);
        return _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(there, place));
    }

    // In assembly, so that the instruction itself broadcasts x from memory: gcc would keep x in
    // registers and move sums to memory.
    static __m512i dot_bytes(__m512i sum, __m512i codes, const uint32_t& x) {
        asm("vpdpbusd %2%{1to16%}, %1, %0" : "+v"(sum) : "v"(codes), "m"(x));
        return sum;
    }
    static __m512i dot_nibbles(__m512i sum, __m512i codes, const uint32_t& x) {
        return dot_bytes(sum, codes, x);
    }
    static __m512i first_nibbles(__m512i codes, const uint32_t& x) {
        return dot_nibbles(begin_sum(), codes, x);
    }
    static __m512i begin_sum() { return _mm512_setzero_si512(); }
    static __m512 end_sum(__m512i sum) { return to_floats(sum); }
    static __m512i no_pairs() { return _mm512_setzero_si512(); }
    static __m512i dot_pairs(__m512i sum, __m512i codes, const uint32_t& x) {
        asm("vpdpwssd %2%{1to16%}, %1, %0" : "+v"(sum) : "v"(codes), "m"(x));
        return sum;
    }
    static __m512i dot_words(__m512i sums, __m512i a, __m512i b) {
        return _mm512_dpwssd_epi32(sums, a, b);
    }
    // Adds (one + x_other) * (other + x_one) to the sums; in assembly as above.
    static __m512i dot_crossed(__m512i sums, __m512i one, __m512i other, __m512i x_one,
                               __m512i x_other) {
        __m512i a, b;
        asm("vpaddw %6, %3, %1\n\tvpaddw %5, %4, %2\n\tvpdpwssd %2, %1, %0"
            : "+v"(sums), "=&v"(a), "=&v"(b)
            : "v"(one), "v"(other), "v"(x_one), "v"(x_other));
        return sums;
    }
    static __m512i sum_pairs(__m512i sum) { return sum; }
    static __m512 to_floats(__m512i numbers) { return _mm512_cvtepi32_ps(numbers); }
    // Returns (high * 2^bits + low - less) * scale.
    static __m512 join(__m512i high, __m512i low, int bits, int32_t less, float scale) {
        const __m512i codes = _mm512_add_epi32(_mm512_slli_epi32(high, bits), low);
        return _mm512_mul_ps(_mm512_cvtepi32_ps(_mm512_sub_epi32(codes, broadcast(less))),
                             _mm512_set1_ps(scale));
    }
    static void store_product(float* to, __m512 numbers, const float* by) {
        _mm512_storeu_ps(to, _mm512_mul_ps(numbers, _mm512_loadu_ps(by)));
    }
    static __m512i flip(const uint8_t* from, uint32_t bits) {
        return _mm512_xor_si512(_mm512_loadu_si512(from), broadcast(static_cast<int32_t>(bits)));
    }
    // Transposes sixteen rows of sixteen words. Rows of `from` are `stride` bytes from each other,
    // rows of `to` are `step` words from each other.
    static void transpose(const uint8_t* from, size_t stride, uint32_t flipped, uint32_t* to,
                          size_t step) {
        __m512i a[16], b[16];
        GLM4Q_UNROLL
        for (int row = 0; row < 16; row++) a[row] = flip(from + row * stride, flipped);
        GLM4Q_UNROLL
        for (int row = 0; row < 16; row += 2) {
            b[row] = _mm512_unpacklo_epi32(a[row], a[row + 1]);
            b[row + 1] = _mm512_unpackhi_epi32(a[row], a[row + 1]);
        }
        GLM4Q_UNROLL
        for (int row = 0; row < 16; row += 4) {
            a[row] = _mm512_unpacklo_epi64(b[row], b[row + 2]);
            a[row + 1] = _mm512_unpackhi_epi64(b[row], b[row + 2]);
            a[row + 2] = _mm512_unpacklo_epi64(b[row + 1], b[row + 3]);
            a[row + 3] = _mm512_unpackhi_epi64(b[row + 1], b[row + 3]);
        }
        // Now a quarter of a[4 * block + word] holds words 4 * quarter + word of four rows.
        GLM4Q_UNROLL
        for (int word = 0; word < 4; word++) {
            const __m512i low = _mm512_shuffle_i32x4(a[word], a[word + 4], 0x88);
            const __m512i high = _mm512_shuffle_i32x4(a[word], a[word + 4], 0xdd);
            const __m512i low_end = _mm512_shuffle_i32x4(a[word + 8], a[word + 12], 0x88);
            const __m512i high_end = _mm512_shuffle_i32x4(a[word + 8], a[word + 12], 0xdd);
            _mm512_storeu_si512(to + word * step, _mm512_shuffle_i32x4(low, low_end, 0x88));
            _mm512_storeu_si512(to + (word + 4) * step, _mm512_shuffle_i32x4(high, high_end, 0x88));
            _mm512_storeu_si512(to + (word + 8) * step, _mm512_shuffle_i32x4(low, low_end, 0xdd));
            _mm512_storeu_si512(to + (word + 12) * step,
                                _mm512_shuffle_i32x4(high, high_end, 0xdd));
        }
    }
    // Makes words of one number of each row, from as many rows of 64 bytes as a word has numbers.
    // `interleaved` gives the order of the words.
    template <int ROWS>
    static void interleave(const uint8_t* from, size_t stride, uint32_t flipped, uint32_t* to) {
        const __m512i first = flip(from, flipped), second = flip(from + stride, flipped);
        if constexpr (ROWS == 2) {
            _mm512_storeu_si512(to, _mm512_unpacklo_epi16(first, second));
            _mm512_storeu_si512(to + 16, _mm512_unpackhi_epi16(first, second));
        } else {
            const __m512i third = flip(from + 2 * stride, flipped);
            const __m512i fourth = flip(from + 3 * stride, flipped);
            const __m512i low = _mm512_unpacklo_epi8(first, second);
            const __m512i high = _mm512_unpackhi_epi8(first, second);
            const __m512i low_end = _mm512_unpacklo_epi8(third, fourth);
            const __m512i high_end = _mm512_unpackhi_epi8(third, fourth);
            _mm512_storeu_si512(to, _mm512_unpacklo_epi16(low, low_end));
            _mm512_storeu_si512(to + 16, _mm512_unpackhi_epi16(low, low_end));
            _mm512_storeu_si512(to + 32, _mm512_unpacklo_epi16(high, high_end));
            _mm512_storeu_si512(to + 48, _mm512_unpackhi_epi16(high, high_end));
        }
    }
    template <int ROWS>
    static int interleaved(int at) {
        constexpr int NUMBERS = 16 * ROWS, QUARTER = 4 * ROWS;
        return at / NUMBERS * NUMBERS + at % QUARTER / 4 * 16 + at % NUMBERS / QUARTER * 4 + at % 4;
    }

    static __m512 load(const float* place) { return _mm512_loadu_ps(place); }
    static void store(float* place, __m512 numbers) { _mm512_storeu_ps(place, numbers); }
    static __m512 fill(float number) { return _mm512_set1_ps(number); }
    static __m512 zero() { return _mm512_setzero_ps(); }
    static __m512 multiply_add(__m512 a, __m512 b, __m512 c) { return _mm512_fmadd_ps(a, b, c); }
    static void store_sums(float* to, __m512 a, __m512 b, __m512 c, __m512 d) {
        const __m512 ab = _mm512_add_ps(_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b));
        const __m512 cd = _mm512_add_ps(_mm512_unpacklo_ps(c, d), _mm512_unpackhi_ps(c, d));
        // Each quarter now holds two parts of each sum: a b a b, c d c d.
        const __m512 sums = _mm512_add_ps(_mm512_shuffle_ps(ab, cd, 0x44),
                                          _mm512_shuffle_ps(ab, cd, 0xee));
        const __m256 half = _mm256_add_ps(
            _mm512_castps512_ps256(sums),
            _mm256_castpd_ps(_mm512_extractf64x4_pd(_mm512_castps_pd(sums), 1)));
        _mm_storeu_ps(to, _mm_add_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps(half, 1)));
    }
    static __m512 even(__m512i words) { return _mm512_castsi512_ps(_mm512_slli_epi32(words, 16)); }
    static __m512 odd(__m512i words) {
        return _mm512_castsi512_ps(_mm512_and_si512(words, broadcast(-65536)));
    }
#ifdef GLM4Q_BFLOAT16
    static __m512 dot_pair(__m512 sum, __m512i a, __m512i b) {
        return _mm512_dpbf16_ps(sum, (__m512bh)a, (__m512bh)b);
    }
#else
    static __m512 dot_pair(__m512 sum, __m512i a, __m512i b) {
        return _mm512_fmadd_ps(odd(a), odd(b), _mm512_fmadd_ps(even(a), even(b), sum));
    }
#endif
    static __m512 larger(__m512 a, __m512 b) { return _mm512_max_ps(a, b); }
    static __m512 add(__m512 a, __m512 b) { return _mm512_add_ps(a, b); }
    static float largest(__m512 numbers) { return _mm512_reduce_max_ps(numbers); }
    static uint32_t largest(__m512i numbers) { return _mm512_reduce_max_epu32(numbers); }
    static int32_t sum(__m512i numbers) { return _mm512_reduce_add_epi32(numbers); }
    static __m512 even_bfloat16(const uint16_t* place) { return even(_mm512_loadu_si512(place)); }
    static __m512 odd_bfloat16(const uint16_t* place) { return odd(_mm512_loadu_si512(place)); }
};
