// Rounding to nearest for any instruction set: PARTS rows side by side. Included by
// instruction_set.inl.

struct Grids {
    Parts scale, zero;  // zero: the zero point
};

// The grids of groups that have these least and largest weights.
inline Grids make_grids(Parts low, Parts high, const Rounding& rounding, float clip) {
    const float largest = static_cast<float>((1 << rounding.bits) - 1);
    const float middle = static_cast<float>(1 << (rounding.bits - 1));
    if (rounding.symmetric && rounding.bits == 4) {  // the sign puts the largest weight at -8
        const Parts furthest = high > -low ? high : low;
        return {half_scale(-furthest * clip / middle), fill(middle)};
    }
    if (rounding.symmetric)
        return {half_scale(larger(high, -low) * clip / (middle - 1)), fill(middle)};
    high = larger(high, fill(0)) * clip;
    low = smaller(low * clip, -high / (largest - 1));
    const Parts scale = half_scale((high - low) / largest);
    return {scale, within(nearest(-low / scale), fill(1), fill(largest))};
}

// Replaces each group's scale by the one that fits its codes best. gain: by how much the codes q
// reduce the group's squared error, (q w)^2 / (q q), weighed by importance.
template <bool WEIGHED>
inline void fit_scales(const Parts* weights, const float* importance, int size, float largest,
                       Grids& grids, Parts& gain) {
    const Parts inverse = 1 / grids.scale, lowest = -grids.zero, highest = largest - grids.zero;
    Parts product = {}, square = {};
    for (int at = 0; at < size; at++) {
        const Parts code = within(nearest(weights[at] * inverse), lowest, highest);
        const Parts weighed = WEIGHED ? code * importance[at] : code;
        product += weighed * weights[at];
        square += weighed * code;
    }
    grids.scale = half_scale(product / square);
    gain = product * product / square;  // NaN where all codes are 0
}

template <bool WEIGHED>
inline Grids find_grids(const Rounding& rounding, const Parts* weights, const float* importance,
                        int size) {
    Parts low = weights[0], high = weights[0], best_gain = {}, gain;
    for (int at = 1; at < size; at++) {
        low = smaller(low, weights[at]);
        high = larger(high, weights[at]);
    }
    const float largest = static_cast<float>((1 << rounding.bits) - 1);
    Grids best = make_grids(low, high, rounding, 1);
    for (int clip = 0; clip < rounding.clip_count; clip++) {
        Grids grids = make_grids(low, high, rounding, rounding.clips[clip]);
        fit_scales<WEIGHED>(weights, importance, size, largest, grids, gain);
        const auto better = gain > best_gain;
        best_gain = better ? gain : best_gain;
        best.scale = better ? grids.scale : best.scale;
        best.zero = better ? grids.zero : best.zero;
    }
    return best;
}

// Stores the codes of a group of `count` rows as words.
inline void store_nearest(const Parts* weights, const Grids& grids, int size, int count, int bits,
                          uint32_t* words, size_t stride) {
    const Parts largest = fill(static_cast<float>((1 << bits) - 1));
    for (int at = 0; at < size; at += 32 / bits, words += stride) {
        Words word = {};
        for (int input = 0; input < 32 / bits; input++) {
            const Parts code = nearest(weights[at + input] / grids.scale) + grids.zero;
            word |= __builtin_convertvector(within(code, fill(0), largest), Words) << bits * input;
        }
        std::memcpy(words, &word, count * sizeof(uint32_t));
    }
}

// Loads a group of rows, which are `stride` bytes from each other: a lane for each row. The rows
// are copied first: with a power of two as stride they would evict each other from the cache.
inline void load_group(const char* x, Dtype dtype, size_t stride, int size, int count, char* copy,
                       Parts* to) {
    const size_t bytes = size * bytes_of(dtype);
    for (int part = 0; part < PARTS; part++)
        std::memcpy(copy + part * bytes, x + std::min(part, count - 1) * stride, bytes);
    for (int at = 0, step = dtype == FLOAT32 ? 1 : 2; at < size; at += step) {
        Words words;
        uint32_t lanes[PARTS];
        for (int part = 0; part < PARTS; part++)
            std::memcpy(&lanes[part], copy + part * bytes + at * bytes_of(dtype), sizeof(uint32_t));
        std::memcpy(&words, lanes, sizeof(words));
        to[at] = (Parts)(dtype == FLOAT32 ? words : words << 16);
        if (dtype == BFLOAT16) to[at + 1] = (Parts)(words & 0xffff0000);
    }
}

// Rounds `count` rows from `first` on, side by side; scratch: [2, size].
void round_rows(const Rounding& rounding, void* scratch, int first, int count) {
    const int size = rounding.inputs / rounding.groups, bits = rounding.bits;
    const size_t stride = rounding.inputs * bytes_of(rounding.dtype);
    const char* rows = static_cast<const char*>(rounding.weight) + first * stride;
    Parts* weights = static_cast<Parts*>(scratch);
    char* copy = reinterpret_cast<char*>(weights + size);
    for (int group = 0; group < rounding.groups; group++) {
        const int input = group * size;
        load_group(rows + input * bytes_of(rounding.dtype), rounding.dtype, stride, size, count,
                   copy, weights);
        const float* importance = rounding.importance;
        const Grids grids = importance
                                ? find_grids<true>(rounding, weights, importance + input, size)
                                : find_grids<false>(rounding, weights, nullptr, size);
        const size_t word = static_cast<size_t>(input * bits / 32) * rounding.stride;
        store_nearest(weights, grids, size, count, bits, rounding.words + word + first,
                      rounding.stride);
        for (int part = 0; part < count; part++) {
            const size_t place = group * rounding.stride + first + part;
            rounding.scales[place] = to_float16(grids.scale[part]);
            rounding.zeros[place] = static_cast<uint8_t>(grids.zero[part]);
        }
    }
}
