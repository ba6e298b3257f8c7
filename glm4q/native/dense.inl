// Products by bfloat16 weights, which are widened in registers. Included by instruction_set.inl.

constexpr int DENSE_AHEAD = 4096;  // numbers between a weight's prefetch and its use
constexpr int FEW_ROWS = 8;  // that widen a weight each time they meet it, two or four at once

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

void multiply_few_rows(const uint16_t* weight, const DenseRows& x, void* out, Dtype dtype, int start,
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

// Many rows: a strip of four outputs is widened to floats once for all of them.
constexpr int STRIP = 1024;

// Adds the products of R rows by a strip [4, STRIP] of `count` inputs to sums [R, 4].
template <int R>
inline void add_strip(const float* strip, int count, const float* x, int inputs,
                      float (*sums)[4]) {
    typename V::Floats acc[R][4];
    GLM4Q_UNROLL
    for (int r = 0; r < R; r++) {
        GLM4Q_UNROLL
        for (int n = 0; n < 4; n++) acc[r][n] = V::zero();
    }
    for (int at = 0; at < count; at += V::LANES) {
        typename V::Floats numbers[R];
        GLM4Q_UNROLL
        for (int r = 0; r < R; r++) numbers[r] = V::load(x + static_cast<size_t>(r) * inputs + at);
        GLM4Q_UNROLL
        for (int n = 0; n < 4; n++) {
            const typename V::Floats weight = V::load(strip + n * STRIP + at);
            GLM4Q_UNROLL
            for (int r = 0; r < R; r++) acc[r][n] = V::multiply_add(weight, numbers[r], acc[r][n]);
        }
    }
    GLM4Q_UNROLL
    for (int r = 0; r < R; r++) {
        float four[4];
        V::store_sums(four, acc[r][0], acc[r][1], acc[r][2], acc[r][3]);
        for (int n = 0; n < 4; n++) sums[r][n] += four[n];
    }
}

// Adds the products of all rows by four outputs to sums [rows, 4].
inline void add_four_outputs(const uint16_t* const (&four)[4], const DenseRows& x,
                             float (*sums)[4]) {
    constexpr int R = V::DENSE_ROWS, STEP = 2 * V::LANES;
    alignas(64) float strip[4 * STRIP];
    const int whole = x.inputs / STEP * STEP;
    for (int first = 0; first < whole; first += STRIP) {
        const int count = std::min(STRIP, whole - first);
        for (int n = 0; n < 4; n++) {
            for (int at = 0; at < count; at += STEP) {
                V::store(strip + n * STRIP + at, V::even_bfloat16(four[n] + first + at));
                V::store(strip + n * STRIP + at + V::LANES, V::odd_bfloat16(four[n] + first + at));
            }
        }
        int row = 0;
        const float* from = x.numbers + first;
        for (; row + R <= x.rows; row += R)
            add_strip<R>(strip, count, from + static_cast<size_t>(row) * x.inputs, x.inputs,
                         sums + row);
        for (; row < x.rows; row++)
            add_strip<1>(strip, count, from + static_cast<size_t>(row) * x.inputs, x.inputs,
                         sums + row);
    }
    for (int row = 0; row < x.rows; row++)
        for (int at = whole; at < x.inputs; at++)
            for (int n = 0; n < 4; n++)
                sums[row][n] += x.numbers[static_cast<size_t>(row) * x.inputs + at] *
                                from_bfloat16(four[n][at]);
}

void multiply_dense(const uint16_t* weight, const DenseRows& x, void* out, Dtype dtype, int start,
                    int stop) {
    if (x.rows <= FEW_ROWS) return multiply_few_rows(weight, x, out, dtype, start, stop);
    for (int at = start; at < stop; at += 4) {
        const int count = std::min(4, stop - at);
        const uint16_t* four[4];
        for (int n = 0; n < 4; n++)
            four[n] = weight + static_cast<size_t>(at + std::min(n, count - 1)) * x.inputs;
        float sums[LARGEST_DENSE_ROWS][4] = {};
        add_four_outputs(four, x, sums);
        for (int row = 0; row < x.rows; row++)
            store_floats(sums[row], out, dtype, static_cast<size_t>(row) * x.outputs + at, count);
    }
}
