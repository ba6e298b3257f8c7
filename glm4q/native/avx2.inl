// Vectors of AVX2: eight outputs at once. Included by avx2.cpp; and by avx_vnni.cpp and
// avx_vnni_evex.cpp, which have instructions that multiply and add at once: GLM4Q_VNNI says how the
// assembler is told their encoding.

#define GLM4Q_DOTS_PAIRS

struct V {
    using Ints = __m256i;
    using Floats = __m256;
    static constexpr int LANES = 8;
    static constexpr int BYTES = 32;
    using PairSums = __m256i;
    using Book = __m256i;
    static constexpr int DIRECT_BLOCKS = 2;  // of rows that each unpack for themselves, at most
    // A vector: two or four for each line of the cache.
    static constexpr int requests(int bits) { return bits == 8 ? 2 : 1; }
    static constexpr int STREAMS = 8;  // rows of words that few rows of activations meet at once
    static constexpr int CUT_SPAN = 4096;
    // So few rows leave registers for their codes: a vector is multiplied as soon as it is unpacked.
    static constexpr int SINGLY_ROWS = 2;
#ifdef GLM4Q_VNNI
    // 6 rows of 2 vectors: an Intel core starts two products a cycle, and each takes five cycles until
    // the next one can be added to its sum. So fewer than ten sums at once would wait.
    static constexpr int BLOCK_ROWS = 6;
    static constexpr bool WHOLE_MULTIPLES = false;
    static constexpr bool CROSSED = false;  // one instruction multiplies and adds
#else
    static constexpr int BLOCK_ROWS = 4;  // 4 rows of 2 vectors: half of the 16 registers
    static constexpr bool WHOLE_MULTIPLES = true;
    static constexpr bool CROSSED = true;
#endif
    static constexpr int CROSSED_COLUMNS = 2;
    static constexpr int columns(int rows) { return rows > 2 ? 2 : 4; }
    static constexpr int DENSE_ROWS = 3;  // by 4 outputs: 12 of the 16 registers
    static constexpr int HEAD_ROWS = 2;
    static constexpr int MOST_WIDENING_ROWS = 2;  // each for itself, of a bfloat16 weight
    static constexpr int GRAM_ROWS = 4;  // of 3 vectors: 12 of the 16 registers

    static __m256i broadcast(int32_t number) { return _mm256_set1_epi32(number); }
    static __m256i load(const uint32_t* place) {
        return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(place));
    }
    // Loads words into a register, where few rows leave one: gcc would load them for each use.
    static __m256i load_once(const uint32_t* place, int rows) {
        __m256i words = load(place);
        if (rows <= SINGLY_ROWS) asm("" : "+x"(words));
        return words;
    }
    static __m256i load_part(const uint32_t* place, int count) {
        const __m256i number = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
        const __m256i there = _mm256_cmpgt_epi32(broadcast(count), number);
        return _mm256_maskload_epi32(reinterpret_cast<const int*>(place), there);
    }
    static void store(uint32_t* place, __m256i words) {
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(place), words);
    }
    static __m256i mask(__m256i word, int32_t bits) {
        return _mm256_and_si256(word, broadcast(bits));
    }
    static __m256i shift(__m256i word, int by) { return _mm256_srli_epi32(word, by); }
    static __m256i odd_bytes(__m256i words) { return _mm256_srli_epi16(words, 8); }
    static __m256i plus(__m256i a, __m256i b) { return _mm256_add_epi32(a, b); }
    static __m256i minus(__m256i a, __m256i b) { return _mm256_sub_epi32(a, b); }
    static __m256i load_book(const uint8_t* book) {
        return _mm256_broadcastsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i*>(book)));
    }
    static __m256i look_up(__m256i book, __m256i codes) { return _mm256_shuffle_epi8(book, codes); }
    static __m256 load_half(const uint16_t* place) {
        return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(place)));
    }
    static __m256 half_part(const uint16_t* place, int count) {
        uint16_t padded[LANES] = {};
        std::memcpy(padded, place, count * sizeof(uint16_t));
        return load_half(padded);
    }

