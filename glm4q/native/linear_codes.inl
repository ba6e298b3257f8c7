// The layouts of codes, and how they are brought to bytes or to pairs of 16 bits that activations
// are multiplied by. Included by instruction_set.inl.

// A word of a weight has 32 / BITS consecutive inputs of one output. It is unpacked to STEPS words,
// which have four codes of a byte each, or two of 16 bits if activations are WIDE. Step s has the
// inputs s, s + STEPS, s + 2 * STEPS ... of the word, which is what masks and shifts make of it. A
// book is looked up for codes that are indexes: a shuffle instruction does it.
template <int BITS, bool BOOK, bool WIDE>
struct Layout {
    static constexpr int PER_STEP = WIDE ? 2 : 4;
    static constexpr int PER_WORD = 32 / BITS;
    static constexpr int STEPS = PER_WORD / PER_STEP;
    static constexpr bool SIXTEEN = WIDE;  // bits of a code
    using Vectors = V;
    static constexpr int MIDDLE = BOOK || BITS == 8 ? 128 : 8;  // stands for 0 without zero points
    // Small codes are below 16: products of a segment fit 16 bits, if they are added by pairs.
    static constexpr bool SMALL = BITS == 4 && !BOOK && !WIDE;
    static_assert(15 * 127 * 2 * (SEGMENT / 4) <= 32767, "sums of small codes overflow 16 bits");
    static_assert(255 * 128 * SEGMENT < 1 << 22, "sums of 8-bit codes are no mantissas of floats");

    using Ints = typename V::Ints;
    using Steps = Ints[STEPS];

    static void unpack(Ints word, const typename V::Book& book, Steps& steps) {
        if constexpr (BITS == 8 && !WIDE) {
            steps[0] = word;
        } else if constexpr (BITS == 8) {
            steps[0] = V::mask(word, 0x00ff00ff);
            steps[1] = V::odd_bytes(word);
        } else if constexpr (!BOOK && WIDE) {
            GLM4Q_UNROLL
            for (int step = 0; step < STEPS; step++)
                steps[step] = V::mask(V::shift(word, 4 * step), 0x000f000f);
        } else {
            Ints low = V::mask(word, 0x0f0f0f0f), high = V::mask(V::shift(word, 4), 0x0f0f0f0f);
            if constexpr (BOOK) low = V::look_up(book, low), high = V::look_up(book, high);
            if constexpr (WIDE) {
                steps[0] = V::mask(low, 0x00ff00ff);
                steps[1] = V::mask(high, 0x00ff00ff);
                steps[2] = V::mask(V::shift(low, 8), 0x00ff00ff);
                steps[3] = V::mask(V::shift(high, 8), 0x00ff00ff);
            } else {
                steps[0] = low;
                steps[1] = high;
            }
        }
    }
};

// What `Activations` has of a segment's scale, a multiple of the chunk's unit: the scale as a float; or
// where 16-bit sums of pairs are multiplied by it, the multiple itself for either half.
inline uint32_t multiple_word(int multiple, float unit) {
    if (V::WHOLE_MULTIPLES) return static_cast<uint32_t>(multiple) * 0x10001;
    return bits_of_float(static_cast<float>(multiple) * unit);
}

inline float multiple_of(uint32_t word) {
    if (V::WHOLE_MULTIPLES) return static_cast<float>(word & 0xffff);
    return float_of_bits(word);
}

// std::conditional_t would do, but gcc warns that a vector as its argument loses attributes.
template <bool WHOLE>
struct TotalOf {
    using Type = V::Floats;
};
template <>
struct TotalOf<true> {
    using Type = V::Ints;
};

inline V::Floats floats_of(V::Floats total) { return total; }
inline V::Floats floats_of(V::Ints total) { return V::to_floats(total); }

// Sums of products of a segment, one for each lane: how a step is added, and what the sum is. Step 0
// of the FIRST row of words begins the sum.
//
// Sums of a segment are added to a `Total` of the chunk: 8-bit codes by multiples of the chunk's unit. It
// is a WHOLE number, or a float.
template <bool WIDE, bool SMALL>
struct Dots {
    static constexpr bool WHOLE = false;
    using Sums = typename V::Ints;
    using Total = typename V::Floats;
    template <bool FIRST>
    static void add(Sums& sums, typename V::Ints codes, int step, const uint32_t& x) {
        sums = V::dot_bytes(FIRST && step == 0 ? V::begin_sum() : sums, codes, x);
    }
    static Total add_segment(Total total, Sums sums, const uint32_t& multiple) {
        return V::multiply_add(V::end_sum(sums), V::fill(multiple_of(multiple)), total);
    }
};
template <bool SMALL>
struct Dots<true, SMALL> {
    static constexpr bool WHOLE = true;
    using Sums = typename V::PairSums;
    static Sums zero() { return V::no_pairs(); }
    template <bool FIRST>
    static void add(Sums& sums, typename V::Ints codes, int, const uint32_t& x) {
        static_assert(!FIRST, "sums of 16-bit codes go on where a part of a chunk ended");
        sums = V::dot_pairs(sums, codes, x);
    }
    static typename V::Ints total(Sums sums) { return V::sum_pairs(sums); }
};
template <>
struct Dots<false, true> {
    static constexpr bool WHOLE = V::WHOLE_MULTIPLES;
    using Sums = typename V::Ints;
    using Total = typename TotalOf<WHOLE>::Type;
    template <bool FIRST>
    static void add(Sums& sums, typename V::Ints codes, int step, const uint32_t& x) {
        sums = FIRST && step == 0 ? V::first_nibbles(codes, x) : V::dot_nibbles(sums, codes, x);
    }
    template <class Vectors = V>
    static Total add_segment(Total total, Sums sums, const uint32_t& multiple) {
        if constexpr (WHOLE)
            return Vectors::add_multiple(total, sums, multiple);
        else
            return Vectors::multiply_add(Vectors::end_sum(sums),
                                         Vectors::fill(multiple_of(multiple)), total);
    }
};

template <int BITS>
void unpack_zeros(const Weight& weight, int group, int start, int stop, float* zeros) {
    constexpr int PER_WORD = 32 / BITS;
    const uint32_t* words =
        weight.qzeros + static_cast<size_t>(group) * (weight.outputs / PER_WORD);
    for (int at = start; at < stop; at++)
        zeros[at - start] = static_cast<float>(words[at / PER_WORD] >> at % PER_WORD * BITS &
                                               ((1u << BITS) - 1));
}
