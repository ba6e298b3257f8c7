// Functions of numbers or rows, in plain loops that the compiler turns into vector instructions.
// Results are rounded to the activations' dtype wherever glm4q/model/ rounds them. Included by
// instruction_set.inl.

inline void load_floats(const void* x, Dtype dtype, size_t place, int count, float* to) {
    if (dtype == FLOAT32) {
        std::memcpy(to, static_cast<const float*>(x) + place, count * sizeof(float));
    } else {
        const uint16_t* from = static_cast<const uint16_t*>(x) + place;
        for (int at = 0; at < count; at++) to[at] = from_bfloat16(from[at]);
    }
}

inline void store_floats(const float* x, void* out, Dtype dtype, size_t place, int count) {
    if (dtype == FLOAT32) {
        std::memcpy(static_cast<float*>(out) + place, x, count * sizeof(float));
    } else {
        uint16_t* to = static_cast<uint16_t*>(out) + place;
        for (int at = 0; at < count; at++) to[at] = to_bfloat16(x[at]);
    }
}

inline void round_floats(float* x, Dtype dtype, int count) {
    if (dtype == BFLOAT16)
        for (int at = 0; at < count; at++) x[at] = from_bfloat16(to_bfloat16(x[at]));
}

constexpr int STRETCH = 256;  // numbers that are kept on the stack at once

// out = x / rms(x) * weight.
void norm(const Rows& rows, const void* x, const void* weight, float eps, void* out) {
    alignas(64) float numbers[STRETCH], factors[STRETCH];
    for (int row = rows.first; row < rows.last; row++) {
        const size_t place = static_cast<size_t>(row) * rows.size;
        float lanes[16] = {};
        for (int start = 0; start < rows.size; start += STRETCH) {
            const int count = std::min(STRETCH, rows.size - start);
            load_floats(x, rows.dtype, place + start, count, numbers);
            int at = 0;
            for (; at + 16 <= count; at += 16)
                for (int lane = 0; lane < 16; lane++)
                    lanes[lane] += numbers[at + lane] * numbers[at + lane];
            for (; at < count; at++) lanes[0] += numbers[at] * numbers[at];
        }
        float sum = 0;
        for (int lane = 0; lane < 16; lane++) sum += lanes[lane];
        const float scale = 1 / std::sqrt(sum / static_cast<float>(rows.size) + eps);
        for (int start = 0; start < rows.size; start += STRETCH) {
            const int count = std::min(STRETCH, rows.size - start);
            load_floats(x, rows.dtype, place + start, count, numbers);
            load_floats(weight, rows.dtype, start, count, factors);
            for (int at = 0; at < count; at++) numbers[at] *= scale;
            round_floats(numbers, rows.dtype, count);
            for (int at = 0; at < count; at++) numbers[at] *= factors[at];
            store_floats(numbers, out, rows.dtype, place + start, count);
        }
    }
}

inline void add_stretch(const void* x, size_t from, void* to, size_t place, Dtype dtype,
                        int count) {
    alignas(64) float numbers[STRETCH], sums[STRETCH];
    load_floats(x, dtype, from, count, numbers);
    load_floats(to, dtype, place, count, sums);
    for (int at = 0; at < count; at++) sums[at] += numbers[at];
    store_floats(sums, to, dtype, place, count);
}

void add(const Rows& rows, const void* x, void* to) {
    const size_t stop = static_cast<size_t>(rows.last) * rows.size;
    for (size_t at = static_cast<size_t>(rows.first) * rows.size; at < stop; at += STRETCH)
        add_stretch(x, at, to, at, rows.dtype,
                    static_cast<int>(std::min<size_t>(STRETCH, stop - at)));
}

// Adds the bias to the columns from start to stop of each row.
void add_bias(const Rows& rows, const void* bias, void* to) {
    for (int row = rows.first; row < rows.last; row++)
        for (int at = rows.start; at < rows.stop; at += STRETCH)
            add_stretch(bias, at, to, static_cast<size_t>(row) * rows.size + at, rows.dtype,
                        std::min(STRETCH, rows.stop - at));
}

// out = silu(gate) * up, for the columns from start to stop. Each row of `gate_and_up` has `size`
// numbers of gate, then `size` numbers of up.
void gate(const Rows& rows, const void* gate_and_up, void* out) {
    alignas(64) float gates[STRETCH], ups[STRETCH];
    for (int row = rows.first; row < rows.last; row++) {
        const size_t place = static_cast<size_t>(row) * rows.size;
        for (int start = rows.start; start < rows.stop; start += STRETCH) {
            const int count = std::min(STRETCH, rows.stop - start);
            load_floats(gate_and_up, rows.dtype, 2 * place + start, count, gates);
            load_floats(gate_and_up, rows.dtype, 2 * place + rows.size + start, count, ups);
            for (int at = 0; at < count; at += PARTS) {
                const Parts gate = load_parts(gates + at);
                const Parts silu = gate / (1.0f + exponential(-gate));
                std::memcpy(gates + at, &silu, sizeof(silu));
            }
            round_floats(gates, rows.dtype, count);
            for (int at = 0; at < count; at++) gates[at] *= ups[at];
            store_floats(gates, out, rows.dtype, place + start, count);
        }
    }
}