#ifdef GLM4Q_VNNI
    // In assembly, so that gcc keeps each sum in one register: it would move some to memory and back
    // between products.
    static __m256i dot_bytes(__m256i sum, __m256i codes, const uint32_t& x) {
        asm(GLM4Q_VNNI "vpdpbusd %2, %1, %0"
            : "+x"(sum)
            : "x"(codes), "x"(broadcast(static_cast<int32_t>(x))));
        return sum;
    }
    static __m256i dot_nibbles(__m256i sum, __m256i codes, const uint32_t& x) {
        return dot_bytes(sum, codes, x);
    }
    static __m256i first_nibbles(__m256i codes, const uint32_t& x) {
        return dot_bytes(begin_sum(), codes, x);
    }
    static __m256i dot_pairs(__m256i sum, __m256i codes, const uint32_t& x) {
        asm(GLM4Q_VNNI "vpdpwssd %2, %1, %0"
            : "+x"(sum)
            : "x"(codes), "x"(broadcast(static_cast<int32_t>(x))));
        return sum;
    }
    // A sum of 8-bit codes begins at the bits of the float 1.5 * 2^23, so its bits are those of a float
    // that is larger by just the sum: an exact subtraction makes the sum of it, on a port that does not
    // multiply, where a conversion would take the time of a product.
    static __m256i begin_sum() { return _mm256_castps_si256(fill(0x1.8p23f)); }
    static __m256 end_sum(__m256i sum) {
        return _mm256_sub_ps(_mm256_castsi256_ps(sum), fill(0x1.8p23f));
    }
#else
    // For codes from 0 to 15. The sums of pairs are 16 bits wide; `Layout` shows that a segment's
    // sums fit.
    static __m256i pairs(__m256i nibbles, uint32_t x) {
        return _mm256_maddubs_epi16(nibbles, broadcast(static_cast<int32_t>(x)));
    }
    static __m256i first_nibbles(__m256i codes, const uint32_t& x) { return pairs(codes, x); }
    // In assembly, so that gcc adds to the sums at once: it would add products to each other first,
    // and move the sums to memory meanwhile.
    static __m256i dot_nibbles(__m256i sums, __m256i codes, const uint32_t& x) {
        __m256i products;
        asm("vpmaddubsw %3, %2, %1\n\tvpaddw %1, %0, %0"
            : "+x"(sums), "=&x"(products)
            : "x"(codes), "x"(broadcast(static_cast<int32_t>(x))));
        return sums;
    }
    static __m256i sum_nibbles(__m256i sums) {
        return _mm256_madd_epi16(sums, _mm256_set1_epi16(1));
    }
    // Multiplies 16-bit sums by the multiple that is in both halves of a word.
    static __m256i add_multiple(__m256i total, __m256i sums, uint32_t multiple) {
        const __m256i by = broadcast(static_cast<int32_t>(multiple));
        return _mm256_add_epi32(total, _mm256_madd_epi16(sums, by));
    }
    // Multiplies nibble by nibble: pairs of whole bytes would saturate.
    static __m256i dot_bytes(__m256i sum, __m256i codes, const uint32_t& x) {
        const __m256i above = sum_nibbles(pairs(mask(shift(codes, 4), 0x0f0f0f0f), x));
        const __m256i below = sum_nibbles(pairs(mask(codes, 0x0f0f0f0f), x));
        return _mm256_add_epi32(_mm256_add_epi32(sum, _mm256_slli_epi32(above, 4)), below);
    }
    static __m256i dot_pairs(__m256i sums, __m256i codes, const uint32_t& x) {
        __m256i products;
        asm("vpmaddwd %3, %2, %1\n\tvpaddd %1, %0, %0"
            : "+x"(sums), "=&x"(products)
            : "x"(codes), "x"(broadcast(static_cast<int32_t>(x))));
        return sums;
    }
    static __m256i dot_words(__m256i sums, __m256i a, __m256i b) {
        return _mm256_add_epi32(sums, _mm256_madd_epi16(a, b));
    }
    // Adds (one + x_other) * (other + x_one) to the sums; in assembly as above.
    static __m256i dot_crossed(__m256i sums, __m256i one, __m256i other, __m256i x_one,
                               __m256i x_other) {
        __m256i a, b;
        asm("vpaddw %6, %3, %1\n\tvpaddw %5, %4, %2\n\tvpmaddwd %2, %1, %1\n\tvpaddd %1, %0, %0"
            : "+x"(sums), "=&x"(a), "=&x"(b)
            : "x"(one), "x"(other), "x"(x_one), "x"(x_other));
        return sums;
    }
    static __m256i begin_sum() { return _mm256_setzero_si256(); }
    static __m256 end_sum(__m256i sum) { return to_floats(sum); }
