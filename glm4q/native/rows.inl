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

constexpr int DENSE_AHEAD = 4096;  // numbers between a weight's prefetch and its use

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

// Computes the products of four outputs and R rows of activations.
template <int R>
inline void multiply_four(const uint16_t* const (&weight)[4], int inputs, const float* x,
                          float (&sums)[R][4]) {
    constexpr int STEP = 2 * V::LANES;
    typename V::Floats acc[R][4];
    GLM4Q_UNROLL
    for (int r = 0; r < R; r++) {
        GLM4Q_UNROLL
        for (int n = 0; n < 4; n++) acc[r][n] = V::zero();
    }
    int input = 0;
    for (; input + STEP <= inputs; input += STEP) {
        typename V::Floats even[4], odd[4];
        GLM4Q_UNROLL
        for (int n = 0; n < 4; n++) {
            __builtin_prefetch(weight[n] + input + DENSE_AHEAD, 0, 2);
            even[n] = V::even_bfloat16(weight[n] + input);
            odd[n] = V::odd_bfloat16(weight[n] + input);
        }
        GLM4Q_UNROLL
        for (int r = 0; r < R; r++) {
            const float* place = x + static_cast<size_t>(r) * inputs + input;
            const typename V::Floats x_even = V::load(place), x_odd = V::load(place + V::LANES);
            GLM4Q_UNROLL
            for (int n = 0; n < 4; n++) {
                acc[r][n] = V::multiply_add(even[n], x_even, acc[r][n]);
                acc[r][n] = V::multiply_add(odd[n], x_odd, acc[r][n]);
            }
        }
    }
    for (int r = 0; r < R; r++, x += inputs) {
        V::store_sums(sums[r], acc[r][0], acc[r][1], acc[r][2], acc[r][3]);
        for (int at = input; at < inputs; at++)
            for (int n = 0; n < 4; n++) sums[r][n] += x[at] * from_bfloat16(weight[n][at]);
    }
}

template <int R = V::HEAD_ROWS>
inline void multiply_dense_rows(int rows, const uint16_t* const (&weight)[4], const DenseRows& x,
                                int row, void* out, Dtype dtype, int at, int count) {
    if constexpr (R > 1) {
        if (rows < R)
            return multiply_dense_rows<R - 1>(rows, weight, x, row, out, dtype, at, count);
    }
    float sums[R][4];
    multiply_four<R>(weight, x.inputs, x.numbers + static_cast<size_t>(row) * x.inputs, sums);
    for (int r = 0; r < R; r++)
        store_floats(sums[r], out, dtype, static_cast<size_t>(row + r) * x.outputs + at, count);
}

void multiply_dense(const uint16_t* weight, const DenseRows& x, void* out, Dtype dtype, int start,
                    int stop) {
    for (int at = start; at < stop; at += 4) {
        const int count = std::min(4, stop - at);
        const uint16_t* four[4];
        for (int n = 0; n < 4; n++)
            four[n] = weight + static_cast<size_t>(at + std::min(n, count - 1)) * x.inputs;
        for (int row = 0; row < x.rows; row += V::HEAD_ROWS)
            multiply_dense_rows(std::min(V::HEAD_ROWS, x.rows - row), four, x, row, out, dtype, at,
                                count);
    }
}
