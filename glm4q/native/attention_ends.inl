// The steps before and after attention. Included by instruction_set.inl.

// Rotates the pairs (0, 1), (2, 3), ... by the token's angles. The rest of the head stays as it is.
inline void rotate(float* x, const float* cos, const float* sin, int pairs) {
    for (int pair = 0; pair < pairs; pair++) {
        const float even = x[2 * pair], odd = x[2 * pair + 1];
        x[2 * pair] = even * cos[pair] - odd * sin[pair];
        x[2 * pair + 1] = odd * cos[pair] + even * sin[pair];
    }
}

// Sets a head's centre, float32 [D], to the mean of its new keys, if its sequence has no older
// ones.
void set_center(const Attention& attention, const Fresh& fresh, int head) {
    alignas(64) float x[LARGEST_HEAD];
    const int size = attention.size, kv_heads = attention.kv_heads, tokens = attention.tokens;
    if (attention.cached(head / kv_heads) != tokens) return;
    float* center = attention.keys.centers + attention.place(head) * size;
    std::memset(center, 0, size * sizeof(float));
    for (int token = 0; token < tokens; token++) {
        const size_t row = static_cast<size_t>(head / kv_heads) * tokens + token;
        load_floats(fresh.k, fresh.dtype, (row * kv_heads + head % kv_heads) * size, size, x);
        for (int at = 0; at < size; at++) center[at] += x[at];
    }
    for (int at = 0; at < size; at++) center[at] /= static_cast<float>(tokens);
}

// Appends the keys and values of one new token, `token` of B * T, to the cache. Writes its queries
// into `queries`: rotated, scaled, and under the Hadamard transform if the keys are.
void append(const Attention& attention, const Fresh& fresh, int token) {
    alignas(64) float x[LARGEST_HEAD];
    const int size = attention.size, kv_heads = attention.kv_heads, shared = attention.shared;
    const int sequence = token / attention.tokens, at = token % attention.tokens;
    const float* cos = fresh.cos + static_cast<size_t>(token) * fresh.pairs;
    const float* sin = fresh.sin + static_cast<size_t>(token) * fresh.pairs;
    const float scale = static_cast<float>(1 / std::sqrt(static_cast<double>(size)));
    const int place = attention.cached(sequence) - attention.tokens + at;
    for (int head = 0; head < kv_heads; head++) {
        const size_t from = (static_cast<size_t>(token) * kv_heads + head) * size;
        const size_t index = attention.place(sequence * kv_heads + head);
        const size_t to = index * attention.room + place;
        load_floats(fresh.k, fresh.dtype, from, size, x);
        if (attention.keys.centers) {
            const float* center = attention.keys.centers + index * size;
            for (int number = 0; number < size; number++) x[number] -= center[number];
        }
        rotate(x, cos, sin, fresh.pairs);
        write_vector(attention.keys, to, size, x);
        load_floats(fresh.v, fresh.dtype, from, size, x);
        write_vector(attention.values, to, size, x);
    }
    for (int head = 0; head < kv_heads * shared; head++) {
        load_floats(fresh.q, fresh.dtype,
                    (static_cast<size_t>(token) * kv_heads * shared + head) * size, size, x);
        rotate(x, cos, sin, fresh.pairs);
        for (int number = 0; number < size; number++) x[number] *= scale;
        if (attention.keys.format == KV_INT4) hadamard_transform(x, size);
        const size_t row =
            (static_cast<size_t>(sequence) * kv_heads * shared + head) * attention.tokens + at;
        std::memcpy(attention.queries + row * size, x, size * sizeof(float));
    }
}

// Copies one token's row of `mixed` in the order that o_proj takes: out [B, T, H * D].
void collect(const Attention& attention, int token, void* out, Dtype dtype) {
    alignas(64) float x[LARGEST_HEAD];
    const int size = attention.size, heads = attention.kv_heads * attention.shared;
    const int sequence = token / attention.tokens, at = token % attention.tokens;
    for (int head = 0; head < heads; head++) {
        const size_t row = (static_cast<size_t>(sequence) * heads + head) * attention.tokens + at;
        std::memcpy(x, attention.mixed + row * size, size * sizeof(float));
        if (attention.values.format == KV_INT4) hadamard_transform(x, size);
        store_floats(x, out, dtype, (static_cast<size_t>(token) * heads + head) * size, size);
    }
}