#endif
    static __m256i no_pairs() { return _mm256_setzero_si256(); }
    static __m256i sum_pairs(__m256i sums) { return sums; }
    static __m256 to_floats(__m256i numbers) { return _mm256_cvtepi32_ps(numbers); }

    // Stores the even bytes of words, then the odd ones, in words of two numbers.
    static void store_pairs(__m256i words, uint32_t* even, uint32_t* odd) {
        store(even, mask(words, 0x00ff00ff));
        store(odd, odd_bytes(words));
    }
    // Transposes eight rows of eight words.
    static void transpose(__m256i (&a)[8]) {
        __m256i b[8];
        GLM4Q_UNROLL
        for (int row = 0; row < 8; row += 2) {
            b[row] = _mm256_unpacklo_epi32(a[row], a[row + 1]);
            b[row + 1] = _mm256_unpackhi_epi32(a[row], a[row + 1]);
        }
        GLM4Q_UNROLL
        for (int row = 0; row < 8; row += 4) {
            a[row] = _mm256_unpacklo_epi64(b[row], b[row + 2]);
            a[row + 1] = _mm256_unpackhi_epi64(b[row], b[row + 2]);
            a[row + 2] = _mm256_unpacklo_epi64(b[row + 1], b[row + 3]);
            a[row + 3] = _mm256_unpackhi_epi64(b[row + 1], b[row + 3]);
        }
        // Now a half of a[4 * block + word] holds words 4 * half + word of four rows.
        GLM4Q_UNROLL
        for (int word = 0; word < 4; word++) {
            const __m256i low = _mm256_permute2x128_si256(a[word], a[word + 4], 0x20);
            a[word + 4] = _mm256_permute2x128_si256(a[word], a[word + 4], 0x31);
            a[word] = low;
        }
    }
    // The following three transpose eight rows of 32 bytes. Rows of `from` are `stride` bytes from each
    // other, steps of `to` are `step` words from each other.
    static void transpose_words(const uint8_t* from, size_t stride, uint32_t* to, size_t step) {
        __m256i a[8];
        GLM4Q_UNROLL
        for (int row = 0; row < 8; row++) a[row] = words(from + row * stride);
        transpose(a);
        GLM4Q_UNROLL
        for (int word = 0; word < 8; word++) store(to + word * step, a[word]);
    }
    // Flips the sign of codes, and stores two of each word in a step.
    static void transpose_pairs(const uint8_t* from, size_t stride, uint32_t* to, size_t step) {
        __m256i a[8];
        GLM4Q_UNROLL
        for (int row = 0; row < 8; row++) a[row] = flip(from + row * stride);
        transpose(a);
        GLM4Q_UNROLL
        for (int word = 0; word < 8; word++)
            store_pairs(a[word], to + 2 * word * step, to + (2 * word + 1) * step);
    }
    // Stores two 4-bit codes of each word in a step: lower and higher halves of bytes separately.
    static void transpose_nibbles(const uint8_t* from, size_t stride, uint32_t* low, uint32_t* high,
                                  size_t step) {
        __m256i a[8];
        GLM4Q_UNROLL
        for (int row = 0; row < 8; row++) a[row] = words(from + row * stride);
        transpose(a);
        GLM4Q_UNROLL
        for (int word = 0; word < 8; word++) {
            store_pairs(mask(a[word], 0x0f0f0f0f), low + 2 * word * step,
                        low + (2 * word + 1) * step);
            store_pairs(mask(shift(a[word], 4), 0x0f0f0f0f), high + 2 * word * step,
                        high + (2 * word + 1) * step);
        }
    }
    static __m256i flip(const uint8_t* from) {
        return _mm256_xor_si256(words(from), _mm256_set1_epi8(-128));
    }
    // Makes words of two codes from four rows of 32 bytes: of rows 0 and 2, then of 1 and 3, which
    // begin `step` words from each other. `interleaved` gives the order of the words.
    static void interleave_pairs(const uint8_t* from, size_t stride, uint32_t* to, size_t step) {
        widen_pairs(flip(from), flip(from + 2 * stride), to);
        widen_pairs(flip(from + stride), flip(from + 3 * stride), to + step);
    }
    // Makes such words of 4-bit codes, of lower and of higher halves of bytes.
    static void interleave_nibbles(const uint8_t* from, size_t stride, uint32_t* low,
                                   uint32_t* high, size_t step) {
        GLM4Q_UNROLL
        for (int row = 0; row < 2; row++, from += stride, low += step, high += step) {
            const __m256i one = words(from), other = words(from + 2 * stride);
            widen_pairs(mask(one, 0x0f0f0f0f), mask(other, 0x0f0f0f0f), low);
            widen_pairs(mask(shift(one, 4), 0x0f0f0f0f), mask(shift(other, 4), 0x0f0f0f0f), high);
        }
    }
    static void widen_pairs(__m256i one, __m256i other, uint32_t* to) {
        const __m256i low = _mm256_unpacklo_epi8(one, other), none = _mm256_setzero_si256();
        const __m256i high = _mm256_unpackhi_epi8(one, other);
        store(to, _mm256_unpacklo_epi8(low, none));
        store(to + 8, _mm256_unpackhi_epi8(low, none));
        store(to + 16, _mm256_unpacklo_epi8(high, none));
        store(to + 24, _mm256_unpackhi_epi8(high, none));
    }
    // Makes words of the numbers 0 and 2, then 1 and 3, of each four of 16 whole numbers.
    static __m256i pair_codes(__m256i a, __m256i b) {
        const __m256i order = _mm256_setr_epi8(0, 1, 4, 5, 2, 3, 6, 7, 8, 9, 12, 13, 10, 11, 14, 15, 0,
                                               1, 4, 5, 2, 3, 6, 7, 8, 9, 12, 13, 10, 11, 14, 15);
        const __m256i shorts = _mm256_shuffle_epi8(_mm256_packs_epi32(a, b), order);
        return _mm256_permute4x64_epi64(shorts, 0xd8);
    }
    // Products of the words 0 and 1, 2 and 3, ... in the even lanes.
    static __m256i cross_pairs(__m256i words) {
        return _mm256_madd_epi16(words, _mm256_shuffle_epi32(words, 0xb1));
    }
    static int interleaved(int at) {
        return at / 32 * 32 + at % 16 / 4 * 8 + at % 32 / 16 * 4 + at % 4;
    }

    static __m256 load(const float* place) { return _mm256_loadu_ps(place); }
    static void store(float* place, __m256 numbers) { _mm256_storeu_ps(place, numbers); }
    static __m256 fill(float number) { return _mm256_set1_ps(number); }
    static __m256 zero() { return _mm256_setzero_ps(); }
    static __m256 multiply_add(__m256 a, __m256 b, __m256 c) { return _mm256_fmadd_ps(a, b, c); }
    static void store_sums(float* to, __m256 a, __m256 b, __m256 c, __m256 d) {
        const __m256 sums = _mm256_hadd_ps(_mm256_hadd_ps(a, b), _mm256_hadd_ps(c, d));
        _mm_storeu_ps(to, _mm_add_ps(_mm256_castps256_ps128(sums), _mm256_extractf128_ps(sums, 1)));
    }
    static __m256 even(__m256i words) { return _mm256_castsi256_ps(_mm256_slli_epi32(words, 16)); }
    static __m256 odd(__m256i words) {
        return _mm256_castsi256_ps(_mm256_and_si256(words, broadcast(-65536)));
    }
    // In assembly, so that gcc widens odd numbers when it has multiplied the even ones: at once they
    // would need more registers than there are.
    static __m256 odd_of(const uint32_t* place) {
        __m256i numbers;
        asm volatile("vpand %1, %2, %0"
                     : "=x"(numbers)
                     : "m"(*reinterpret_cast<const __m256i_u*>(place)), "x"(broadcast(-65536)));
        return _mm256_castsi256_ps(numbers);
    }
    static __m256 dot_pair(__m256 sum, __m256i a, __m256i b) {
        return _mm256_fmadd_ps(odd(a), odd(b), _mm256_fmadd_ps(even(a), even(b), sum));
    }
    static __m256 add(__m256 a, __m256 b) { return _mm256_add_ps(a, b); }
    static __m256 larger(__m256 a, __m256 b) { return _mm256_max_ps(a, b); }
    static float largest(__m256 numbers) {
        __m128 half = _mm256_extractf128_ps(numbers, 1);
        half = _mm_max_ps(_mm256_castps256_ps128(numbers), half);
        half = _mm_max_ps(half, _mm_movehl_ps(half, half));
        return std::max(half[0], half[1]);
    }
    static __m256 even_bfloat16(const uint16_t* place) { return even(words(place)); }
    static __m256 odd_bfloat16(const uint16_t* place) { return odd(words(place)); }
    static __m256i words(const void* place) {
        return _mm256_loadu_si256(static_cast<const __m256i*>(place));
    }
};
