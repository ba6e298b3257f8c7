// The layout of cached vectors: a reader and a writer for each format of glm4q/memory/kv/. Included
// by instruction_set.inl.

constexpr float SMALLEST_SCALE = 0x1p-24f;
static_assert(SMALLEST_SCALE * (1 << -SMALLEST_SCALE_EXPONENT) == 1, "see constants.h");

inline void read_int8(const uint8_t* codes, const uint16_t* scales, int size, float* to) {
    const float scale = from_float16(*scales);
    const int8_t* from = reinterpret_cast<const int8_t*>(codes);
    for (int at = 0; at < size; at++) to[at] = static_cast<float>(from[at]) * scale;
}

inline void write_int8(const float* x, int size, uint8_t* codes, uint16_t* scales) {
    float most = 0;
    for (int at = 0; at < size; at++) most = std::max(most, std::fabs(x[at]));
    *scales = to_float16(std::max(most / LARGEST_INT8, SMALLEST_SCALE));
    const float scale = from_float16(*scales);
    for (int at = 0; at < size; at++) {
        const int32_t code = round_code(x[at] / scale);
        codes[at] = static_cast<uint8_t>(std::min(std::max(code, -LARGEST_INT8), LARGEST_INT8));
    }
}

// A byte has number i of a vector and number i + D / 2. Each group has a scale and a least value.
inline void read_int4(const uint8_t* codes, const uint16_t* scales, int size, float* to) {
    for (int at = 0; at < size / 2; at++) {
        to[at] = static_cast<float>(codes[at] & 15);
        to[at + size / 2] = static_cast<float>(codes[at] >> 4);
    }
    for (int start = 0; start < size; start += KV_GROUP, scales += 2) {
        const float scale = from_float16(scales[0]), least = from_float16(scales[1]);
        float* group = to + start;
        for (int at = 0; at < KV_GROUP; at++) group[at] = group[at] * scale + least;
    }
}

inline void write_int4(const float* x, int size, uint8_t* codes, uint16_t* scales) {
    uint8_t fresh[LARGEST_HEAD];
    for (int start = 0; start < size; start += KV_GROUP, scales += 2) {
        float least = x[start], most = x[start];
        for (int at = start; at < start + KV_GROUP; at++) {
            least = std::min(least, x[at]);
            most = std::max(most, x[at]);
        }
        scales[0] = to_float16(std::max((most - least) / LARGEST_INT4, SMALLEST_SCALE));
        scales[1] = to_float16(least);
        const float scale = from_float16(scales[0]), low = from_float16(scales[1]);
        for (int at = start; at < start + KV_GROUP; at++) {
            const int32_t code = round_code((x[at] - low) / scale);
            fresh[at] = static_cast<uint8_t>(std::min(std::max(code, 0), LARGEST_INT4));
        }
    }
    for (int at = 0; at < size / 2; at++)
        codes[at] = static_cast<uint8_t>(fresh[at] | fresh[at + size / 2] << 4);
}

// Multiplies each group of 64 numbers by the Hadamard matrix over 8: glm4q/memory/kv/hadamard.py.
inline void hadamard_transform(float* x, int size) {
    for (int start = 0; start < size; start += KV_GROUP) {
        float* group = x + start;
        for (int half = 1; half < KV_GROUP; half *= 2)
            for (int block = 0; block < KV_GROUP; block += 2 * half)
                for (int at = block; at < block + half; at++) {
                    const float first = group[at], second = group[at + half];
                    group[at] = first + second;
                    group[at + half] = first - second;
                }
        for (int at = 0; at < KV_GROUP; at++) group[at] *= 0.125f;
    }
}

inline void read_vector(const CachedVectors& vectors, size_t place, int size, float* to) {
    switch (vectors.format) {
        case KV_FLOAT32:
            load_floats(vectors.codes, FLOAT32, place * size, size, to);
            break;
        case KV_BFLOAT16:
            load_floats(vectors.codes, BFLOAT16, place * size, size, to);
            break;
        case KV_INT8:
            read_int8(vectors.codes + place * size, vectors.scales + place, size, to);
            break;
        case KV_INT4:
            read_int4(vectors.codes + place * (size / 2),
                      vectors.scales + place * (size / KV_GROUP) * 2, size, to);
            break;
    }
}

inline void write_vector(const CachedVectors& vectors, size_t place, int size, float* x) {
    switch (vectors.format) {
        case KV_FLOAT32:
            store_floats(x, vectors.codes, FLOAT32, place * size, size);
            break;
        case KV_BFLOAT16:
            store_floats(x, vectors.codes, BFLOAT16, place * size, size);
            break;
        case KV_INT8:
            write_int8(x, size, vectors.codes + place * size, vectors.scales + place);
            break;
        case KV_INT4:
            hadamard_transform(x, size);
            write_int4(x, size, vectors.codes + place * (size / 2),
                       vectors.scales + place * (size / KV_GROUP) * 2);
            break;
    }
}
