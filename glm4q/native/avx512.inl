// Vectors of AVX-512 with VNNI: sixteen outputs at once, four inputs of each in one instruction.
// Included by avx512.cpp, and by avx512_bf16.cpp, which has products of bfloat16 pairs as well.

struct V {
    using Ints = __m512i;
    using Floats = __m512;
    static constexpr int LANES = 16;
    static constexpr int BLOCK_ROWS = 6;  // 6 rows of 4 vectors: 24 of the 32 registers
    static constexpr int HEAD_ROWS = 4;
    static constexpr int GRAM_ROWS = 8;  // of 3 vectors: 24 again

    static __m512i broadcast(int32_t number) { return _mm512_set1_epi32(number); }
    static __m512i negative_product(const int32_t* numbers, int32_t by) {
        return _mm512_mullo_epi32(_mm512_loadu_si512(numbers), broadcast(-by));
    }
    static __m512i load(const uint32_t* place) { return _mm512_loadu_si512(place); }
    static __m512i load_part(const uint32_t* place, int count) {
        return _mm512_maskz_loadu_epi32(static_cast<__mmask16>((1u << count) - 1), place);
    }
    static __m512i low(__m512i word) { return _mm512_and_si512(word, _mm512_set1_epi8(15)); }
    static __m512i high(__m512i word) { return low(_mm512_srli_epi32(word, 4)); }
    static __m512 load_half(const uint16_t* place) {
        return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(place)));
    }
    static __m512 half_part(const uint16_t* place, int count) {
        const auto there = static_cast<__mmask16>((1u << count) - 1);
        return _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(there, place));
    }

    // In assembly, so that x is read as the instruction's own broadcast: gcc would keep x in
    // registers and sums in memory.
    static __m512i dot_bytes(__m512i sum, __m512i codes, const uint32_t& x) {
        asm("vpdpbusd %2%{1to16%}, %1, %0" : "+v"(sum) : "v"(codes), "m"(x));
        return sum;
    }
    static __m512i dot_nibbles(__m512i sum, __m512i codes, const uint32_t& x) {
        return dot_bytes(sum, codes, x);
    }
    static void add_scaled(float* to, __m512i sum, __m512 scale, float x_scale) {
        const __m512 factor = _mm512_mul_ps(scale, _mm512_set1_ps(x_scale));
        _mm512_storeu_ps(to,
                         _mm512_fmadd_ps(_mm512_cvtepi32_ps(sum), factor, _mm512_loadu_ps(to)));
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
    static __m512 even_bfloat16(const uint16_t* place) { return even(_mm512_loadu_si512(place)); }
    static __m512 odd_bfloat16(const uint16_t* place) { return odd(_mm512_loadu_si512(place)); }
};
